package daemon

import (
	"context"
	"errors"
	"flag"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/engine/agent"
	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// A daemon whose receive thread hangs is ended, and its keeper starts another one.
func TestHang(t *testing.T) {
	t.Parallel()
	c := home(t)
	if err := os.WriteFile(c.Policy, []byte("default: continue\npath: inline\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := start(t, serveConfig{Config: c, Stuck: true, Dead: 5 * time.Second})
	s.serving(1)
	load := startLoad(t, c.Socket, 1, often)
	load.goesOn(10)
	load.MustSay("call 99")
	load.Expect("calling 99")
	s.says("does not say that it is well", 1)
	s.serving(2)
	load.Expect("99: interrupted system call")
	load.goesOn(10)
	if !strings.Contains(s.log.String(), "goroutine ") {
		t.Error("it does not say what its goroutines did")
	}
	load.right(s.log.held())
}

// Who waited much longer than it meant to was stopped.
func TestStopped(t *testing.T) {
	for waited, want := range map[time.Duration]bool{deadAfter: false, deadAfter + time.Second: false, deadAfter + deadAfter/5: true, time.Hour: true} {
		if stopped(waited, deadAfter) != want {
			t.Errorf("%v: %v", waited, !want)
		}
	}
}

var long = flag.Bool("long", false, "also what takes a minute")

// Keeper and daemon that were both stopped for long, as in a container that is paused, go on: the daemon is as well as its keeper.
func TestStoppedForLong(t *testing.T) {
	if !*long {
		t.Skip("stops for most of a minute: ask for it by -long, as make long does")
	}
	t.Parallel()
	c := home(t)
	const dead = 15 * time.Second // within which a busy machine lets it say that it is well
	s := start(t, serveConfig{Config: c, Dead: dead})
	pid := s.serving(1)
	load := startLoad(t, c.Socket, 1, often)
	load.goesOn(10)
	for range 2 {
		s.signal(unix.SIGSTOP)
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * dead)
		s.signal(unix.SIGCONT)
		time.Sleep(dead / 50) // the keeper sees first that time has gone by
		if err := unix.Kill(pid, unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		load.goesOn(10)
	}
	if n := len(s.log.all("does not say that it is well")); n > 0 {
		t.Error("a daemon that was stopped with its keeper was killed")
	}
	load.right(0)
}

// While a receive thread hangs the service manager's watchdog is not fed.
func TestHangUnderManager(t *testing.T) {
	t.Parallel()
	c := home(t)
	c.Keep = KeepSystemd
	if err := os.WriteFile(c.Policy, []byte("default: continue\npath: inline\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b := newBoss(t, 100)
	s := b.start(serveConfig{Config: c, Stuck: true})
	s.serving(1)
	eventually(t, "the watchdog is fed", func() bool { return b.has("WATCHDOG=1") > 2 })
	load := startLoad(t, c.Socket, 1, often)
	load.MustSay("call 99")
	load.Expect("calling 99")
	s.says("not well", 2)
	b.sync()
	fed := b.has("WATCHDOG=1")
	s.says("not well", 5)
	b.sync()
	if n := b.has("WATCHDOG=1"); n != fed {
		t.Errorf("fed %d times meanwhile", n-fed)
	}
	s.signal(unix.SIGKILL) // as the manager does
	s.end()
	s = b.start(serveConfig{Config: c, Stuck: true})
	s.serving(1)
	load.Expect("99: interrupted system call")
	load.goesOn(10)
	load.right(s.log.held())
}

// A hand-over does not wait for ever for a handler, and no other container waits for it.
func TestHandOverWithAStuckHandler(t *testing.T) {
	t.Parallel()
	c := home(t)
	c.Drain = 3 * time.Second // which is for those of the others, too, on a busy machine
	s := start(t, serveConfig{Config: c, Stuck: true})
	s.serving(1)
	stuck := startLoad(t, c.Socket, 1, often)
	stuck.MustSay("call 99")
	stuck.Expect("calling 99")
	load := startLoad(t, c.Socket, 2, often)
	load.goesOn(100)
	c.TakeOver = true
	next := start(t, serveConfig{Config: c})
	next.serving(1)
	if code := s.end(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	s.says("handed over although", 1)
	if said := stuck.MustHear(); said != "99: interrupted system call" && said != "99: function not implemented" {
		t.Errorf("the stuck call: %q", said)
	}
	stuck.goesOn(10)
	stuck.right(next.log.held())
	load.goesOn(100)
	load.right(0)
}

// knockAt is a successor that a test plays.
func knockAt(t *testing.T, c Config) *agent.Link {
	t.Helper()
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: c.Socket + linkSuffix, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte(knock)); err != nil {
		t.Fatal(err)
	}
	link, err := agent.NewLink(conn)
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// A successor that fails half-way changes nothing for containers: those that look only, that refuse, and that die with a part.
func TestHandOverThatFails(t *testing.T) {
	t.Parallel()
	for _, keep := range []Keep{KeepKeeper, KeepNone} {
		t.Run(string(keep), func(t *testing.T) {
			c := home(t)
			c.Keep = keep
			s := start(t, serveConfig{Config: c})
			pid := s.serving(1)
			load := startLoad(t, c.Socket, 3, often)
			load.goesOn(100)

			conn, err := net.Dial("unixpacket", c.Socket+linkSuffix)
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Close() // it looks
			load.goesOn(100)

			link := knockAt(t, c)
			ctx, cancel := context.WithTimeout(t.Context(), patient)
			defer cancel()
			n := 0
			_, err = link.Take(ctx, func(_ agent.State, l *notify.Listener) error {
				if n++; keep == KeepNone || n > 1 {
					return errors.New("no room")
				}
				_ = link.Close()
				return nil // and it dies with the listener
			})
			if err == nil {
				t.Error("all was taken")
			}
			_ = link.Close()
			s.says("a successor took a part", 1)
			if keep == KeepKeeper {
				if again := s.serving(2); again == pid {
					t.Error("the same daemon goes on")
				}
			}
			load.goesOn(100)
			after := startLoad(t, c.Socket, 1, often) // clients are taken
			after.goesOn(10)
			after.right(0)
			load.right(s.log.held())
		})
	}
}
