package confine

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

// ends are children with a story of their own.
var ends = map[string]func(*rig, *testchild.Conn) error{
	// Targets see ENOSYS once the thread's copy of the listener and ours are closed.
	"enosys": func(r *rig, c *testchild.Conn) error {
		st, done, err := r.run(r.serve)
		if err != nil {
			return err
		}
		if err := r.calls(func(n int) bool { return n == 3 }); err != nil {
			return err
		}
		if err := errors.Join(<-done, gone(st.TID)); err != nil {
			return err
		}
		fd := r.l.FD()
		r.call <- struct{}{} // pending when the listener goes
		if err := r.l.Close(); err != nil {
			return err
		}
		if e := <-r.results; e != unix.ENOSYS {
			return fmt.Errorf("a pending call: %v", e)
		}
		r.call <- struct{}{}
		if e := <-r.results; e != unix.ENOSYS {
			return fmt.Errorf("a later call: %v", e)
		}
		return c.Say("%t", fd > 0)
	},
	// The process closes its listener first: targets are served on, and the
	// number is somebody else's in the process but not on the thread.
	"number": func(r *rig, c *testchild.Conn) error {
		serve := make(chan struct{})
		fd := r.l.FD()
		st, done, err := r.run(func() error {
			<-serve
			if err := r.serve(); err != nil {
				return err
			}
			return unix.Close(fd)
		})
		if err != nil {
			return err
		}
		if err := unix.Close(fd); err != nil {
			return err
		}
		if err := unix.Dup3(int(os.Stdin.Fd()), fd, 0); err != nil {
			return err
		}
		close(serve)
		if err := r.calls(func(n int) bool { return n == 3 }); err != nil {
			return err
		}
		if err := <-done; err != nil {
			return err
		}
		r.call <- struct{}{}
		if e := <-r.results; e != unix.ENOSYS {
			return fmt.Errorf("after the thread closed the listener: %v", e)
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return fmt.Errorf("our file of that number: %w", err)
		}
		if err := gone(st.TID); err != nil {
			return err
		}
		return c.Say("true")
	},
	// The thread sees that no target is left.
	"hangup": func(r *rig, c *testchild.Conn) error {
		_, done, err := r.run(func() error {
			var events [4]unix.EpollEvent
			for {
				n, err := unix.EpollWait(r.t.Epoll, events[:], -1)
				if err != nil && err != unix.EINTR {
					return err
				}
				for _, ev := range events[:max(n, 0)] {
					if ev.Events&unix.EPOLLHUP != 0 {
						return nil
					}
				}
			}
		})
		if err != nil {
			return err
		}
		close(r.call) // the target ends
		if err := <-done; err != nil {
			return err
		}
		return c.Say("true")
	},
	// The fd table is exactly what is needed.
	"descriptors": func(r *rig, c *testchild.Conn) error {
		for range 20 {
			if _, err := os.Open(os.DevNull); err != nil {
				return err
			}
		}
		stop := make(chan struct{})
		st, done, err := r.run(func() error { <-stop; return nil })
		if err != nil {
			return err
		}
		defer close(stop)
		want := []int{2, r.l.FD(), r.t.Epoll, r.t.Wake, r.plan.poller.epoll, r.plan.poller.event}
		slices.Sort(want)
		entries, err := os.ReadDir(fmt.Sprintf("/proc/self/task/%d/fd", st.TID))
		if err != nil {
			return err
		}
		var got []string
		for _, e := range entries {
			got = append(got, e.Name())
		}
		if len(got) != len(want) || !slices.Equal(st.FDs, want) {
			return fmt.Errorf("descriptors %v, status %v, want %v", got, st, want)
		}
		select {
		case err := <-done:
			return err
		default:
		}
		return c.Say("true")
	},
	// A receive that blocks, and the engine's signal.
	"interrupt": func(r *rig, c *testchild.Conn) error {
		if err := interruptible(r.Signal); err != nil {
			return err
		}
		st, done, err := r.run(func() error {
			var n notify.Notif
			for range 3 {
				if err := r.l.Recv(&n); !errors.Is(err, unix.EINTR) {
					return fmt.Errorf("receive: %w", err)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		for {
			select {
			case err := <-done:
				if err != nil {
					return err
				}
				return c.Say("true")
			case <-time.After(time.Millisecond): // a signal just before the receive is lost: again
				_ = unix.Tgkill(os.Getpid(), st.TID, r.Signal)
			}
		}
	},
	// A signal to the process goes to another thread, as it would without us.
	"sigterm": func(r *rig, c *testchild.Conn) error {
		if _, _, err := r.run(r.serve); err != nil {
			return err
		}
		if err := c.Say("true"); err != nil {
			return err
		}
		_ = unix.Kill(os.Getpid(), unix.SIGTERM)
		select {}
	},
	// And so does one to the thread that is masked there: it stays pending.
	"sigusr1": func(r *rig, c *testchild.Conn) error {
		got := make(chan os.Signal, 1)
		signal.Notify(got, unix.SIGUSR1)
		st, done, err := r.run(r.serve)
		if err != nil {
			return err
		}
		_ = unix.Tgkill(os.Getpid(), st.TID, unix.SIGUSR1)
		_ = unix.Kill(os.Getpid(), unix.SIGUSR1)
		<-got
		if err := r.calls(func(n int) bool { return n == 3 }); err != nil {
			return err
		}
		if err := <-done; err != nil {
			return err
		}
		return c.Say("true")
	},
	// set*id on every thread, unprepared: dead at once, not hung.
	"setid": func(r *rig, c *testchild.Conn) error {
		if _, _, err := r.run(r.serve); err != nil {
			return err
		}
		if err := c.Say("true"); err != nil {
			return err
		}
		_ = syscall.Setuid(os.Getuid())
		return errors.New("it went through")
	},
	// A filter for all threads cannot be installed while one has its own.
	"tsync": func(r *rig, c *testchild.Conn) error {
		if _, _, err := r.run(r.serve); err != nil {
			return err
		}
		prog, err := notify.TrapProgram(unix.SYS_GETPPID)
		if err != nil {
			return err
		}
		errs := make(chan error)
		osthread.Start(func() {
			_, err := notify.Install(prog, notify.TSync)
			errs <- err
		})
		if err := <-errs; !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("TSYNC: %w", err)
		}
		return c.Say("true")
	},
	// What is a confined thread and what is not.
	"verify": func(r *rig, c *testchild.Conn) error {
		stop := make(chan struct{})
		st, done, err := r.run(func() error { <-stop; return nil })
		if err != nil {
			return err
		}
		blocked := Masked.blocked(0)
		if err := verify(taskOf(st.TID), blocked, st); err != nil {
			return err
		}
		more, less := *st, *st
		more.FDs = append(slices.Clone(st.FDs), 999)
		less.FDs = st.FDs[1:]
		for _, wrong := range []error{verify(taskOf(st.TID), blocked^1, st), verify(taskOf(st.TID), blocked, &more), verify(taskOf(st.TID), blocked, &less)} {
			if wrong == nil {
				return errors.New("a fault was not found")
			}
		}
		close(stop)
		if err := <-done; err != nil {
			return err
		}
		return c.Say("true")
	},
	// A confined thread is one still while it is in a signal handler.
	"handler": func(r *rig, c *testchild.Conn) error {
		stop := make(chan struct{})
		st, done, err := r.run(func() error { <-stop; return nil })
		if err != nil {
			return err
		}
		flood := make(chan struct{})
		go func() { // the runtime takes it for a preemption that came late
			for {
				select {
				case <-flood:
					return
				default:
					_ = unix.Tgkill(os.Getpid(), st.TID, unix.SIGURG)
				}
			}
		}()
		for range 1000 {
			if err := verify(taskOf(st.TID), Masked.blocked(0), st); err != nil {
				return err
			}
		}
		close(flood)
		close(stop)
		if err := <-done; err != nil {
			return err
		}
		return c.Say("true")
	},
	// What would have been killed is shown instead.
	"trap": func(r *rig, c *testchild.Conn) error {
		_, done, err := r.run(theCulprit)
		if err != nil {
			return err
		}
		return <-done
	},
	"log": func(r *rig, c *testchild.Conn) error {
		_, done, err := r.run(func() error {
			// The filter lets it pass, landlock does not.
			if err := unix.Mkdir("/tmp/unknot-confine-test", 0o700); r.plan.landlock.version > 0 && err != unix.EACCES {
				return fmt.Errorf("mkdir: %w", err)
			}
			return theCulprit()
		})
		if err != nil {
			return err
		}
		if err := <-done; err != nil {
			return err
		}
		return c.Say("true")
	},
}

func theCulprit() error {
	_, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	return err
}

func childEnds(c *testchild.Conn, args []string) error {
	r, err := newRig(args[0])
	if err != nil {
		return err
	}
	return ends[r.Name](r, c)
}

func TestEnds(t *testing.T) {
	for _, e := range []struct {
		order
		said   string // "": nothing
		exit   int
		signal syscall.Signal
		or     syscall.Signal // another that may end it
		stderr []string
	}{
		{order: order{Name: "enosys"}, said: "true"},
		{order: order{Name: "enosys", Config: Config{Level: Shared}}, said: "true"},
		{order: order{Name: "number"}, said: "true"},
		{order: order{Name: "hangup"}, said: "true"},
		{order: order{Name: "hangup", Config: Config{Level: Shared}}, said: "true"},
		{order: order{Name: "descriptors"}, said: "true"},
		{order: order{Name: "interrupt", Signal: 40}, said: "true"},
		{order: order{Name: "interrupt", Signal: 40, Config: Config{Level: Shared}}, said: "true"},
		{order: order{Name: "sigterm"}, said: "true", signal: unix.SIGTERM},
		{order: order{Name: "sigterm", Config: Config{Signals: Strict}}, said: "true", signal: unix.SIGTERM},
		{order: order{Name: "sigusr1"}, said: "true"},
		{order: order{Name: "setid"}, said: "true", signal: unix.SIGSYS},
		{order: order{Name: "setid", Config: Config{Signals: Strict}}, said: "true", signal: unix.SIGSYS},
		{order: order{Name: "setid", Config: Config{Signals: Open}}, said: "true", signal: unix.SIGSYS},
		{order: order{Name: "tsync"}, said: "true"},
		{order: order{Name: "handler"}, said: "true"},
		{order: order{Name: "handler", Config: Config{Level: Shared}}, said: "true"},
		// The runtime goes on to print the other goroutines, which run meanwhile, and may fault at that.
		{order: order{Name: "trap", Config: Config{OnViolation: Trap}}, exit: 2, or: unix.SIGSEGV, stderr: []string{"SIGSYS", "theCulprit"}},
		{order: order{Name: "trap"}, signal: unix.SIGSYS},
		{order: order{Name: "log", Config: Config{OnViolation: Log}}, said: "true"},
	} {
		t.Run(fmt.Sprintf("%s/%v/%v", e.Name, e.Config.Level, e.Config.Signals), func(t *testing.T) {
			t.Parallel()
			c := e.start(t, "ends")
			said, _ := c.Hear()
			ws := c.Wait()
			got, want := fmt.Sprintf("%v %v %d", ws.Exited(), ws.Signal(), ws.ExitStatus()), fmt.Sprintf("%v %v %d", true, syscall.Signal(-1), e.exit)
			if e.signal != 0 {
				want = fmt.Sprintf("%v %v %d", false, e.signal, -1)
			}
			if e.or != 0 && ws.Signaled() && ws.Signal() == e.or {
				want = got
			}
			if said != e.said || got != want {
				t.Errorf("said %q and ended with %s, want %q and %s\n%s", said, got, e.said, want, c.Stderr())
			}
			for _, s := range e.stderr {
				if !strings.Contains(c.Stderr(), s) {
					t.Errorf("standard error lacks %q:\n%s", s, c.Stderr())
				}
			}
		})
	}
}

// TestPanicsAreShown: what ends the program on the confined thread is still said.
func TestPanicsAreShown(t *testing.T) {
	for name, says := range map[string]string{"panic": "the thread panics", "nil": "nil pointer dereference"} {
		for _, mode := range []SignalMode{Masked, Open} {
			c := order{Name: name, Config: Config{Signals: mode}}.start(t, "scenario")
			c.Expect("confined")
			if ws := c.Wait(); ws.ExitStatus() != 2 || !strings.Contains(c.Stderr(), says) || !strings.Contains(c.Stderr(), "scenario_test.go") {
				t.Errorf("%s, %v: status %#x\n%s", name, mode, int(ws), c.Stderr())
			}
		}
	}
	c := order{Name: "panic", Config: Config{Signals: Strict}}.start(t, "scenario")
	if ws := c.Wait(); ws.ExitStatus() != 2 || !strings.Contains(c.Stderr(), "the thread panics") {
		t.Errorf("strict: status %#x\n%s", int(ws), c.Stderr())
	}
	// The documented price of strict: a fault kills, silently.
	c = order{Name: "nil", Config: Config{Signals: Strict}}.start(t, "scenario")
	if ws := c.Wait(); ws.Signal() != unix.SIGSYS {
		t.Errorf("strict, nil dereference: status %#x\n%s", int(ws), c.Stderr())
	}
}
