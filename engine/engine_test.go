package engine_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

// start runs an engine until the test stops it; stop returns Run's error.
func start(t *testing.T, cfg engine.Config) (e *engine.Engine, stop func() error) {
	t.Helper()
	if cfg.StopTimeout == 0 {
		cfg.StopTimeout = testDeadline // a worker may stand still for longer than the default
	}
	e, err := engine.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	var once atomic.Bool
	stop = func() error {
		cancel()
		if !once.CompareAndSwap(false, true) {
			return nil
		}
		select {
		case err := <-done:
			return err
		case <-time.After(testDeadline):
			return errors.New("Run did not return")
		}
	}
	t.Cleanup(func() { _ = stop() })
	return e, stop
}

func mustAdd(t *testing.T, e *engine.Engine, c *child) *engine.Source {
	t.Helper()
	s, err := e.Add(c.l)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func checkBalance(t *testing.T, e *engine.Engine) engine.Counters {
	t.Helper()
	// The last answer is out a moment before its worker is idle.
	c := e.Counters()
	for end := time.Now().Add(testDeadline); c.InHandlers+c.Detached != 0 && time.Now().Before(end); c = e.Counters() {
		time.Sleep(time.Millisecond)
	}
	if c.Balance() != 0 || c.Queued+c.Held+c.InHandlers+c.Detached != 0 || c.Failed != 0 {
		t.Errorf("the counters do not balance at rest: %+v", c)
	}
	return c
}

// paths are the configurations whose notifications travel differently.
func paths(h engine.Handler) map[string]engine.Config {
	return map[string]engine.Config{
		"inline":     {Handler: h, Inline: true},
		"threads":    {Handler: h, Kind: engine.ThreadWorkers, Workers: 2, Queue: 128},
		"goroutines": {Handler: h, Kind: engine.GoroutineWorkers, Workers: 2, Queue: 128},
	}
}

func TestEveryCallIsAnswered(t *testing.T) {
	var n atomic.Int64
	h := engine.HandlerFunc(func(r engine.Request) {
		if r.Data().NR != unix.SYS_GETPPID || r.PID() == 0 || !r.Alive() {
			t.Errorf("request of pid %d, call %d", r.PID(), r.Data().NR)
		}
		var err error
		if n.Add(1)%2 == 0 {
			err = r.Return(7)
		} else {
			err = r.Fail(unix.EPERM)
		}
		if err != nil {
			t.Error(err)
		}
	})
	for name, cfg := range paths(h) {
		t.Run(name, func(t *testing.T) {
			n.Store(0)
			cfg.BySyscall = true
			e, stop := start(t, cfg)
			c := startTarget(t, 16, 100)
			s := mustAdd(t, e, c)
			c.release()
			r := c.results()
			if r.Values[7] != 800 || r.errno(unix.EPERM) != 800 {
				t.Errorf("target saw %+v", r)
			}
			select {
			case <-s.Done(): // the targets are gone, so the engine closes the listener
			case <-time.After(testDeadline):
				t.Error("the listener without targets is still open")
			}
			got := checkBalance(t, e)
			if got.Received != 1600 || got.Answered != 1600 || got.Defaulted != 0 {
				t.Errorf("counters: %+v", got)
			}
			l := e.Latencies()
			if l.Wait.Count != 1600 || l.Service.Count != 1600 || l.Answer.Count != 1600 {
				t.Errorf("histograms hold %d waits, %d services, %d answers", l.Wait.Count, l.Service.Count, l.Answer.Count)
			}
			if st := e.Syscalls(); len(st) != 1 || st[0].NR != unix.SYS_GETPPID || st[0].Answered != 1600 || st[0].Wait.Count != 1600 || st[0].Total.Count != 1600 {
				t.Errorf("by syscall: %d entries", len(st))
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestContinueAndDescriptors(t *testing.T) {
	for name, cfg := range paths(nil) {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int64
			null, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			defer null.Close()
			cfg.Handler = engine.HandlerFunc(func(r engine.Request) {
				var err error
				if n.Add(1) == 1 {
					err = r.ReturnFD(int(null.Fd()), true)
				} else {
					err = r.Continue()
				}
				if err != nil {
					t.Error(err)
				}
			})
			e, stop := start(t, cfg)
			c := startTarget(t, 1, 3)
			mustAdd(t, e, c)
			c.release()
			r := c.results()
			if r.OK != 3 || r.Values[int64(os.Getpid())] != 2 {
				t.Errorf("target saw %+v, want a descriptor and our pid %d twice", r, os.Getpid())
			}
			for v := range r.Values {
				if v != int64(os.Getpid()) && v < 3 {
					t.Errorf("descriptor %d in the target", v)
				}
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			if got := checkBalance(t, e); got.Continued != 2 {
				t.Errorf("counters: %+v", got)
			}
		})
	}
}

func TestOddHandlersYieldACountedDefaultAnswer(t *testing.T) {
	type count = func(engine.Counters) uint64
	for _, odd := range []struct {
		name    string
		handle  func(engine.Request)
		counted count
		answer  syscall.Errno
	}{
		{"panic", func(engine.Request) { panic("odd") }, func(c engine.Counters) uint64 { return c.Panicked }, unix.ENOSYS},
		{"no answer", func(engine.Request) {}, func(c engine.Counters) uint64 { return c.Unanswered }, unix.ENOSYS},
		{"bad answer", func(r engine.Request) {
			if r.Fail(512) == nil || r.Fail(5000) == nil {
				t.Error("an errno that programs cannot know was accepted")
			}
		}, func(c engine.Counters) uint64 { return c.Unanswered }, unix.ENOSYS},
		{"two answers", func(r engine.Request) {
			_ = r.Fail(unix.EACCES)
			if err := r.Return(0); !errors.Is(err, engine.ErrAnswered) {
				t.Errorf("second answer: %v", err)
			}
		}, func(c engine.Counters) uint64 { return c.DuplicateAnswers }, unix.EACCES},
		{"panic after the answer", func(r engine.Request) {
			_ = r.Fail(unix.EACCES)
			panic("odd")
		}, func(c engine.Counters) uint64 { return c.Panicked }, unix.EACCES},
		{"goexit", func(engine.Request) { runtime.Goexit() }, func(c engine.Counters) uint64 { return c.Panicked }, unix.ENOSYS},
		{"late", func(r engine.Request) {
			for r.Alive() { // until the engine has answered for us
				time.Sleep(time.Millisecond)
			}
			if err := r.Return(0); !errors.Is(err, engine.ErrAnswered) {
				t.Errorf("late answer: %v", err)
			}
		}, func(c engine.Counters) uint64 { return c.Late }, unix.ENOSYS},
	} {
		for name, cfg := range paths(engine.HandlerFunc(odd.handle)) {
			t.Run(odd.name+"/"+name, func(t *testing.T) {
				if odd.name == "late" {
					cfg.HandlerDeadline = 10 * time.Millisecond
				}
				// ENOSYS ends a target's thread, so each makes one call.
				const threads = 6
				e, stop := start(t, cfg)
				c := startTarget(t, threads, 1)
				mustAdd(t, e, c)
				c.release()
				if odd.name == "goexit" && cfg.Inline {
					// It takes the receive thread along: Run says so, and the
					// targets that nobody will receive get ENOSYS.
					if r := c.results(); r.errno(unix.ENOSYS) != threads {
						t.Errorf("target saw %+v", r)
					}
					if err := stop(); err == nil {
						t.Error("Run returned no error")
					}
					return
				}
				if r := c.results(); r.errno(odd.answer) != threads {
					t.Errorf("target saw %+v, want %d times %v", r, threads, odd.answer)
				}
				if err := stop(); err != nil {
					t.Error(err)
				}
				got := checkBalance(t, e)
				if n := odd.counted(got); odd.name != "late" && n != threads || n == 0 {
					t.Errorf("counted %d times: %+v", n, got)
				}
				if odd.answer == unix.ENOSYS && got.Defaulted != got.Answered {
					t.Errorf("%d default answers: %+v", got.Defaulted, got)
				}
			})
		}
	}
}

// overloadCalls lengthens the overload test: 20,000 is some ten seconds.
var overloadCalls = flag.Int("overload.calls", 200, "calls of each of the 64 target threads in the overload test")

func TestOverloadDropsTheOldestAndLosesNothing(t *testing.T) {
	for _, kind := range []engine.WorkerKind{engine.ThreadWorkers, engine.GoroutineWorkers} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			e, stop := start(t, engine.Config{
				Handler: engine.HandlerFunc(func(r engine.Request) {
					for end := time.Now().Add(50 * time.Microsecond); time.Now().Before(end); {
					}
					_ = r.Return(1)
				}),
				Queue: 8, Workers: 2, DropBatch: 4, Kind: kind,
			})
			const threads, batch, workers = 64, 4, 2
			calls := *overloadCalls
			c := startTarget(t, threads, calls)
			mustAdd(t, e, c)
			c.release()
			worst := int64(0)
			for range 100 {
				before, s := e.Counters(), e.Counters()
				after := e.Counters()
				// A pass over the counters is not atomic: allow for what moved meanwhile, much if this thread stood still.
				moved := int64(after.Received - before.Received + after.Answered - before.Answered + after.Dropped - before.Dropped)
				if b, most := s.Balance(), moved+2*batch+workers+2; b < -most || b > most {
					t.Errorf("out of balance by %d while running, and %d moved: %+v", b, moved, s)
				}
				worst = max(worst, s.Balance(), -s.Balance())
				time.Sleep(time.Duration(*overloadCalls/200) * time.Millisecond)
			}
			r := c.results()
			if err := stop(); err != nil {
				t.Error(err)
			}
			got := checkBalance(t, e)
			t.Logf("target saw %+v; 100 snapshots out of balance by %d at most; at the end %+v", r, worst, got)
			if r.OK+r.errno(unix.EINTR) != threads*calls {
				t.Errorf("target saw %+v, want %d in all", r, threads*calls)
			}
			if uint64(r.OK) != got.Answered || uint64(r.errno(unix.EINTR)) != got.Dropped {
				t.Errorf("target saw %d answers and %d EINTR, the engine counted %d and %d", r.OK, r.errno(unix.EINTR), got.Answered, got.Dropped)
			}
			if got.Dropped == 0 {
				t.Error("no drops: the test shows nothing")
			}
			if d := e.Latencies().Drop; d.Count != got.Dropped+got.Stale {
				t.Errorf("%d drops in the histogram, %d counted", d.Count, got.Dropped)
			}
		})
	}
}

func TestStopAnswersWhatIsHeld(t *testing.T) {
	release := make(chan struct{})
	var entered atomic.Int64
	e, stop := start(t, engine.Config{
		Handler: engine.HandlerFunc(func(r engine.Request) {
			entered.Add(1)
			<-release
			_ = r.Return(1)
		}),
		Queue: 32, Workers: 2, StopTimeout: 50 * time.Millisecond, Kind: engine.GoroutineWorkers,
	})
	defer close(release)
	c := startTarget(t, 16, 1)
	mustAdd(t, e, c)
	c.release()
	for e.Counters().Received != 16 || entered.Load() != 2 {
		time.Sleep(time.Millisecond)
	}
	if err := stop(); !errors.Is(err, engine.ErrStopTimeout) {
		t.Errorf("stop: %v, want ErrStopTimeout", err)
	}
	r := c.results()
	if r.errno(unix.EINTR) != 14 || r.errno(unix.ENOSYS) != 2 {
		t.Errorf("target saw %+v, want 14 drops and 2 default answers", r)
	}
	if got := checkBalance(t, e); got.Dropped != 14 || got.Late != 2 || got.Defaulted != 2 {
		t.Errorf("counters: %+v", got)
	}
}

func TestStopUnderAStormLetsTargetsEnd(t *testing.T) {
	for name, cfg := range paths(engine.HandlerFunc(func(r engine.Request) { _ = r.Return(1) })) {
		t.Run(name, func(t *testing.T) {
			e, stop := start(t, cfg)
			c := startTarget(t, 32, 1<<30)
			mustAdd(t, e, c)
			c.release()
			for e.Counters().Answered < 1000 {
				time.Sleep(time.Millisecond)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			r := c.results()
			got := checkBalance(t, e)
			if uint64(r.OK) != got.Answered || r.errno(unix.ENOSYS) != 32 {
				t.Errorf("target saw %+v; counters %+v", r, got)
			}
		})
	}
}

func TestListenersComeAndGo(t *testing.T) {
	for name, cfg := range paths(engine.HandlerFunc(func(r engine.Request) { _ = r.Return(1) })) {
		t.Run(name, func(t *testing.T) {
			e, stop := start(t, cfg)
			storm := startTarget(t, 8, 1<<30)
			s := mustAdd(t, e, storm)
			storm.release()
			for range 5 {
				c := startTarget(t, 4, 50)
				mustAdd(t, e, c)
				c.release()
				if r := c.results(); r.OK != 200 {
					t.Errorf("target saw %+v", r)
				}
			}
			ctx, cancel := context.WithTimeout(context.Background(), testDeadline)
			defer cancel()
			if err := e.Remove(ctx, s); err != nil {
				t.Error(err)
			}
			if err := e.Remove(ctx, s); err != nil {
				t.Errorf("second remove: %v", err)
			}
			if r := storm.results(); r.errno(unix.ENOSYS) != 8 {
				t.Errorf("after Remove the targets saw %+v, want ENOSYS 8 times", r)
			}
			checkBalance(t, e)

			// A released listener is handed over: another engine goes on with it.
			moved := startTarget(t, 4, 2000)
			s = mustAdd(t, e, moved)
			moved.release()
			l, err := e.Release(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			checkBalance(t, e)
			e2, stop2 := start(t, cfg)
			if _, err := e2.Add(l); err != nil {
				t.Fatal(err)
			}
			if r := moved.results(); r.OK != 8000 {
				t.Errorf("after the hand-over the target saw %+v", r)
			}
			if err := stop2(); err != nil {
				t.Error(err)
			}
			if _, err := e.Add(l); !errors.Is(err, os.ErrClosed) {
				t.Errorf("add to a stopped engine: %v", err)
			}
		})
	}
}

func TestKilledTargetsAreStaleNotLost(t *testing.T) {
	release := make(chan struct{})
	e, stop := start(t, engine.Config{
		Handler: engine.HandlerFunc(func(r engine.Request) {
			<-release
			_ = r.Return(1)
		}),
		Queue: 64, Workers: 1, Kind: engine.GoroutineWorkers,
	})
	c := startTarget(t, 16, 1)
	s := mustAdd(t, e, c)
	c.release()
	for e.Counters().Received != 16 {
		time.Sleep(time.Millisecond)
	}
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-c.out
	close(release)
	<-s.Done()
	if got := checkBalance(t, e); got.Stale != 16 {
		t.Errorf("counters: %+v", got)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestHookRunsOnTheReceiveThread(t *testing.T) {
	tid := make(chan int, 1)
	cfg := engine.Config{
		Handler: engine.HandlerFunc(func(r engine.Request) {
			tid <- unix.Gettid()
			_ = r.Return(1)
		}),
		Inline:     true,
		Cookies:    [3]uintptr{1, 2, 3},
		ThreadHook: func(engine.Thread) error { tid <- unix.Gettid(); return nil },
	}
	e, stop := start(t, cfg)
	hook := <-tid
	c := startTarget(t, 1, 1)
	mustAdd(t, e, c)
	c.release()
	if got := <-tid; got != hook || hook == os.Getpid() {
		t.Errorf("hook ran on thread %d, handler on %d, main is %d", hook, got, os.Getpid())
	}
	c.results()
	if err := stop(); err != nil {
		t.Error(err)
	}

	broken := errors.New("broken")
	cfg.ThreadHook = func(engine.Thread) error { return broken }
	e, err := engine.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Run(context.Background()); !errors.Is(err, broken) {
		t.Errorf("Run = %v, want the hook's error", err)
	}
}

func TestBadConfigs(t *testing.T) {
	h := engine.HandlerFunc(func(engine.Request) {})
	for _, cfg := range []engine.Config{
		{},
		{Handler: h, Queue: -1},
		{Handler: h, Queue: engine.MaxQueue + 1},
		{Handler: h, Workers: -1},
		{Handler: h, Queue: 4, DropBatch: 5},
		{Handler: h, DropErrno: 512},
		{Handler: h, DefaultErrno: 1 << 20},
		{Handler: h, HandlerDeadline: -1},
		{Handler: h, CPU: -2},
		{Handler: h, CPU: engine.OnCPU(4000)},
		{Handler: h, Receivers: -1},
		{Handler: h, Receivers: 4000},
		{Handler: h, Receivers: 2, CPU: engine.AnyCPU},
		{Handler: h, Receivers: 2, CPU: engine.OnCPU(0)},
		{Handler: h, Receivers: 2, PrivateFiles: true},
	} {
		if _, err := engine.New(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		} else {
			t.Log(err)
		}
	}
}

func TestNoDescriptorLeaks(t *testing.T) {
	before := testchild.OpenFDs(t)
	for range 50 {
		e, err := engine.New(engine.Config{Handler: engine.HandlerFunc(func(engine.Request) {}), Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := e.Run(ctx); err != nil {
			t.Fatal(err)
		}
	}
	await(t, func() bool { return testchild.OpenFDs(t) <= before })
}
