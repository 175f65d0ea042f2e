package agent

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

// childContainer does what a runtime and its container do: it hands its listener to the agent at a path, makes
// some trapped calls, says how many were answered, and ends.
func childContainer(c *testchild.Conn, args []string) error {
	prog, err := notify.TrapProgram(unix.SYS_GETPPID)
	if err != nil {
		return err
	}
	done := make(chan error)
	osthread.Start(func() {
		done <- func() error {
			l, err := notify.Install(prog, 0)
			if err != nil {
				return err
			}
			conn, err := net.Dial("unix", args[0])
			if err != nil {
				return err
			}
			defer conn.Close() // runtimes keep it open
			_, _, err = conn.(*net.UnixConn).WriteMsgUnix(message(State{PID: os.Getpid(), Container: Container{ID: args[1]}}), unix.UnixRights(l.FD()), nil)
			_ = l.Close()
			if err != nil {
				return err
			}
			right := 0
			for i := uintptr(1); i <= 100; i++ {
				if v, _, e := unix.Syscall(unix.SYS_GETPPID, i, 0, 0); e == 0 && v == i+1000 {
					right++
				}
			}
			return c.Say("%d", right)
		}()
	})
	return <-done
}

// Fifty containers come and go while one storms: each call of theirs is answered, and nothing of them is left.
func TestContainersComeAndGo(t *testing.T) {
	e := runEngine(t)
	r := start(t, Config{Serve: func(_ State, l *notify.Listener) error {
		_, err := e.Add(l)
		return err
	}})
	load := startLoad(t, 4, 0, DefaultJournal)
	if _, err := e.Add(load.l); err != nil {
		t.Fatal(err)
	}
	batch := func(n int) {
		for i := 0; i < n; i += 5 {
			var cs []*testchild.Child
			for j := range 5 {
				cs = append(cs, testchild.Start(t, "container", r.path, fmt.Sprint("box", i+j)))
			}
			for _, c := range cs {
				c.Expect("100")
				_ = c.Cmd.Wait()
				_ = c.Close()
			}
		}
	}
	threads := func() int {
		names, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	batch(10)
	const own = 2 // the storm's listener and its journal
	// What belongs to containers that are gone is closed soon, not at once.
	eventually(t, "the first containers are forgotten", func() bool { return listeners(t) == own })
	files, goroutines, tasks := testchild.OpenFDs(t), runtime.NumGoroutine(), threads()
	batch(50)
	eventually(t, "no descriptor is left", func() bool { return listeners(t) == own && testchild.OpenFDs(t) <= files })
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
	// The Go runtime keeps some threads, and may have wanted more of them; one for each container is another matter.
	if n := threads(); n > tasks+10 {
		t.Errorf("%d threads, %d before", n, tasks)
	}
	if bad := r.log.refused(); bad != nil {
		t.Errorf("refused: %q", bad)
	}
	load.goesOn(100)
	if _, interrupted, without, odd := load.end(); interrupted+without+odd > 0 {
		t.Errorf("%d interrupted, %d without an answer, %d odd", interrupted, without, odd)
	}
}

// listeners is how many seccomp listeners and journals this process has open.
func listeners(t *testing.T) (n int) {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		is, _ := os.Readlink("/proc/self/fd/" + name.Name())
		if is == listenerFile || is == "/memfd:unknot-journal (deleted)" {
			n++
		}
	}
	return n
}
