package daemon

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// rounds is how often each test does what it is about.
func rounds() int {
	if *long {
		return 10
	}
	return 4
}

// Daemons are killed under load: their keeper starts another one each time, and no call fails but those that were held.
func TestKillTheDaemon(t *testing.T) {
	t.Parallel()
	c := home(t)
	s := start(t, serveConfig{Config: c, Hold: true})
	pid := s.serving(1)
	load := startLoad(t, c.Socket, 4, often)
	for i := range rounds() {
		load.goesOn(300)
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		pid = s.serving(i + 2)
	}
	load.goesOn(300)
	load.right(s.log.held())
	s.signal(unix.SIGTERM)
	if code := s.end(); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// A daemon goes on without its keeper, and another one takes over from it.
func TestKillTheKeeper(t *testing.T) {
	t.Parallel()
	c := home(t)
	s := start(t, serveConfig{Config: c, Hold: true})
	s.serving(1)
	load := startLoad(t, c.Socket, 2, often)
	load.goesOn(10) // the keeper has its listeners
	s.signal(unix.SIGKILL)
	s.says("the keeper is gone", 1)
	load.goesOn(300)
	c.TakeOver = true
	next := start(t, serveConfig{Config: c, Hold: true})
	pid := next.serving(1)
	s.says("handed over", 1)
	load.goesOn(300)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil { // the new keeper has all
		t.Fatal(err)
	}
	next.serving(2)
	load.goesOn(300)
	load.right(next.log.held())
}

// Daemons hand over to the next one under load: no call fails, and no container that starts meanwhile is refused.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	c := home(t)
	c.TakeOver = true // the first one finds nobody
	s := start(t, serveConfig{Config: c, Hold: true})
	s.serving(1)
	load := startLoad(t, c.Socket, 4, often)
	loads := []*load2{}
	for range rounds() {
		load.goesOn(300)
		next := start(t, serveConfig{Config: c, Hold: true})
		loads = append(loads, &load2{startLoad(t, c.Socket, 1, often)})
		next.serving(1)
		if code := s.end(); code != 0 {
			t.Errorf("exit status %d", code)
		}
		if n := next.log.held(); n != 0 {
			t.Errorf("%d calls were held", n)
		}
		s = next
	}
	load.goesOn(300)
	load.right(0)
	for _, l := range loads {
		l.goesOn(10)
		l.right(0)
	}
	s.signal(unix.SIGTERM)
	if code := s.end(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	for _, name := range []string{"", linkSuffix, policySuffix} {
		if _, err := os.Lstat(c.Socket + name); err == nil {
			t.Errorf("%s is left", c.Socket+name)
		}
	}
}

type load2 struct{ *load }
