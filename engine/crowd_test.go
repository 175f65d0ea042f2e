package engine_test

import (
	"testing"

	"github.com/unknot/unknot/engine"
)

// TestCrowdIsTriedWithLulls: under a crowd of targets that call all the time the receive thread
// tries whether sleeping now and then gets more done; under fewer it does not, and no call is lost.
func TestCrowdIsTriedWithLulls(t *testing.T) {
	for _, c := range []struct {
		name    string
		inline  bool
		targets int
		lulls   bool
	}{
		{"inline, a crowd", true, 256, true},
		{"queue, a crowd", false, 256, true},
		{"inline, some", true, 64, false},
		{"queue, some", false, 64, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, stop := start(t, engine.Config{
				Inline: c.inline, Workers: 2, Queue: 512, Placement: engine.Near,
				WakeUp:  engine.Async, // or other trials come first
				Handler: engine.HandlerFunc(func(r *engine.Request) { _ = r.Return(1) }),
			})
			best := 0.0 // calls/s
			loads := 2
			if c.lulls {
				loads = 40
			}
			for range loads {
				best = max(best, load(t, e, c.targets, 64_000, func(*child) {}))
				if e.Counters().Lulls > 0 {
					break
				}
			}
			lulls := e.Counters().Lulls
			t.Logf("at most %.0f calls/s, %d lulls", best, lulls)
			switch {
			case !c.lulls && lulls != 0:
				t.Errorf("%d lulls", lulls)
			case c.lulls && lulls == 0 && best < 20_000:
				t.Skipf("at most %.0f calls/s: too few to count as a crowd", best)
			case c.lulls && lulls == 0:
				t.Errorf("none was tried at %.0f calls/s", best)
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
