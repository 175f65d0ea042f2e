package confine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	stormMain() // a storm is this program run again
	testchild.Main(m, testchild.Roles{
		"scenario":    childScenario,
		"violation":   childViolation,
		"int80":       childInt80,
		"landlock":    childLandlock,
		"ends":        childEnds,
		"main-thread": childMainThread,
		"refused":     childRefused,
		"engine":      childEngine,
	})
}

// An order is what a test wants of a child that confines a thread of its own.
type order struct {
	Config  Config
	Without []string // rules left out
	Signal  syscall.Signal
	OwnLog  bool // the log is a file of its own, not standard error
	Name    string
	For     time.Duration // how long a scenario that has no natural end goes on
	Times   int           // how often one is repeated
}

func (o order) String() string {
	b, _ := json.Marshal(o)
	return string(b)
}

// start runs the role in a child whose runtime preempts as usual.
func (o order) start(t testing.TB, role string, env ...string) *testchild.Child {
	t.Helper()
	return testchild.StartWith(t, testchild.Options{Env: env, Quiet: true, Deadline: 3*time.Minute + 2*o.For}, role, o.String())
}

// A rig is, in a child, a confined thread and what it serves.
type rig struct {
	order
	plan     *Plan
	t        Thread
	l        *notify.Listener
	target   int // its thread id
	call     chan struct{}
	results  chan syscall.Errno
	log      *os.File
	stop     atomic.Bool
	end      time.Time // of the scenario
	tid      int       // of the confined thread
	work     func()    // with each answer
	table    []Rule    // every rule there is
	beforeMe func()    // runs unconfined on the thread first
	word     muslLock
}

// newRig makes the descriptors, and a target: a thread of this process that
// calls getppid once for each word on call.
func newRig(arg string) (*rig, error) {
	r := &rig{call: make(chan struct{}), results: make(chan syscall.Errno, 1)}
	if err := json.Unmarshal([]byte(arg), &r.order); err != nil {
		return nil, err
	}
	r.Config.without = r.Without
	prog, err := notify.TrapProgram(unix.SYS_GETPPID)
	if err != nil {
		return nil, err
	}
	installed := make(chan error)
	osthread.Start(func() {
		var err error
		r.target = unix.Gettid()
		r.l, err = notify.Install(prog, 0)
		installed <- err
		for range r.call {
			_, _, e := unix.Syscall(unix.SYS_GETPPID, 0, 0, 0)
			r.results <- e
		}
	})
	if err := <-installed; err != nil {
		return nil, err
	}
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	for _, fd := range []int{r.l.FD(), wake} {
		if err := unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			return nil, err
		}
	}
	if r.OwnLog {
		if r.log, err = os.CreateTemp("", "confine"); err != nil {
			return nil, err
		}
		_ = os.Remove(r.log.Name())
		r.Config.LogFD = int(r.log.Fd())
	}
	if r.plan, err = Prepare(r.Config); err != nil {
		return nil, err
	}
	r.l.SetCookies(r.plan.Cookies())
	r.t = Thread{Listeners: []int{r.l.FD()}, Epoll: epfd, Wake: wake, Signal: r.Signal}
	return r, nil
}

// run runs f on a confined thread. It returns at once the thread's status, and
// the channel on which f's error comes when it ends.
func (r *rig) run(f func() error) (*Status, <-chan error, error) {
	type confined struct {
		st  *Status
		err error
	}
	c, done := make(chan confined), make(chan error, 1)
	osthread.Start(func() {
		if r.beforeMe != nil {
			r.beforeMe()
		}
		st, err := r.plan.Confine(r.t)
		c <- confined{st, err}
		if err == nil {
			done <- f() // not deferred: a panic must reach the runtime
		}
	})
	got := <-c
	return got.st, done, got.err
}

// gone waits until the thread has ended: not its goroutine, the thread.
func gone(tid int) error {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", tid)); err != nil {
			return nil
		}
	}
	return fmt.Errorf("thread %d does not end", tid)
}

// serve is a receive loop: it answers until it is woken after stop.
func (r *rig) serve() error {
	var events [4]unix.EpollEvent
	var n notify.Notif
	var b [8]byte
	for {
		k, err := unix.EpollWait(r.t.Epoll, events[:], -1)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("wait: %w", err)
		}
		for _, ev := range events[:max(k, 0)] {
			if int(ev.Fd) == r.t.Wake {
				if _, err := unix.Read(r.t.Wake, b[:]); err != nil {
					return fmt.Errorf("read eventfd: %w", err)
				}
				if r.stop.Load() {
					return nil
				}
				continue
			}
			err := r.l.RecvReady(&n)
			if err == nil {
				if r.work != nil {
					r.work()
				}
				if err = r.l.IDValid(n.ID); err == nil {
					err = r.l.Send(&notify.Resp{ID: n.ID, Val: 42})
				}
			}
			if o := notify.OutcomeOf(err); o != notify.Done && o != notify.Retry && o != notify.Stale {
				return err
			}
		}
	}
}

// wake makes serve read its eventfd.
func (r *rig) wake() error {
	_, err := unix.Write(r.t.Wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	return err
}

// calls has the target make calls until enough says so, then stops serve.
func (r *rig) calls(enough func(n int) bool) error {
	for n := 0; !enough(n); n++ {
		r.call <- struct{}{}
		if e := <-r.results; e != 0 {
			return fmt.Errorf("target: %w", e)
		}
		if err := r.wake(); err != nil {
			return err
		}
	}
	r.stop.Store(true)
	return r.wake()
}

// taskStatus returns a field of a thread's status.
func taskStatus(tid any, field string) (string, error) {
	fields, err := status(fmt.Sprintf("/proc/self/task/%v", tid))
	if err != nil {
		return "", err
	}
	if v, ok := fields[field]; ok {
		return v, nil
	}
	return "", fmt.Errorf("no %s in the status of thread %v", field, tid)
}

// othersAreFree checks that no thread but those given has a filter.
func othersAreFree(but ...int) error {
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	skip := map[string]bool{}
	for _, tid := range but {
		skip[fmt.Sprint(tid)] = true
	}
	for _, e := range entries {
		if skip[e.Name()] {
			continue
		}
		for _, field := range []string{"Seccomp", "NoNewPrivs"} {
			v, err := taskStatus(e.Name(), field)
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
				continue // it has ended
			}
			if err != nil || v != "0" {
				return fmt.Errorf("thread %s: %s is %s: %v", e.Name(), field, v, err)
			}
		}
	}
	return nil
}
