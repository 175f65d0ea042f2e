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
				Handler: engine.HandlerFunc(func(r engine.Request) { _ = r.Return(1) }),
			})
			response{
				counter: func(c engine.Counters) uint64 { return c.Lulls },
				want:    c.lulls, loads: 40, calls: 64_000, enough: 20_000,
			}.check(t, e, c.targets, func(*child) {})
			checkBalance(t, e)
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}
