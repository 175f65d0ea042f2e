package engine

import (
	"context"
	"testing"
	"time"
)

func TestWorkersAskWhereItIsWorthIt(t *testing.T) {
	for _, c := range []struct {
		after           time.Duration // Config.CheckAfter
		waited, handler time.Duration
		want            bool
	}{
		{0, 2 * time.Millisecond, time.Microsecond, false},
		{0, 2 * time.Millisecond, 50 * time.Microsecond, true},
		{0, 10 * time.Microsecond, 50 * time.Microsecond, false},
		{AlwaysCheck, 0, 0, true},
		{100 * time.Microsecond, 200 * time.Microsecond, 0, true},
		{100 * time.Microsecond, 50 * time.Microsecond, 50 * time.Microsecond, false},
	} {
		cfg := Config{Handler: HandlerFunc(func(Request) {}), CheckAfter: c.after}
		e, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		w := e.receivers.all()[0].crew.all()[1]
		w.typical.Store(int64(c.handler))
		w.taken = 1
		if got := w.checks(int64(c.waited)); got != c.want {
			t.Errorf("%+v: asks: %v", c, got)
		}
		w.taken = sampleChecks
		if !w.checks(0) {
			t.Errorf("%+v: one call in %d is not asked for", c, sampleChecks)
		}
		over, cancel := context.WithCancel(t.Context())
		cancel()
		if err := e.Run(over); err != nil {
			t.Error(err)
		}
	}
}
