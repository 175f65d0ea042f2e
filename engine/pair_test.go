package engine_test

import (
	"testing"

	"github.com/unknot/unknot/engine"
)

// TestPairFollowsTheLoad: under some targets that call all the time the receive thread leaves its
// CPU, and comes back when they do not; where that would cost, or is not wanted, it stays.
func TestPairFollowsTheLoad(t *testing.T) {
	cpus := severalCPUs(t)
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
			c.cfg.Handler = engine.HandlerFunc(func(r engine.Request) { _ = r.Return(1) })
			e, stop := start(t, c.cfg)
			response{
				counter: func(c engine.Counters) uint64 { return c.Paired },
				want:    c.pairs, loads: 60, calls: 12_800, enough: 100_000,
			}.check(t, e, c.targets, func(target *child) {
				if c.pinned {
					target.pinned(t, cpus[0])
				}
			})
			// Nobody calls any more: it comes back.
			home := cpus[len(cpus)-1]
			if c.cfg.CPU != engine.AutoCPU {
				home = cpus[0]
			}
			receiverComesTo(t, home)
			checkBalance(t, e)
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}
