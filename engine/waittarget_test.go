package engine_test

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
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

// behind is the handler of a listener with one caller. It counts the other's calls that began between the receipt of a call,
// on the receive thread, and its handler, however long its target took to make it.
type behind struct {
	starts *atomic.Int64
	work   func()

	mu       sync.Mutex // one call comes after the other, but by way of the kernel
	received int64
	calls    []int64
}

func (b *behind) Inlines(*engine.Source, *notify.Data) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.received = b.starts.Load()
	return false
}

func (b *behind) Handle(r engine.Request) {
	b.mu.Lock()
	b.calls = append(b.calls, b.starts.Load()-b.received)
	b.mu.Unlock()
	b.work()
	_ = r.Return(1)
}

// TestQuietListenerBesideOverload: a listener with one caller beside one of many, whose wait target has its calls dropped, is
// served in turn, behind none of the other's backlog; it loses none.
func TestQuietListenerBesideOverload(t *testing.T) {
	const service, calls = 2 * time.Millisecond, 100
	var loudStarts atomic.Int64
	sleep := func() {
		ts := unix.NsecToTimespec(int64(service))
		for unix.Nanosleep(&ts, &ts) == unix.EINTR {
		}
	}
	e, stop := start(t, engine.Config{
		Handler: engine.HandlerFunc(func(r engine.Request) {
			loudStarts.Add(1)
			sleep()
			_ = r.Return(1)
		}),
		Workers: 2, WaitTarget: 40 * time.Millisecond, Receivers: 1,
	})
	loud, quiet := startTarget(t, 96, 1<<30), startTarget(t, 1, calls)
	over := mustAdd(t, e, loud)
	q := &behind{starts: &loudStarts, work: sleep}
	s := mustAddWith(t, e, quiet, engine.SourceOptions{Handler: q})
	loud.release()
	for end := time.Now().Add(testDeadline); over.Limit().Changes == 0 || over.Counters().Dropped < 100; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no overload: %+v, %+v", over.Limit(), over.Counters())
		}
	}
	quiet.release()
	if r := quiet.results(); r.OK != calls {
		t.Errorf("the quiet target saw %+v", r)
	}
	if n := s.Counters(); n.Dropped != 0 || n.Answered != calls {
		t.Errorf("the quiet listener: %+v", n)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	slices.Sort(q.calls)
	got, depth := q.calls[calls/2], over.Limit().Depth
	t.Logf("a call of the quiet one was behind %d of the other's (median; most %d), whose depth is %d", got, q.calls[calls-1], depth)
	if got > 4 { // each of two workers has one in hand, and may take one more
		t.Errorf("a call of the quiet listener was behind %d of the other's, whose depth is %d", got, depth)
	}
	_ = loud.cmd.Process.Kill()
	if err := stop(); err != nil {
		t.Error(err)
	}
	checkBalance(t, e)
}
