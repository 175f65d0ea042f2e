package engine

import (
	"context"
	"sync/atomic"
	"testing"
	"time"
)

// A worker does not leave a request to which another goroutine of the handler's, or the
// deadline, is just sending the answer, nor while somebody copies from it: they look at the slot.
func TestFinishWaitsForWhoLooksAtTheSlot(t *testing.T) {
	for name, phase := range map[string]uint64{"answering": answering, "late": late, "reading": answered} {
		t.Run(name, func(t *testing.T) {
			e, err := New(Config{Handler: HandlerFunc(func(Request) {}), Inline: true})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				_ = e.Run(ctx) // closes it
			}()
			w := e.receivers.all()[0].crew.all()[0]
			s := &w.req
			s.seq = 7<<phaseBits | running
			s.state.Store(s.seq - running + phase)
			r := Request{s, s.seq}
			if phase == answered && !r.hold() {
				t.Fatal("the request is spent while its handler runs")
			}
			var gone atomic.Bool
			go func() {
				time.Sleep(20 * time.Millisecond)
				gone.Store(true)
				if phase == answered {
					r.release()
				} else {
					s.state.Store(s.seq - running + answered)
				}
			}()
			if !w.finish() || !gone.Load() {
				t.Error("the worker went on")
			}
			if !r.spent() || r.hold() {
				t.Error("the request is not spent")
			}
		})
	}
}
