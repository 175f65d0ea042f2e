package notify

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	testchild.Main(m, testchild.Roles{
		"target":       target,
		"twice":        childTwice,
		"tsync":        childTSync,
		"tsync-differ": childTSyncDiffer,
		"cookies":      childCookies,
		"interrupt":    childInterrupt,
		"refused":      childRefused,
		"callers":      childCallers,
		"no-listener":  childNoListener,
		"receiver":     childReceiver,
	})
}

// target is a child with one thread under a filter that traps getppid. It
// installs it with the flags given as argument, passes the listener on, and
// does what the lines that it hears say: "call" makes the trapped call and says
// "VALUE ERRNO"; "calls N" makes N and says the same of the last; "link FD"
// says what the descriptor is; "nofile N" sets its RLIMIT_NOFILE; "signal"
// says how many SIGUSR1 it has handled; "bequeath" starts a child, which is under the
// filter too, and ends the thread: the next line ends the child.
func target(c *testchild.Conn, args []string) error {
	flags, err := strconv.ParseUint(args[0], 0, 32)
	if err != nil {
		return err
	}
	usr1 := make(chan os.Signal, 16)
	signal.Notify(usr1, unix.SIGUSR1)
	handled := 0
	var heir func() error
	done := make(chan error)
	osthread.Start(func() {
		done <- func() error {
			prog, err := TrapProgram(unix.SYS_GETPPID)
			if err != nil {
				return err
			}
			l, err := Install(prog, InstallFlags(flags))
			if err != nil {
				return err
			}
			if err := SendListener(c.UnixConn, l); err != nil {
				return err
			}
			if err := l.Close(); err != nil {
				return err
			}
			if err := c.Say("%d", unix.Gettid()); err != nil {
				return err
			}
			for {
				line, err := c.Hear()
				if err != nil {
					return nil // the test is over
				}
				word, rest, _ := strings.Cut(line, " ")
				n, _ := strconv.Atoi(rest)
				answer := ""
				switch word {
				case "call", "calls":
					var v uintptr
					var e unix.Errno
					for range max(1, n) {
						v, _, e = unix.Syscall(unix.SYS_GETPPID, 0, 0, 0)
					}
					answer = fmt.Sprintf("%d %d", int(v), int(e))
				case "link":
					s, err := os.Readlink("/proc/self/fd/" + rest)
					if err != nil {
						s = err.Error()
					}
					fdFlags, _ := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0)
					answer = fmt.Sprintf("%s cloexec=%t", s, fdFlags&unix.FD_CLOEXEC != 0)
				case "nofile":
					if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(n), Max: uint64(n)}); err != nil {
						return err
					}
					answer = "ok"
				case "signal":
					<-usr1
					handled++
					answer = strconv.Itoa(handled)
				case "bequeath":
					child := exec.Command("cat") // until its input ends; it does not ask for its parent
					in, err := child.StdinPipe()
					if err != nil {
						return err
					}
					heir = func() error {
						if _, err := c.Hear(); err != nil {
							return err
						}
						return errors.Join(in.Close(), child.Wait())
					}
					return child.Start()
				default:
					return fmt.Errorf("told %q", line)
				}
				if err := c.Say("%s", answer); err != nil {
					return err
				}
			}
		}()
	})
	if err := <-done; err != nil || heir == nil {
		return err
	}
	return heir()
}

// A tgt is a running target with its listener.
type tgt struct {
	*testchild.Child
	l   *Listener
	tid int
	t   *testing.T
}

func startTarget(t *testing.T, flags InstallFlags) *tgt { return startTargetAs(t, flags, nil) }

func startTargetAs(t *testing.T, flags InstallFlags, sys *syscall.SysProcAttr) *tgt {
	t.Helper()
	c := testchild.StartWith(t, testchild.Options{Env: []string{"GODEBUG=asyncpreemptoff=1"}, Sys: sys}, "target", fmt.Sprint(uint32(flags)))
	l, err := RecvListener(c.UnixConn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	tid, err := strconv.Atoi(c.MustHear())
	if err != nil {
		t.Fatal(err)
	}
	return &tgt{c, l, tid, t}
}

// call has the target make its call and receives the notification.
func (g *tgt) call() *Notif {
	g.t.Helper()
	g.MustSay("call")
	return g.recv()
}

func (g *tgt) recv() *Notif {
	g.t.Helper()
	n := new(Notif)
	for {
		// Our own thread may be signalled, as by the Go runtime.
		if err := g.l.Recv(n); err == nil {
			return n
		} else if OutcomeOf(err) != Retry {
			g.t.Fatal(err)
		}
	}
}

// pending waits until a notification can be received.
func (g *tgt) pending() {
	g.t.Helper()
	if got := pollFor(g.l.FD(), unix.POLLIN); got&unix.POLLIN == 0 {
		g.t.Fatalf("no notification: poll %#x", got)
	}
}

// signal signals the target's thread.
func (g *tgt) signal(sig unix.Signal) {
	g.t.Helper()
	if err := unix.Tgkill(g.Cmd.Process.Pid, g.tid, sig); err != nil {
		g.t.Fatal(err)
	}
}

// kill kills the target and waits until it is gone.
func (g *tgt) kill() {
	g.t.Helper()
	if err := g.Cmd.Process.Kill(); err != nil {
		g.t.Fatal(err)
	}
	var exit interface{ ExitCode() int }
	if err := g.Cmd.Wait(); err == nil || !errors.As(err, &exit) {
		g.t.Fatalf("killed target: %v", err)
	}
}

// becomes waits for an outcome that something asynchronous brings about; the
// target's own deadline ends it if nothing does.
func (g *tgt) becomes(what string, ok func() bool) {
	g.t.Helper()
	for range 120_000 {
		if ok() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	g.t.Fatalf("never: %s", what)
}

// pollFor polls until one of the bits (or a hang-up) is set, or for two minutes.
func pollFor(fd int, events int16) int16 {
	p := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for range 120 {
		if n, err := unix.Poll(p, 1000); err == nil && n > 0 {
			return p[0].Revents
		}
	}
	return 0
}

func wantErr(t *testing.T, what string, err error, e unix.Errno, o Outcome) {
	t.Helper()
	if !errors.Is(err, e) || OutcomeOf(err) != o {
		t.Errorf("%s: %v (%v), want %v (%v)", what, err, OutcomeOf(err), e, o)
	}
}

func isCloexec(t *testing.T, fd int) bool {
	t.Helper()
	f, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f&unix.FD_CLOEXEC != 0
}
