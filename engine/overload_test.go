package engine_test

import (
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/policy"
	"golang.org/x/sys/unix"
)

// busy answers after it has computed for a while.
func busy(d time.Duration) engine.HandlerFunc {
	return func(r engine.Request) {
		for end := time.Now().Add(d); time.Now().Before(end); {
		}
		_ = r.Return(1)
	}
}

func TestPoliciesLoseNothing(t *testing.T) {
	const threads, calls = 48, 60
	for name, cfg := range map[string]engine.Config{
		"drop-oldest":              {},
		"drop-oldest, low mark":    {LowWatermark: 2},
		"drop-oldest, at once":     {Pace: policy.Immediately},
		"drop-oldest, paced":       {Pace: 2 * time.Millisecond},
		"drop-oldest, few held":    {MaxHeld: 4},
		"drop-oldest, other errno": {DropErrnos: map[int32]syscall.Errno{unix.SYS_GETPPID: unix.EAGAIN}},
		"drop-oldest, continued":   {DropErrno: engine.DropContinue},
		"drop-newest":              {Policy: policy.DropNewest},
		"drop-newest, at once":     {Policy: policy.DropNewest, Pace: policy.Immediately},
		"block":                    {Policy: policy.Block},
		"block, a ring of one":     {Policy: policy.Block, Queue: 1},
		"drop-oldest, target":      {Queue: 1024, WaitTarget: 200 * time.Microsecond},
		"drop-newest, target":      {Policy: policy.DropNewest, Queue: 1024, WaitTarget: 200 * time.Microsecond},
		"block, target":            {Policy: policy.Block, Queue: 1024, WaitTarget: 200 * time.Microsecond},
		"a batch and a target":     {Queue: 64, WaitTarget: 200 * time.Microsecond, DropBatch: 32},
		"no interrupt":             {Interrupt: engine.NoInterrupt},
	} {
		t.Run(name, func(t *testing.T) {
			cfg.Handler, cfg.Workers = busy(50*time.Microsecond), 2
			if cfg.Queue == 0 {
				cfg.Queue = 8
			}
			e, stop := start(t, cfg)
			c := startTarget(t, threads, calls)
			mustAdd(t, e, c)
			c.release()
			r := c.results()
			if err := stop(); err != nil {
				t.Error(err)
			}
			got := checkBalance(t, e)
			errno := syscall.EINTR
			if cfg.DropErrnos != nil {
				errno = unix.EAGAIN
			}
			if cfg.DropErrno == engine.DropContinue {
				if r.OK != threads*calls || got.Answered+got.Dropped != threads*calls {
					t.Errorf("target saw %+v of %d calls, the engine counted %+v", r, threads*calls, got)
				}
			} else if r.OK+r.errno(errno) != threads*calls || uint64(r.OK) != got.Answered || uint64(r.errno(errno)) != got.Dropped {
				t.Errorf("target saw %+v of %d calls, the engine counted %+v", r, threads*calls, got)
			}
			if blocks := cfg.Policy == policy.Block; blocks != (got.Dropped == 0) {
				t.Errorf("%d drops", got.Dropped)
			}
			if d := e.Latencies().Drop; d.Count != got.Dropped+got.Stale {
				t.Errorf("%d drops in the histogram, %d counted", d.Count, got.Dropped)
			}
			if got.Overflowed != got.Dropped+got.Stale || got.Expired != 0 {
				t.Errorf("%d gave way to others, %d were too old, %d dropped", got.Overflowed, got.Expired, got.Dropped)
			}
		})
	}
}

// Workers that do not come back must not keep the old calls waiting.
func TestCallsThatAreTooOldAreDropped(t *testing.T) {
	enough := make(chan struct{})
	e, stop := start(t, engine.Config{
		Handler: engine.HandlerFunc(func(r engine.Request) {
			<-enough
			_ = r.Return(1)
		}),
		Queue: 16, Workers: 1, MaxAge: 5 * time.Millisecond,
	})
	c := startTarget(t, 8, 1)
	s := mustAdd(t, e, c)
	c.release()
	for end := time.Now().Add(testDeadline); e.Counters().Dropped < 7; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("calls wait for the only worker, which is busy: %+v", e.Counters())
		}
	}
	close(enough)
	if r := c.results(); r.OK != 1 || r.errno(unix.EINTR) != 7 {
		t.Errorf("target saw %+v, want one served and seven too old", r)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if got := checkBalance(t, e); got.Expired != 7 || got.Overflowed != 0 {
		t.Errorf("counted %d too old: %+v", got.Expired, got)
	}
	if got := s.Counters(); got.Expired != 7 || got.Overflowed != 0 {
		t.Errorf("counted %d of the listener's too old: %+v", got.Expired, got)
	}
}

// The noisiest listener loses first: what another listener sends is not dropped.
func TestQuietListenerLosesNothing(t *testing.T) {
	for _, kind := range []policy.Kind{policy.DropOldest, policy.DropNewest, policy.Block} {
		t.Run(kind.String(), func(t *testing.T) {
			e, stop := start(t, engine.Config{Handler: busy(50 * time.Microsecond), Queue: 8, Workers: 2, Policy: kind})
			storm := startTarget(t, 64, 1<<30)
			noisy := mustAdd(t, e, storm)
			storm.release()
			quiet := startTarget(t, 1, 100)
			mustAdd(t, e, quiet)
			quiet.release()
			if r := quiet.results(); r.OK != 100 {
				t.Errorf("the quiet caller saw %+v, want 100 served", r)
			}
			if err := e.Remove(t.Context(), noisy); err != nil {
				t.Error(err)
			}
			if r := storm.results(); r.errno(unix.ENOSYS) != 64 {
				t.Errorf("the storm saw %+v", r)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			checkBalance(t, e)
		})
	}
}

// One worker does all the work while requests are short. When it is held up, the
// others are called.
func TestLoneWorkerIsRelieved(t *testing.T) {
	var hold, held atomic.Bool
	enough := make(chan struct{})
	e, stop := start(t, engine.Config{
		Handler: engine.HandlerFunc(func(r engine.Request) {
			if hold.CompareAndSwap(true, false) {
				held.Store(true)
				<-enough
			}
			_ = r.Return(1)
		}),
		Queue: 64, Workers: 2,
	})
	c := startTarget(t, 4, endless)
	mustAdd(t, e, c)
	c.release()
	// One worker does all, or this machine has no such plan.
	await(t, func() bool { return strings.Contains(plans(e)[0], "near") || e.Counters().Answered > 20_000 })
	hold.Store(true)
	await(t, held.Load)
	seen := e.Counters().Answered
	for end := time.Now().Add(testDeadline); e.Counters().Answered < seen+5000; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("one handler blocks, and with it all: %+v", e.Counters())
		}
	}
	close(enough)
	c.enough()
	r := c.results()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if got := checkBalance(t, e); uint64(r.OK) != got.Answered || got.Answered != got.Received {
		t.Errorf("target saw %+v, counters %+v", r, got)
	}
}

// A receive thread that blocks in RECV must still see what others want of it.
func TestBlockedReceiveIsInterrupted(t *testing.T) {
	for name, cfg := range paths(engine.HandlerFunc(func(r engine.Request) { _ = r.Return(1) })) {
		t.Run(name, func(t *testing.T) {
			for range often(5) {
				e, stop := start(t, cfg)
				c := startTarget(t, 1, 300) // enough to leave epoll
				mustAdd(t, e, c)
				c.release()
				other := startTarget(t, 1, 1)
				mustAdd(t, e, other) // at any moment of the first one's calls
				other.release()
				if a, b := c.results(), other.results(); a.OK != 300 || b.OK != 1 {
					t.Fatalf("targets saw %+v and %+v", a, b)
				}
				if err := stop(); err != nil {
					t.Fatal(err)
				}
				checkBalance(t, e)
			}
		})
	}
}
