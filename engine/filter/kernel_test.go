//go:build cgo

package filter

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/syscalls"
	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	testchild.Main(m, testchild.Roles{"target": target, "refused": childRefused, "compiles": childCompiles, "int80": func(*testchild.Conn, []string) error {
		if _, err := int80(20); err != nil { // getpid
			return err
		}
		return nil
	}})
}

// target filters a thread of its own by the names given, passes the listener
// on, and then makes the calls that it is told to: "native 110".
func target(c *testchild.Conn, args []string) error {
	done := make(chan error)
	osthread.Start(func() {
		done <- func() error {
			prog, err := Compile(args, Options{})
			if err != nil {
				return err
			}
			l, err := notify.Install(prog, 0)
			if err != nil {
				return err
			}
			if err := notify.SendListener(c.UnixConn, l); err != nil {
				return err
			}
			if err := l.Close(); err != nil {
				return err
			}
			for {
				line, err := c.Hear()
				if err != nil {
					return nil // the test is over
				}
				abi, nr, _ := strings.Cut(line, " ")
				n, err := strconv.Atoi(nr)
				if err != nil {
					return err
				}
				var r int
				switch abi {
				case "native":
					r = native(n)
				case "x32":
					r = native(n | syscalls.X32Bit)
				case "int80":
					if r, err = int80(uint32(n)); err != nil {
						return err
					}
				default:
					return fmt.Errorf("no ABI %q", abi)
				}
				if err := c.Say("%d", r); err != nil {
					return err
				}
			}
		}()
	})
	return <-done
}

// native returns what the kernel returns: a negative errno for an error.
func native(nr int) int {
	r, _, e := unix.Syscall(uintptr(nr), 0, 0, 0)
	if e != 0 {
		return -int(e)
	}
	return int(r)
}

// made is a call to make and what should come of it.
type made struct {
	say  string
	arch uint32 // of the notification; 0: there is none
	nr   int32
	want string
}

// TestKernelTrapsEveryABI has the kernel run the program.
func TestKernelTrapsEveryABI(t *testing.T) {
	getppid, _ := Number("getppid")
	mseal, _ := Number("mseal")
	clock, _ := Number("clock_gettime")
	calls := []made{
		{fmt.Sprintf("native %d", getppid), here().audit, int32(getppid), "4242"},
		{fmt.Sprintf("native %d", mseal), here().audit, int32(mseal), "4242"},
		{"native 100000", 0, 0, fmt.Sprint(-int(unix.ENOSYS))},
	}
	calls = append(calls, foreign(t)...)
	c := testchild.Start(t, "target", "getppid", "mseal", "clock_gettime")
	l, err := notify.RecvListener(c.UnixConn)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, call := range calls {
		c.MustSay("%s", call.say)
		for call.arch != 0 {
			var n notify.Notif
			if err := l.Recv(&n); err != nil {
				if notify.OutcomeOf(err) == notify.Stale || notify.OutcomeOf(err) == notify.Retry {
					continue
				}
				t.Fatal(err)
			}
			if native := int32(clock); n.Data.Arch == here().audit && n.Data.NR == native && call.nr != native {
				// Where the vDSO has no clock, the child's runtime asks the kernel.
				if err := l.Send(&notify.Resp{ID: n.ID, Flags: notify.RespContinue}); err != nil && notify.OutcomeOf(err) != notify.Stale {
					t.Fatal(err)
				}
				continue
			}
			if n.Data.Arch != call.arch || n.Data.NR != call.nr {
				t.Errorf("%s: notified as %#x %d", call.say, n.Data.Arch, n.Data.NR)
			}
			err := l.Send(&notify.Resp{ID: n.ID, Val: 4242})
			if notify.OutcomeOf(err) == notify.Stale {
				continue // signalled by its runtime: it calls again
			} else if err != nil {
				t.Fatal(err)
			}
			break
		}
		if got := c.MustHear(); got != call.want {
			t.Errorf("%s: returned %s, want %s", call.say, got, call.want)
		}
	}
}
