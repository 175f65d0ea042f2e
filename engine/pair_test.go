package engine_test

import (
	"slices"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/osthread"
)

// pinned binds all threads of the child, and those that they will start, to one CPU.
func (c *child) pinned(t *testing.T, cpu int) {
	t.Helper()
	for _, tid := range tasks(t, c.cmd.Process.Pid) {
		if err := osthread.Allow(tid, cpu); err != nil {
			t.Fatal(err)
		}
	}
}

// load has that many targets make so many calls together, once before has seen their
// process, and returns the calls/s.
func load(t *testing.T, e *engine.Engine, targets, calls int, before func(*child)) float64 {
	t.Helper()
	target := startTarget(t, targets, calls/targets)
	mustAdd(t, e, target)
	before(target)
	from := time.Now()
	target.release()
	<-target.out
	return float64(calls) / time.Since(from).Seconds()
}

// receiverComesTo waits until the receive thread may run on that CPU only.
func receiverComesTo(t *testing.T, cpu int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		at := []int{}
		for _, tid := range threads(t, "unknot-receive") {
			if mine, err := osthread.AllowedTo(tid); err == nil {
				at = append(at, mine...)
			}
		}
		if slices.Equal(at, []int{cpu}) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the receive thread may run on CPUs %v, not on %d only", at, cpu)
		}
	}
}

// TestPairFollowsTheLoad: under some targets that call all the time the receive thread leaves its
// CPU, and comes back when they do not; where that would cost, or is not wanted, it stays.
func TestPairFollowsTheLoad(t *testing.T) {
	cpus := osthread.Allowed()
	if len(cpus) < 2 {
		t.Skip("one CPU: the receive thread has nowhere to go")
	}
	for _, c := range []struct {
		name    string
		cfg     engine.Config
		targets int
		pinned  bool
		pairs   bool
	}{
		{"some", engine.Config{Workers: 2}, 32, false, true},
		{"few", engine.Config{Workers: 2}, 2, false, false},
		{"pinned targets", engine.Config{Workers: 2}, 32, true, false},
		{"one worker", engine.Config{Workers: 1}, 32, false, false},
		{"goroutines", engine.Config{Workers: 2, Kind: engine.GoroutineWorkers}, 32, false, false},
		{"near", engine.Config{Workers: 2, Placement: engine.Near}, 32, false, false},
		{"a CPU of its own", engine.Config{Workers: 2, CPU: engine.OnCPU(cpus[0])}, 32, false, false},
		{"asynchronous", engine.Config{Workers: 2, WakeUp: engine.Async}, 32, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.Queue = 64
			c.cfg.Handler = engine.HandlerFunc(func(r *engine.Request) { _ = r.Return(1) })
			e, stop := start(t, c.cfg)
			best := 0.0 // calls/s
			loads := 3
			if c.pairs {
				loads = 60
			}
			for range loads {
				best = max(best, load(t, e, c.targets, 12_800, func(target *child) {
					if c.pinned {
						target.pinned(t, cpus[0])
					}
				}))
				if e.Counters().Paired > 0 {
					break
				}
			}
			paired := e.Counters().Paired
			t.Logf("at most %.0f calls/s", best)
			switch {
			case !c.pairs && paired != 0:
				t.Errorf("it left its CPU %d times", paired)
			case c.pairs && paired == 0 && best < 100_000:
				t.Skipf("at most %.0f calls/s: too few for the pair", best)
			case c.pairs && paired == 0:
				t.Errorf("it never left its CPU at %.0f calls/s", best)
			}
			// Nobody calls any more: it comes back.
			home := cpus[len(cpus)-1]
			if c.cfg.CPU != engine.AutoCPU {
				home = cpus[0]
			}
			receiverComesTo(t, home)
			if c := e.Counters(); c.Balance() != 0 {
				t.Errorf("%+v", c)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}
