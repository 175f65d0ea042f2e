package engine_test

import (
	"runtime"
	"testing"

	"github.com/unknot/unknot/engine"
)

// Nothing is allocated for a notification: what a long storm allocates is what
// the engine does once, or once in a while, whatever the number of calls.
func TestNoAllocationsPerNotification(t *testing.T) {
	const threads, calls = 4, 2000
	for name, cfg := range paths(engine.HandlerFunc(func(r *engine.Request) { _ = r.Return(1) })) {
		t.Run(name, func(t *testing.T) {
			e, stop := start(t, cfg)
			c := startTarget(t, threads, calls)
			mustAdd(t, e, c)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			c.release()
			if r := c.results(); r.OK != threads*calls {
				t.Errorf("target saw %+v", r)
			}
			runtime.ReadMemStats(&after)
			if n := after.Mallocs - before.Mallocs; n > threads*calls/20 {
				t.Errorf("%d allocations for %d notifications", n, threads*calls)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}
