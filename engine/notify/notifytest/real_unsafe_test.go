//go:build !fakekernel

package notifytest_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { testchild.Main(m, testchild.Roles{"threads": threads}) }

// breaks ends calls by EINTR, restarts has them come again: neither is anybody's in a Go program.
const (
	breaks   = unix.Signal(40)
	restarts = unix.Signal(41)
)

// threads is a child whose threads a, b and c make a call each time they are named, and say how it ended.
func threads(c *testchild.Conn, args []string) error {
	flags, err := strconv.ParseUint(args[0], 0, 32)
	if err != nil {
		return err
	}
	if err := osthread.AllowInterrupt(breaks); err != nil {
		return err
	}
	prog, err := notify.TrapProgram(unix.SYS_GETPPID)
	if err != nil {
		return err
	}
	calls := map[string]chan bool{}
	var ids []int
	tids := make(chan int)
	up := make(chan bool)
	for _, name := range threadNames {
		calls[name] = make(chan bool, 1)
		osthread.Start(func() {
			tids <- unix.Gettid()
			<-up
			for range calls[name] {
				v, _, e := unix.Syscall(unix.SYS_GETPPID, 0, 0, 0)
				if e != 0 {
					_ = c.Say("%s -1 %s", name, unix.ErrnoName(e))
				} else {
					_ = c.Say("%s %d", name, int(v))
				}
			}
		})
		ids = append(ids, <-tids)
	}
	done := make(chan error, 1)
	osthread.Start(func() {
		done <- func() error {
			l, err := notify.Install(prog, notify.InstallFlags(flags)|notify.TSync)
			if err != nil {
				return err
			}
			if err := notify.SendListener(c.UnixConn, l); err != nil {
				return err
			}
			return l.Close()
		}()
		select {} // its end would be one of the filter's users
	})
	if err := <-done; err != nil {
		return err
	}
	// After the listener: a line read too far would take it along.
	for _, id := range ids {
		if err := c.Say("%d", id); err != nil {
			return err
		}
	}
	close(up)
	for {
		line, err := c.Hear()
		if err != nil {
			return nil // the test is over
		}
		calls[line] <- true
	}
}

// real is the running kernel.
type real struct {
	*testchild.Child
	t       *testing.T
	flags   notify.InstallFlags
	l       *notify.Listener
	tids    map[string]int
	results map[string]string
	src     *os.File
}

func newReal(t *testing.T, flags notify.InstallFlags) *real {
	t.Helper()
	if err := osthread.AllowInterrupt(breaks); err != nil {
		t.Fatal(err)
	}
	w := &real{t: t, flags: flags, tids: map[string]int{}, results: map[string]string{}}
	w.Child = testchild.StartWith(t, testchild.Options{Env: []string{"GODEBUG=asyncpreemptoff=1"}}, "threads", fmt.Sprint(uint32(flags)))
	var err error
	if w.l, err = notify.RecvListener(w.UnixConn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.l.Close() })
	for _, name := range threadNames {
		if w.tids[name], err = strconv.Atoi(w.MustHear()); err != nil {
			t.Fatal(err)
		}
	}
	if w.src, err = os.Open(os.DevNull); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.src.Close() })
	return w
}

// settled waits until the thread sleeps: in its call or elsewhere.
func (w *real) settled(name string) (inCall bool) {
	w.t.Helper()
	dir := fmt.Sprintf("/proc/%d/task/%d/", w.Cmd.Process.Pid, w.tids[name])
	killable := 0 // how often in a row
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Microsecond) {
		status, err := os.ReadFile(dir + "status")
		if err != nil {
			w.t.Fatal(err)
		}
		field := func(key string) string {
			_, rest, _ := strings.Cut(string(status), key+":\t")
			v, _, _ := strings.Cut(rest, "\n")
			return v
		}
		if pending := strings.Trim(field("SigPnd"), "0"); pending != "" {
			// A thread that sleeps killable does not take it. One that takes it may sleep so for a moment, on a page.
			if killable++; w.flags&notify.WaitKillableRecv == 0 || !strings.HasPrefix(field("State"), "D") {
				killable = 0
			}
			if killable < 10 {
				continue
			}
		}
		call, err := os.ReadFile(dir + "syscall")
		if err != nil {
			w.t.Fatal(err)
		}
		nr, _, _ := strings.Cut(strings.TrimSpace(string(call)), " ")
		if nr == "running" {
			continue
		}
		return nr == strconv.Itoa(unix.SYS_GETPPID)
	}
	w.t.Fatalf("thread %s does not come to rest", name)
	return false
}

func (w *real) call(name string) {
	w.MustSay("%s", name)
	for !w.settled(name) {
		if w.l.FD() < 0 {
			return // it ends at once
		}
		time.Sleep(50 * time.Microsecond)
	}
}

// recv is RECV on a thread of its own: where it sleeps, which the fake says by EAGAIN, the thread is taken out.
func (w *real) recv() (n notify.Notif, err error) {
	var sleeps atomic.Bool
	ids, done := make(chan int, 1), make(chan error, 1)
	osthread.Start(func() {
		ids <- unix.Gettid()
		for {
			if err := w.l.Recv(&n); notify.OutcomeOf(err) != notify.Retry {
				done <- err
				return
			} else if sleeps.Load() {
				done <- unix.EAGAIN
				return
			}
		}
	})
	tid := <-ids
	for looks := 0; ; time.Sleep(50 * time.Microsecond) {
		select {
		case err := <-done:
			return n, err
		default:
		}
		// A lock may have it sleep for a moment, so many looks in a row have to find it asleep.
		call, _ := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/syscall", tid))
		if !strings.HasPrefix(string(call), strconv.Itoa(unix.SYS_IOCTL)+" ") {
			looks = 0
		} else if looks++; looks > 100 {
			sleeps.Store(true)
			_ = osthread.Interrupt(tid, breaks)
		}
	}
}
func (w *real) send(r notify.Resp) error { return w.l.Send(&r) }
func (w *real) valid(id uint64) error    { return w.l.IDValid(id) }
func (w *real) addFD(a notify.AddFD) (int, error) {
	a.SrcFD = uint32(w.src.Fd())
	return w.l.AddFD(&a)
}
func (w *real) setFlags(f uint64) error { return w.l.SetFlags(f) }
func (w *real) raw(what string, id uint64) unix.Errno {
	return raw(func(req uintptr, arg unsafe.Pointer) (uintptr, unix.Errno) {
		for {
			r, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(w.l.FD()), req, uintptr(arg))
			if e != unix.EINTR {
				return r, e
			}
		}
	}, what, id)
}
func (w *real) poll() int16 {
	p := []unix.PollFd{{Fd: int32(w.l.FD()), Events: unix.POLLIN | unix.POLLOUT}}
	for {
		if _, err := unix.Poll(p, 0); err == nil && p[0].Revents&unix.POLLERR == 0 {
			return p[0].Revents
		}
	}
}
func (w *real) signal(name string, restart bool) {
	sig := breaks
	if restart {
		sig = restarts
	}
	if err := unix.Tgkill(w.Cmd.Process.Pid, w.tids[name], sig); err != nil {
		w.t.Fatal(err)
	}
	w.settled(name)
}
func (w *real) kill() {
	_ = w.Cmd.Process.Kill()
	w.Child.Wait()
}
func (w *real) close() { _ = w.l.Close() }

// waits is settled: a thread that had its answer comes to rest elsewhere.
func (w *real) waits(name string) bool { return w.settled(name) }

func (w *real) result(name string) string {
	for w.results[name] == "" {
		who, what, _ := strings.Cut(w.MustHear(), " ")
		w.results[who] = what
	}
	r := w.results[name]
	delete(w.results, name)
	if r == strconv.Itoa(os.Getpid()) {
		return "its parent"
	}
	return r
}

func (w *real) name(tid uint32) string {
	for name, id := range w.tids {
		if id == int(tid) {
			return name
		}
	}
	return "?"
}

// raw makes an ioctl that package notify would not make.
func raw(ioctl func(req uintptr, arg unsafe.Pointer) (uintptr, unix.Errno), what string, id uint64) unix.Errno {
	var e unix.Errno
	switch what {
	case "recv-dirty": // the buffer is not zero
		_, e = ioctl(notify.IoctlRecv, unsafe.Pointer(&notify.Notif{Flags: 1}))
	case "flags-pointer": // the argument by pointer
		flags := uint64(notify.SyncWakeUp)
		_, e = ioctl(notify.IoctlSetFlags, unsafe.Pointer(&flags))
	case "valid-wrong": // the number that headers had before 5.9, and kernels still take
		_, e = ioctl(0x80082102, unsafe.Pointer(&id))
	case "send-flags":
		_, e = ioctl(notify.IoctlSend, unsafe.Pointer(&notify.Resp{ID: id, Flags: 2}))
	case "continue-value":
		_, e = ioctl(notify.IoctlSend, unsafe.Pointer(&notify.Resp{ID: id, Flags: notify.RespContinue, Val: 1}))
	case "nothing":
		_, e = ioctl(0x40082105, unsafe.Pointer(&id))
	}
	return e
}
