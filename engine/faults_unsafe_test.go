//go:build faults && !fakekernel

package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/kernel"
	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

// A fault is what befalls a supervisor with the real kernel: a process of its own, since some cannot be undone. Whatever it is, each
// call must return what was answered to it, each notification have one answer, the counters balance and the stop end.
type fault struct {
	config  func(*engine.Config)
	handle  func(r engine.Request, call uint64)                               // instead of an echo
	begin   func() error                                                      // in the supervisor, before there is an engine
	kernel  kernel.Fault                                                      // in Linux's place
	add     func(*engine.Engine, []*notify.Listener) error                    // instead of Add
	disturb func(t *testing.T, pid int)                                       // from outside, over and over while there are calls
	may     []syscall.Errno                                                   // be answered instead of the echo
	did     func(engine.Counters, faultReport, map[syscall.Errno]uint64) bool // it happened
	queued  bool                                                              // only by the queue
	dies    bool                                                              // the supervisor does
	hangs   bool                                                              // handlers outlast the stop
	machine bool                                                              // it befalls the whole machine
}

var offline = flag.Bool("offline", false, "TestFaults takes a CPU offline, too, which is for a machine of one's own")

const (
	faultTargets, faultThreads, faultCalls = 3, 8, 60
	faultDefault                           = unix.EAGAIN
)

func isSend(c kernel.Call) bool { return c.Request == notify.IoctlSend }

func echo(r engine.Request, call uint64) error { return r.Return(int64(call) + echoBase) }

var epollCtls, eventFDs atomic.Int64 // that "no room in epoll" has seen

var faults = map[string]fault{
	"interrupted": {
		kernel: func(c kernel.Call, do func() syscall.Errno) syscall.Errno {
			switch c.Name {
			case "ioctl", "epoll_wait", "ppoll":
				if rand.IntN(2) == 0 {
					return unix.EINTR
				}
			}
			return do()
		},
		handle: func(r engine.Request, call uint64) {
			if r.Alive() {
				_ = echo(r, call)
			}
		},
		did: func(_ engine.Counters, r faultReport, _ map[syscall.Errno]uint64) bool { return r.Instead > 0 },
	},
	"slow to send": {
		kernel: func(c kernel.Call, do func() syscall.Errno) syscall.Errno {
			if isSend(c) && rand.IntN(4) == 0 {
				time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
			}
			return do()
		},
	},
	"refuses answers": {
		kernel: func(c kernel.Call, do func() syscall.Errno) syscall.Errno {
			if isSend(c) && (*notify.Resp)(c.Arg).Error == 0 && rand.IntN(3) == 0 {
				return unix.EINVAL
			}
			return do()
		},
		may: []syscall.Errno{faultDefault},
		did: func(c engine.Counters, r faultReport, saw map[syscall.Errno]uint64) bool {
			return c.Refused > 0 && c.Refused == uint64(r.Instead) && c.Refused == saw[faultDefault]
		},
	},
	"no room in epoll": { // and none for another receiver: every other time, for there are few
		kernel: func(c kernel.Call, do func() syscall.Errno) syscall.Errno {
			switch c.Name {
			case "epoll_ctl":
				if epollCtls.Add(1)%2 == 1 {
					return unix.ENOSPC
				}
			case "eventfd2":
				if eventFDs.Add(1)%2 == 1 {
					return unix.EMFILE
				}
			}
			return do()
		},
		add: func(e *engine.Engine, ls []*notify.Listener) error {
			for _, l := range ls {
				for {
					_, err := e.Add(l)
					if err == nil {
						break
					}
					if !errors.Is(err, unix.ENOSPC) {
						return err
					}
				}
			}
			return nil
		},
		did: func(_ engine.Counters, r faultReport, _ map[syscall.Errno]uint64) bool { return r.Instead > 0 },
	},
	"odd handlers": {
		config: func(c *engine.Config) { c.HandlerDeadline = 10 * time.Millisecond },
		handle: func(r engine.Request, call uint64) {
			switch call % 16 {
			case 0:
				panic("odd")
			case 1:
			case 2:
				_ = echo(r, call)
				if err := r.Fail(unix.EPERM); !errors.Is(err, engine.ErrAnswered) {
					panic(err)
				}
			case 3:
				time.Sleep(20 * time.Millisecond)
				_ = r.Fail(unix.EBUSY)
			case 4:
				p := r.Detach()
				go echo(p.Request, call)
			default:
				_ = echo(r, call)
			}
		},
		may: []syscall.Errno{faultDefault, unix.EBUSY},
		did: func(c engine.Counters, _ faultReport, _ map[syscall.Errno]uint64) bool {
			return c.Panicked > 0 && c.Unanswered > 0 && c.DuplicateAnswers > 0 && c.Late > 0
		},
	},
	"handlers hang": {
		config: func(c *engine.Config) { c.HandlerDeadline, c.StopTimeout = 10*time.Millisecond, 50*time.Millisecond },
		handle: func(r engine.Request, call uint64) {
			if call%100 == 0 {
				select {}
			}
			if call%100 == 1 {
				runtime.Goexit()
			}
			_ = echo(r, call)
		},
		may: []syscall.Errno{faultDefault}, queued: true, hangs: true,
		did: func(c engine.Counters, _ faultReport, _ map[syscall.Errno]uint64) bool { return c.Late > 0 },
	},
	"stopped and continued": {
		disturb: func(t *testing.T, pid int) {
			for _, sig := range []syscall.Signal{unix.SIGSTOP, unix.SIGCONT} {
				if err := unix.Kill(pid, sig); err != nil {
					t.Error(err)
				}
				time.Sleep(2 * time.Millisecond)
			}
		},
	},
	"little memory": { // the collector runs all the time
		begin: func() error {
			debug.SetMemoryLimit(1)
			return nil
		},
		handle: func(r engine.Request, call uint64) {
			if call%64 == 0 { // the world is stopped, and started, each time
				hoard = make([]byte, 1<<20)
			}
			_ = echo(r, call)
		},
	},
	"no memory": {
		handle: func(r engine.Request, call uint64) {
			if call == faultThreads*faultCalls/2 {
				_ = unix.Setrlimit(unix.RLIMIT_AS, &unix.Rlimit{})
				for kept := [][]byte{}; ; {
					kept = append(kept, make([]byte, 1<<20))
				}
			}
			_ = echo(r, call)
		},
		may: []syscall.Errno{unix.ENOSYS}, dies: true,
	},
	"the clock jumps": {
		config: func(c *engine.Config) { c.MaxAge, c.HandlerDeadline = time.Minute, time.Minute },
		kernel: func(_ kernel.Call, do func() syscall.Errno) syscall.Errno {
			switch rand.IntN(50) {
			case 0: // the machine slept, and the clock with it not
				kernel.Jumped.Add(int64(time.Hour))
			case 1: // a line ends: mono.Clock
				kernel.Jumped.Add(-rand.Int64N(int64(600 * time.Microsecond)))
			}
			return do()
		},
		may: []syscall.Errno{faultDefault},
	},
	"CPUs taken away": {
		disturb: func(t *testing.T, pid int) {
			cpus := osthread.Allowed()
			cpu := cpus[rand.IntN(len(cpus))]
			list, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
			for _, d := range list {
				tid, _ := strconv.Atoi(d.Name())
				if err := osthread.Allow(tid, cpu); err != nil && !errors.Is(err, unix.ESRCH) {
					t.Error(err)
				}
			}
			time.Sleep(time.Millisecond)
		},
	},
	"a CPU goes offline": {
		disturb: func(t *testing.T, _ int) {
			for _, on := range []string{"0", "1"} {
				if err := os.WriteFile("/sys/devices/system/cpu/cpu1/online", []byte(on), 0); err != nil {
					t.Error(err)
				}
				time.Sleep(5 * time.Millisecond)
			}
		},
		machine: true,
	},
	"may not schedule": {
		begin: func() error {
			return testchild.Refuse(map[int]syscall.Errno{unix.SYS_SCHED_SETAFFINITY: unix.EPERM, unix.SYS_SCHED_SETSCHEDULER: unix.EPERM,
				unix.SYS_SETPRIORITY: unix.EPERM, unix.SYS_GETCPU: unix.ENOSYS, unix.SYS_PRCTL: unix.EPERM})
		},
		config: func(c *engine.Config) { c.RaisePriority = true },
	},
	"no descriptors": {
		add: func(e *engine.Engine, ls []*notify.Listener) error {
			if _, err := e.Add(ls[0]); err != nil {
				return err
			}
			if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{}); err != nil {
				return err
			}
			if _, err := engine.New(engine.Config{Handler: engine.HandlerFunc(func(engine.Request) {})}); !errors.Is(err, unix.EMFILE) {
				return fmt.Errorf("another engine: %w", err)
			}
			return addAll(e, ls[1:])
		},
		handle: func(r engine.Request, call uint64) {
			if _, err := r.Target().Comm(); !errors.Is(err, unix.EMFILE) {
				return
			}
			_ = echo(r, call)
		},
	},
	"the log stalls": { // its reader is stopped, and the pipe is full
		config: func(c *engine.Config) {
			r, w, err := os.Pipe()
			if err != nil {
				panic(err)
			}
			stalled = r
			c.Logger = slog.New(slog.NewTextHandler(w, nil))
		},
		handle: oddEvery(4), // with a stack each
		may:    []syscall.Errno{faultDefault},
		did:    func(c engine.Counters, _ faultReport, _ map[syscall.Errno]uint64) bool { return c.Panicked > 100 },
	},
	"nobody reads the log": {
		config: func(c *engine.Config) {
			r, w, err := os.Pipe()
			if err == nil {
				err = r.Close()
			}
			if err != nil {
				panic(err)
			}
			c.Logger = slog.New(slog.NewTextHandler(w, nil))
		},
		handle: oddEvery(16),
		may:    []syscall.Errno{faultDefault},
		did:    func(c engine.Counters, _ faultReport, _ map[syscall.Errno]uint64) bool { return c.Panicked > 0 },
	},
}

// hoard keeps what a handler allocates from staying on its stack.
var hoard []byte

// stalled is nobody's to read.
var stalled *os.File

// oddEvery panics, which is logged, once in so many calls.
func oddEvery(n uint64) func(engine.Request, uint64) {
	return func(r engine.Request, call uint64) {
		if call%n == 0 {
			panic("odd")
		}
		_ = echo(r, call)
	}
}

func addAll(e *engine.Engine, ls []*notify.Listener) error {
	for _, l := range ls {
		if _, err := e.Add(l); err != nil {
			return err
		}
	}
	return nil
}

// A faultReport is what the supervisor says in the end.
type faultReport struct {
	Counters engine.Counters
	Stop     string
	// By the ioctls that reached Linux: notifications, their answers, those found gone, second answers, answers to what was not
	// received, notifications without an answer.
	Received, Sent, Gone, Twice, Unknown, Left int
	Instead                                    int // calls that did not reach Linux
}

// A faultLedger follows the notifications through the ioctls.
type faultLedger struct {
	mu  sync.Mutex
	out map[uint64]bool
	faultReport
}

func (l *faultLedger) around(f kernel.Fault) kernel.Fault {
	return func(c kernel.Call, do func() syscall.Errno) syscall.Errno {
		made := false
		real := func() syscall.Errno {
			made = true
			e := do()
			l.saw(c, e)
			return e
		}
		if f == nil {
			return real()
		}
		e := f(c, real)
		if !made {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.Instead++
		}
		return e
	}
}

func (l *faultLedger) saw(c kernel.Call, e syscall.Errno) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case c.Request == notify.IoctlRecv && e == 0:
		l.out[(*notify.Notif)(c.Arg).ID] = true
		l.Received++
	case isSend(c) && (e == 0 || e == unix.ENOENT):
		id := (*notify.Resp)(c.Arg).ID
		if !l.out[id] {
			l.Unknown++
		}
		delete(l.out, id)
		if e == 0 {
			l.Sent++
		} else {
			l.Gone++
		}
	case isSend(c) && e == unix.EINPROGRESS:
		l.Twice++
	}
}

// superviseFaulty is the supervisor: it takes listeners, says "ready", and when it is told to stop a faultReport.
func superviseFaulty(c *testchild.Conn, args []string) error {
	f := faults[args[0]]
	l := &faultLedger{out: map[uint64]bool{}}
	var listeners []*notify.Listener
	for range faultTargets {
		l, err := notify.RecvListener(c.UnixConn)
		if err != nil {
			return err
		}
		listeners = append(listeners, l)
	}
	cfg := engine.Config{
		Inline: args[1] == "inline", Workers: 2, Queue: 8, DefaultErrno: faultDefault, StopTimeout: testDeadline,
		Handler: engine.HandlerFunc(func(r engine.Request) {
			if call := r.Data().Args[0]; f.handle != nil {
				f.handle(r, call)
			} else {
				_ = echo(r, call)
			}
		}),
	}
	if f.config != nil {
		f.config(&cfg)
	}
	if f.begin != nil {
		if err := f.begin(); err != nil {
			return err
		}
	}
	kernel.Inject(l.around(f.kernel))
	var e *engine.Engine
	for {
		var err error
		if e, err = engine.New(cfg); err == nil {
			break
		}
		if l.Instead == 0 {
			return err
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error)
	go func() { done <- e.Run(ctx) }()
	<-e.Ready()
	add := addAll
	if f.add != nil {
		add = f.add
	}
	if err := add(e, listeners); err != nil {
		return err
	}
	if err := c.Say("ready"); err != nil {
		return err
	}
	if _, err := c.Hear(); err != nil {
		return err
	}
	stop()
	if err := <-done; err != nil {
		l.Stop = err.Error()
		if f.hangs && errors.Is(err, engine.ErrStopTimeout) {
			l.Stop = ""
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Counters, l.Left = e.Counters(), len(l.out)
	said, err := json.Marshal(l.faultReport)
	if err != nil {
		return err
	}
	return c.Say("%s", said)
}

func init() { roles["faulty"] = superviseFaulty }

func TestFaults(t *testing.T) {
	for name, f := range faults {
		for _, path := range []string{"queue", "inline"} {
			if f.queued && path == "inline" || f.machine && !*offline {
				continue // an inline handler must not block
			}
			t.Run(name+"/"+path, func(t *testing.T) {
				if !f.machine {
					t.Parallel()
				}
				underFault(t, name, path, f)
			})
		}
	}
}

func underFault(t *testing.T, name, path string, f fault) {
	s := testchild.StartWith(t, testchild.Options{Quiet: f.dies}, "faulty", name, path)
	var targets []*child
	for range faultTargets {
		c := startTarget(t, faultThreads, faultCalls)
		if err := notify.SendListener(s.UnixConn, c.l); err != nil {
			t.Fatal(err)
		}
		if err := c.l.Close(); err != nil {
			t.Fatal(err)
		}
		targets = append(targets, c)
	}
	s.Expect("ready")
	over := make(chan struct{})
	var disturbers sync.WaitGroup
	if f.disturb != nil {
		disturbers.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
					f.disturb(t, s.Cmd.Process.Pid)
				}
			}
		})
	}
	for _, c := range targets {
		c.release()
	}
	var echoed, all uint64
	saw := map[syscall.Errno]uint64{}
	for _, c := range targets {
		r := c.results() // fails when one hangs
		if r.Strayed > 0 || r.OK != r.Echoed {
			t.Errorf("calls returned what was not their answer: %+v", r)
		}
		echoed += uint64(r.Echoed)
		all += uint64(r.Echoed)
		for e, n := range r.Errnos {
			saw[syscall.Errno(e)] += uint64(n)
			all += uint64(n)
			if syscall.Errno(e) != unix.EINTR && !slices.Contains(f.may, syscall.Errno(e)) {
				t.Errorf("%d calls returned %v", n, syscall.Errno(e))
			}
		}
	}
	close(over)
	disturbers.Wait()
	if f.dies {
		if st := s.Wait(); st.ExitStatus() != 2 || saw[unix.ENOSYS] == 0 {
			t.Errorf("the supervisor ended by %#x, targets saw %v", st, saw)
		}
		return
	}
	s.MustSay("stop")
	var r faultReport
	if err := json.Unmarshal([]byte(s.MustHear()), &r); err != nil {
		t.Fatal(err)
	}
	const calls = faultTargets * faultThreads * faultCalls
	c := r.Counters
	if all != calls || r.Received != calls || r.Sent != calls || r.Gone+r.Twice+r.Unknown+r.Left != 0 {
		t.Errorf("%d calls returned of %d; by the ioctls: %+v", all, calls, r)
	}
	if c.Received != calls || c.Balance() != 0 || c.Failed+c.Queued+c.Held+c.InHandlers+c.Detached != 0 || c.Dropped != saw[unix.EINTR] || c.Answered != calls-c.Dropped || c.Defaulted != saw[faultDefault] {
		t.Errorf("targets saw %d echoes and %v, the engine counts %+v", echoed, saw, c)
	}
	if r.Stop != "" {
		t.Errorf("stop: %v", r.Stop)
	}
	if f.did != nil && !f.did(c, r, saw) {
		t.Errorf("it did not happen: %+v, %v", r, saw)
	}
}
