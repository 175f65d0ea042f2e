package notify

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/internal/cbpf"
	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

// onThread runs f on a thread of its own and waits for it.
func onThread(f func() error) error {
	done := make(chan error)
	osthread.Start(func() { done <- f() })
	return <-done
}

func testchildTwice(t *testing.T) *testchild.Child { return testchild.Start(t, "twice") }

func childTwice(c *testchild.Conn, _ []string) error {
	prog, err := TrapProgram(unix.SYS_GETPPID)
	if err != nil {
		return err
	}
	return onThread(func() error {
		l, err := Install(prog, 0)
		if err != nil {
			return err
		}
		defer l.Close()
		_, err = Install(prog, 0)
		if !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("second filter with a listener: %w", err)
		}
		if err := c.Say("%v", err); err != nil {
			return err
		}
		_, err = Install([]unix.SockFilter{{Code: 0xffff}}, 0)
		if !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("nonsense for a program: %w", err)
		}
		return c.Say("%v", err)
	})
}

func mustSucceed(t *testing.T, role string) {
	t.Helper()
	if err := testchild.Start(t, role).Cmd.Wait(); err != nil {
		t.Errorf("child %s: %v", role, err)
	}
}

func TestTSyncWithAListener(t *testing.T) {
	if err := FeatureTSyncListener.Probe(); err != nil {
		t.Skip(err)
	}
	mustSucceed(t, "tsync")
	mustSucceed(t, "tsync-differ")
}

// childTSync: threads that were there before are under the filter too.
func childTSync(*testchild.Conn, []string) error {
	const threads = 5
	call := make(chan bool)
	type result struct {
		v uintptr
		e unix.Errno
	}
	results := make(chan result, threads)
	for range threads {
		osthread.Start(func() {
			<-call
			v, _, e := unix.Syscall(unix.SYS_GETPPID, 0, 0, 0)
			results <- result{v, e}
		})
	}
	listener := make(chan *Listener, 1)
	if err := onThread(func() error {
		prog, err := TrapProgram(unix.SYS_GETPPID)
		if err != nil {
			return err
		}
		l, err := Install(prog, TSync)
		listener <- l
		return err
	}); err != nil {
		return err
	}
	l := <-listener
	close(call)
	tids := map[uint32]bool{}
	for i := range threads {
		var n Notif
		if err := l.Recv(&n); err != nil {
			return err
		}
		tids[n.PID] = true
		if err := l.Send(&Resp{ID: n.ID, Val: int64(1000 + i)}); err != nil {
			return err
		}
	}
	for range threads {
		if r := <-results; r.e != 0 || r.v < 1000 {
			return fmt.Errorf("a thread saw %+v", r)
		}
	}
	if len(tids) != threads {
		return fmt.Errorf("%d threads called", len(tids))
	}
	return nil
}

// childTSyncDiffer: a thread with a filter of its own cannot be synchronized.
func childTSyncDiffer(*testchild.Conn, []string) error {
	prog, err := TrapProgram(unix.SYS_GETPPID)
	if err != nil {
		return err
	}
	ready, end := make(chan error), make(chan bool)
	osthread.Start(func() {
		l, err := Install(prog, 0)
		ready <- err
		<-end
		_ = l
	})
	if err := <-ready; err != nil {
		return err
	}
	defer close(end)
	return onThread(func() error {
		_, err := Install(prog, TSync)
		if !errors.Is(err, unix.ESRCH) || !strings.Contains(err.Error(), "another thread's filters differ") {
			return fmt.Errorf("TSYNC over a different filter: %w", err)
		}
		return nil
	})
}

func TestCookies(t *testing.T) {
	mustSucceed(t, "cookies")
}

// childCookies answers calls from a thread whose own filter refuses every ioctl
// of a listener that does not carry the cookies.
func childCookies(*testchild.Conn, []string) error {
	cookies := [3]uintptr{0x1122334455667788, 1 << 63, 0xfffffffffffffffe}
	prog, err := TrapProgram(unix.SYS_GETPPID)
	if err != nil {
		return err
	}
	listener, next := make(chan *Listener, 1), make(chan bool)
	results := make(chan uintptr)
	osthread.Start(func() {
		l, err := Install(prog, 0)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		listener <- l
		for range next {
			v, _, _ := unix.Syscall(unix.SYS_GETPPID, 0, 0, 0)
			results <- v
		}
	})
	l := <-listener
	if l == nil {
		return errors.New("no listener")
	}
	defer close(next)
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	return onThread(func() error {
		if err := demandCookies(cookies); err != nil {
			return err
		}
		// Without them nothing works: the filter is what we think it is.
		if err := l.IDValid(1); !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("without cookies: %w", err)
		}
		for i := range cookies {
			wrong := cookies
			wrong[i] ^= 1 << 40
			l.SetCookies(wrong)
			if err := l.IDValid(1); !errors.Is(err, unix.EPERM) {
				return fmt.Errorf("with cookie %d wrong: %w", i, err)
			}
		}
		l.SetCookies(cookies)
		next <- true
		var n Notif
		if err := l.Recv(&n); err != nil {
			return err
		}
		if err := l.IDValid(n.ID); err != nil {
			return err
		}
		if err := l.SetFlags(0); err != nil && OutcomeOf(err) != Refused {
			return err
		}
		if _, err := l.AddFD(&AddFD{ID: n.ID, SrcFD: uint32(null.Fd())}); err != nil {
			return err
		}
		if err := l.Send(&Resp{ID: n.ID, Val: 99}); err != nil {
			return err
		}
		if v := <-results; v != 99 {
			return fmt.Errorf("the target saw %d", v)
		}
		next <- true
		if pollFor(l.FD(), unix.POLLIN)&unix.POLLIN == 0 {
			return errors.New("no second notification")
		}
		if err := l.RecvReady(&n); err != nil {
			return err
		}
		if err := l.Send(&Resp{ID: n.ID, Val: 98}); err != nil {
			return err
		}
		<-results
		return nil
	})
}

// demandCookies filters the calling thread: an ioctl of type '!' (a listener's)
// without the cookies is EPERM.
func demandCookies(cookies [3]uintptr) error {
	ld := func(off uint32) unix.SockFilter { return unix.SockFilter{Code: cbpf.Load, K: off} }
	const args = 16
	var words []unix.SockFilter // pairs: load a half of an argument, leave if it differs
	for i, c := range cookies {
		for half, v := range []uint32{uint32(c), uint32(uint64(c) >> 32)} {
			words = append(words, ld(args+8*uint32(3+i)+4*uint32(half)), unix.SockFilter{Code: cbpf.Equal, K: v})
		}
	}
	for i := 1; i < len(words); i += 2 {
		words[i].Jf = uint8(len(words) - i) // to the refusal behind the pairs and the allow
	}
	prog := []unix.SockFilter{
		ld(offNR),
		{Code: cbpf.Equal, K: unix.SYS_IOCTL, Jf: uint8(len(words)) + 3},
		ld(args + 8*1),
		{Code: cbpf.And, K: 0xff00},
		{Code: cbpf.Equal, K: 0x2100, Jf: uint8(len(words))},
	}
	prog = append(append(prog, words...),
		unix.SockFilter{Code: cbpf.Return, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: cbpf.Return, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)})
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if _, e := setModeFilter(0, prog); e != 0 {
		return e
	}
	return nil
}

func TestASignalEndsRecv(t *testing.T) {
	mustSucceed(t, "interrupt")
}

// childInterrupt: Recv returns EINTR for a signal whose action does not restart
// calls. Go's actions do, so the child's is changed.
func childInterrupt(*testchild.Conn, []string) error {
	const sig = unix.Signal(40)
	if err := dontRestart(sig); err != nil {
		return err
	}
	prog, err := TrapProgram(unix.SYS_GETPPID)
	if err != nil {
		return err
	}
	listener, end := make(chan *Listener, 1), make(chan bool)
	osthread.Start(func() {
		l, err := Install(prog, 0)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		listener <- l
		<-end
	})
	defer close(end)
	l := <-listener
	if l == nil {
		return errors.New("no listener")
	}
	tid, got := make(chan int, 1), make(chan error, 1)
	osthread.Start(func() {
		tid <- unix.Gettid()
		got <- l.Recv(new(Notif))
	})
	id := <-tid
	for { // a signal that comes before the call does nothing
		_ = unix.Tgkill(os.Getpid(), id, sig) // ESRCH once the thread has ended
		select {
		case err := <-got:
			if !errors.Is(err, unix.EINTR) || OutcomeOf(err) != Retry {
				return fmt.Errorf("recv: %w (%v)", err, OutcomeOf(err))
			}
			return nil
		case <-time.After(time.Millisecond):
		}
	}
}

// pinBoth wires the calling goroutine to one CPU, together with the thread
// tid, until the test is over.
func pinBoth(t *testing.T, tid int) {
	t.Helper()
	runtime.LockOSThread()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	one.Set(osthread.Allowed()[0])
	if err := unix.SchedSetaffinity(tid, &one); err != nil {
		t.Fatal(err)
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.SchedSetaffinity(0, &before)
		runtime.UnlockOSThread()
	})
}

func release(t *testing.T) string {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	return unix.ByteSliceToString(u.Release[:])
}
