package engine_test

import (
	"testing"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
)

// TestReceiveThreadJoinsItsTargets: where targets may not run on its CPU the receive thread goes
// to theirs, or tries to if they are many; not where they may come to it, or where it was told to
// be, or how to wake. It comes back when they are gone.
func TestReceiveThreadJoinsItsTargets(t *testing.T) {
	cpus := severalCPUs(t)
	last := cpus[len(cpus)-1]
	for _, c := range []struct {
		name    string
		cfg     engine.Config
		targets int
		on      int
		joins   bool
	}{
		{"inline, few", engine.Config{Inline: true}, 2, cpus[0], true},
		{"inline, many", engine.Config{Inline: true}, 32, cpus[0], true},
		{"queue, few", engine.Config{Workers: 2}, 2, cpus[0], true},
		{"queue, many", engine.Config{Workers: 2}, 32, cpus[0], true},
		{"together", engine.Config{Inline: true}, 2, last, false},
		{"a CPU of its own", engine.Config{Inline: true, CPU: engine.OnCPU(last)}, 2, cpus[0], false},
		{"asynchronous", engine.Config{Inline: true, WakeUp: engine.Async}, 2, cpus[0], false},
		{"workers anywhere", engine.Config{Workers: 2, Placement: engine.Anywhere}, 2, cpus[0], false},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.Queue = 64
			c.cfg.Handler = engine.HandlerFunc(func(r engine.Request) { _ = r.Return(1) })
			e, stop := start(t, c.cfg)
			response{
				counter: func(c engine.Counters) uint64 { return c.Joined },
				want:    c.joins, loads: 60, calls: 12_800, enough: 20_000,
			}.check(t, e, c.targets, func(target *child) { target.pinned(t, c.on) })
			receiverComesTo(t, last)
			checkBalance(t, e)
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestManyTargetsAreTriedOnOneCPU: where many targets may run on every CPU, inline, it is tried to
// have them come to the receive thread's, not with few or where the wake-up mode is given.
func TestManyTargetsAreTriedOnOneCPU(t *testing.T) {
	severalCPUs(t)
	if err := notify.FeatureSyncWakeUp.Probe(); err != nil {
		t.Skip(err)
	}
	for _, c := range []struct {
		name    string
		cfg     engine.Config
		targets int
		tries   bool
	}{
		{"many", engine.Config{Inline: true}, 32, true},
		{"few", engine.Config{Inline: true}, 2, false},
		{"queue", engine.Config{Workers: 1, Queue: 64}, 32, false},
		{"asynchronous", engine.Config{Inline: true, WakeUp: engine.Async}, 32, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.Handler = engine.HandlerFunc(func(r engine.Request) { _ = r.Return(1) })
			e, stop := start(t, c.cfg)
			response{
				counter: func(c engine.Counters) uint64 { return c.Gathered },
				want:    c.tries, loads: 60, calls: 25_600, enough: 20_000,
			}.check(t, e, c.targets, func(*child) {})
			checkBalance(t, e)
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}
