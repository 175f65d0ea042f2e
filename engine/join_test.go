package engine_test

import (
	"testing"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/osthread"
)

// TestReceiveThreadJoinsItsTargets: where targets may not run on its CPU the receive thread goes
// to theirs, or tries to if they are many; not where they may come to it, or where it was told to
// be, or how to wake. It comes back when they are gone.
func TestReceiveThreadJoinsItsTargets(t *testing.T) {
	cpus := osthread.Allowed()
	if len(cpus) < 2 {
		t.Skip("with one CPU nobody can be kept off it")
	}
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
			c.cfg.Handler = engine.HandlerFunc(func(r *engine.Request) { _ = r.Return(1) })
			e, stop := start(t, c.cfg)
			loads := 3
			if c.joins {
				loads = 60
			}
			best := 0.0 // calls/s
			for range loads {
				best = max(best, load(t, e, c.targets, 12_800, func(target *child) { target.pinned(t, c.on) }))
				if e.Counters().Joined > 0 {
					break
				}
			}
			joined := e.Counters().Joined
			t.Logf("at most %.0f calls/s", best)
			if c.joins != (joined > 0) {
				t.Errorf("it joined its targets %d times", joined)
			}
			receiverComesTo(t, last)
			if c := e.Counters(); c.Balance() != 0 {
				t.Errorf("%+v", c)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestManyTargetsAreTriedOnOneCPU: where many targets may run on every CPU, inline, it is tried to
// have them come to the receive thread's, not with few or where the wake-up mode is given.
func TestManyTargetsAreTriedOnOneCPU(t *testing.T) {
	if len(osthread.Allowed()) < 2 {
		t.Skip("with one CPU all are on it")
	}
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
			c.cfg.Handler = engine.HandlerFunc(func(r *engine.Request) { _ = r.Return(1) })
			e, stop := start(t, c.cfg)
			loads := 3
			if c.tries {
				loads = 60
			}
			best := 0.0 // calls/s
			for range loads {
				best = max(best, load(t, e, c.targets, 25_600, func(*child) {}))
				if e.Counters().Gathered > 0 {
					break
				}
			}
			gathered := e.Counters().Gathered
			t.Logf("at most %.0f calls/s", best)
			switch {
			case !c.tries && gathered != 0:
				t.Errorf("they were gathered %d times", gathered)
			case c.tries && gathered == 0 && best < 20_000:
				t.Skipf("at most %.0f calls/s: too few for a trial", best)
			case c.tries && gathered == 0:
				t.Errorf("it was not tried at %.0f calls/s", best)
			}
			if c := e.Counters(); c.Balance() != 0 {
				t.Errorf("%+v", c)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}
