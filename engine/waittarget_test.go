package engine_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"golang.org/x/sys/unix"
)

// TestWaitTargetBoundsTheDepth of a listener with slow handlers, and says of another one, whose handlers take longer than
// its target, that no depth will do.
func TestWaitTargetBoundsTheDepth(t *testing.T) {
	const service = 2 * time.Millisecond
	var log syncBuffer
	e, stop := start(t, engine.Config{
		Handler: engine.HandlerFunc(func(r engine.Request) {
			ts := unix.NsecToTimespec(int64(service))
			for unix.Nanosleep(&ts, &ts) == unix.EINTR {
			}
			_ = r.Return(1)
		}),
		Workers: 2, WaitTarget: 10 * time.Millisecond, Receivers: 1, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	c, d := startTarget(t, 24, 60), startTarget(t, 24, 60)
	s := mustAdd(t, e, c)
	hopeless := mustAddWith(t, e, d, engine.SourceOptions{WaitTarget: time.Millisecond})
	if l := s.Limit(); l.Changes != 0 || l.Service != 0 || s.Options().Queue != engine.DefaultTargetQueue {
		t.Errorf("before any call: %+v, queue %d", l, s.Options().Queue)
	}
	c.release()
	d.release()
	// No handler is faster, so neither is the listener; how it shares the workers with the other one is up to them.
	const most = 2*10/2 + 2
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(testDeadline); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: %+v and %+v", what, s.Limit(), hopeless.Limit())
			}
		}
	}
	until("the depth is not bounded", func() bool { l := s.Limit(); return l.Changes > 0 && l.Depth >= 2 && l.Depth <= most })
	until("the other one's is not at its floor", func() bool { return hopeless.Limit().Depth == 2 })
	until("nothing is said of a target that cannot be met", func() bool { return strings.Contains(log.String(), "no depth of the queue can meet the wait target") })
	c.results()
	d.results()
	if err := stop(); err != nil {
		t.Error(err)
	}
	checkBalance(t, e)
	if n := s.Counters(); n.Dropped == 0 || n.Answered == 0 {
		t.Errorf("%+v", n)
	}
}
