package engine_test

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

func mustAddWith(t *testing.T, e *engine.Engine, c *child, o engine.SourceOptions) *engine.Source {
	t.Helper()
	s, err := e.AddWith(c.l, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// await waits until something is so.
func await(t testing.TB, is func() bool) {
	t.Helper()
	for end := time.Now().Add(testDeadline); !is(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("it never is")
		}
	}
}

// TestOptionsHoldFromTheFirstCall: each listener's calls reach its own handler, with its tag.
func TestOptionsHoldFromTheFirstCall(t *testing.T) {
	for name, cfg := range paths(nil) {
		t.Run(name, func(t *testing.T) {
			cfg.Receivers = 1
			cfg.Handler = engine.HandlerFunc(func(r engine.Request) {
				if r.Source().Tag() != nil {
					t.Errorf("the engine's handler has %v", r.Source().Tag())
				}
				_ = r.Return(1)
			})
			e, stop := start(t, cfg)
			<-e.Ready()
			var all []*child
			for i := range 3 {
				c := startTarget(t, 2, 100)
				o := engine.SourceOptions{}
				if i > 0 {
					o.Tag = i
					o.Handler = engine.HandlerFunc(func(r engine.Request) {
						if tag := r.Source().Tag(); tag != i {
							t.Errorf("listener %d has tag %v", i, tag)
						}
						_ = r.Return(int64(10 * i))
					})
				}
				c.release() // its calls wait there already
				mustAddWith(t, e, c, o)
				all = append(all, c)
			}
			for i, c := range all {
				if r := c.results(); r.Values[int64(max(1, 10*i))] != 200 {
					t.Errorf("target %d saw %+v", i, r)
				}
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			checkBalance(t, e)
		})
	}
}

// TestInlineListenerAmongQueuedOnes: its handler runs on the receive thread, the others' on workers.
func TestInlineListenerAmongQueuedOnes(t *testing.T) {
	var receive atomic.Int64
	where := func(inline bool) engine.Handler {
		return engine.HandlerFunc(func(r engine.Request) {
			if on := int64(unix.Gettid()) == receive.Load(); on != inline {
				t.Errorf("on the receive thread: %v, want %v", on, inline)
			}
			if r.Data().Args[0] == 7 {
				return // by default
			}
			_ = r.Return(1)
		})
	}
	e, stop := start(t, engine.Config{Handler: where(false), Workers: 2, Receivers: 1, DefaultErrno: unix.EPERM})
	<-e.Ready()
	receive.Store(int64(e.Debug().Receivers[0].TID))
	queued, inline := startTarget(t, 4, 200), startTarget(t, 4, 200)
	q := mustAdd(t, e, queued)
	i := mustAddWith(t, e, inline, engine.SourceOptions{Inline: true, Handler: where(true)})
	queued.release()
	inline.release()
	for _, c := range []*child{queued, inline} {
		if r := c.results(); r.OK != 799 || r.errno(unix.EPERM) != 1 {
			t.Errorf("target saw %+v", r)
		}
	}
	if !i.Options().Inline || q.Options().Inline || i.HighWater() != 0 || q.HighWater() < 1 || q.HighWater() > 4 {
		t.Errorf("options %+v and %+v, high water %d and %d", i.Options(), q.Options(), i.HighWater(), q.HighWater())
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if got := checkBalance(t, e); got.Answered != 1600 {
		t.Errorf("counters: %+v", got)
	}
}

// TestStopLeavesAnInlineHandlerAmongQueuedOnes: Run returns, and every call has its answer.
func TestStopLeavesAnInlineHandlerAmongQueuedOnes(t *testing.T) {
	release, entered := make(chan struct{}), make(chan struct{}, 2)
	h := engine.HandlerFunc(func(r engine.Request) {
		entered <- struct{}{}
		<-release
		if err := r.Return(1); !errors.Is(err, engine.ErrAnswered) {
			t.Errorf("after the stop: %v", err)
		}
	})
	defer close(release)
	e, stop := start(t, engine.Config{Handler: h, Workers: 1, Receivers: 1, StopTimeout: 20 * time.Millisecond})
	queued, inline := startTarget(t, 3, 1), startTarget(t, 1, 1)
	mustAdd(t, e, queued)
	queued.release()
	<-entered
	await(t, func() bool { return e.Counters().Queued == 2 })
	mustAddWith(t, e, inline, engine.SourceOptions{Inline: true})
	inline.release()
	<-entered
	if err := stop(); !errors.Is(err, engine.ErrStopTimeout) {
		t.Errorf("stop: %v", err)
	}
	if r := queued.results(); r.errno(unix.EINTR) != 2 || r.errno(unix.ENOSYS) != 1 {
		t.Errorf("queued target saw %+v", r)
	}
	if r := inline.results(); r.errno(unix.ENOSYS) != 1 {
		t.Errorf("inline target saw %+v", r)
	}
	if c := e.Counters(); c.Balance() != 0 || c.Late != 2 || c.Dropped != 2 {
		t.Errorf("counters: %+v", c)
	}
}

// TestOneListenerLeavesAWorker: with all workers at the calls of one listener that another one's would have had
// to wait for; and its own calls wait in its ring, for no more than there may be at once.
func TestOneListenerLeavesAWorker(t *testing.T) {
	for _, c := range []struct {
		name    string
		workers int
		o       engine.SourceOptions
		want    int64 // in handlers at once
	}{
		{"default", 3, engine.SourceOptions{}, 2},
		{"default, two workers", 2, engine.SourceOptions{}, 1},
		{"as asked", 4, engine.SourceOptions{MaxInHandlers: 2}, 2},
	} {
		for _, kind := range []engine.WorkerKind{engine.ThreadWorkers, engine.GoroutineWorkers} {
			t.Run(c.name, func(t *testing.T) {
				release := make(chan struct{})
				var in atomic.Int64
				o := c.o
				o.Handler = engine.HandlerFunc(func(r engine.Request) {
					if n := in.Add(1); n > c.want {
						t.Errorf("%d in handlers, want %d at most", n, c.want)
					}
					<-release
					in.Add(-1)
					_ = r.Return(2)
				})
				e, stop := start(t, engine.Config{Handler: engine.HandlerFunc(returnsOne), Workers: c.workers, Receivers: 1, Kind: kind})
				slow, quick := startTarget(t, 8, 2), startTarget(t, 4, 100)
				q := mustAdd(t, e, quick)
				mustAdd(t, e, startTarget(t, 1, 1)) // which stays
				s := mustAddWith(t, e, slow, o)
				slow.release()
				await(t, func() bool { return s.Counters().Queued == uint64(8-c.want) && in.Load() == c.want })
				if got := s.Counters(); got.InHandlers != uint64(c.want) || got.Queued != uint64(8-c.want) || got.Balance() != 0 {
					t.Errorf("counters: %+v", got)
				}
				quick.release()
				if r := quick.results(); r.Values[1] != 400 {
					t.Errorf("quick target saw %+v", r)
				}
				if got := q.Counters(); got.Received != 400 || got.Answered != 400 || got.Balance() != 0 {
					t.Errorf("counters: %+v", got)
				}
				close(release)
				if r := slow.results(); r.Values[2] != 16 {
					t.Errorf("slow target saw %+v", r)
				}
				if err := stop(); err != nil {
					t.Error(err)
				}
				checkBalance(t, e)
			})
		}
	}
}

// TestShareOfALoneListener: all workers, until there is another one.
func TestShareOfALoneListener(t *testing.T) {
	release := make(chan struct{})
	var in atomic.Int64
	e, stop := start(t, engine.Config{Workers: 2, Receivers: 1, Handler: engine.HandlerFunc(func(r engine.Request) {
		in.Add(1)
		<-release
		_ = r.Return(1)
	})})
	c := startTarget(t, 4, 1)
	s := mustAdd(t, e, c)
	c.release()
	await(t, func() bool { return in.Load() == 2 })
	other := startTarget(t, 1, 1)
	mustAdd(t, e, other)
	release <- struct{}{} // a worker is free, and may not be at the first's calls
	await(t, func() bool { return s.Counters().Answered == 1 })
	other.release()
	await(t, func() bool { return in.Load() == 3 })
	if got := s.Counters(); got.InHandlers != 1 || got.Answered != 1 {
		t.Errorf("counters: %+v", got)
	}
	close(release)
	c.results()
	other.results()
	if err := stop(); err != nil {
		t.Error(err)
	}
	checkBalance(t, e)
}

// TestLateAndDetachedGiveTheirShareBack: a listener goes on although its handlers do not return.
func TestLateAndDetachedGiveTheirShareBack(t *testing.T) {
	for _, late := range []bool{true, false} {
		release := make(chan struct{})
		cfg := engine.Config{Workers: 2, Receivers: 1, DefaultErrno: unix.EPERM}
		limits, err := engine.NewLimits(5*time.Millisecond, unix.EPERM) // of those alone that shall be late
		if err != nil {
			t.Fatal(err)
		}
		cfg.Handler = engine.HandlerFunc(func(r engine.Request) {
			switch {
			case r.Data().Args[0]%2 == 0:
				_ = r.Return(1)
			case late:
				r.Limit(limits)
				<-release
			default:
				p := r.Detach()
				go func() { <-release; _ = p.Fail(unix.EPERM) }()
			}
		})
		e, stop := start(t, cfg)
		threads := 2
		if !late {
			threads = 8
		}
		c := startTarget(t, threads, 4)
		s := mustAddWith(t, e, c, engine.SourceOptions{MaxInHandlers: 1})
		c.release()
		if !late {
			await(t, func() bool { return s.Counters().Detached == 4 && s.Counters().Answered == 16 })
			close(release)
		}
		if r := c.results(); r.Values[1] != 2*threads || r.errno(unix.EPERM) != 2*threads {
			t.Errorf("late %v: target saw %+v", late, r)
		}
		if late {
			close(release)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if got := checkBalance(t, e); late && got.Late == 0 {
			t.Errorf("counters: %+v", got)
		}
		if got := s.Counters(); got.Balance() != 0 || got.Detached+got.InHandlers != 0 {
			t.Errorf("late %v: the listener's counters: %+v", late, got)
		}
	}
}

// TestBadSourceOptions: each is refused by name, and the listener stays the caller's.
func TestBadSourceOptions(t *testing.T) {
	e, stop := start(t, engine.Config{Handler: engine.HandlerFunc(returnsOne), LowWatermark: 32})
	c := startTarget(t, 1, 1)
	for want, o := range map[string]engine.SourceOptions{
		"queue of -1":      {Queue: -1},
		"queue of 1048577": {Queue: engine.MaxQueue + 1},
		"at most":          {MaxInHandlers: -1},
		"low":              {Queue: 4},
	} {
		if _, err := e.AddWith(c.l, o); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "listener") {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if n := len(e.Sources()); n != 0 {
		t.Errorf("%d listeners", n)
	}
	s := mustAdd(t, e, c)
	if all := e.Sources(); !slices.Equal(all, []*engine.Source{s}) {
		t.Errorf("listeners: %v", all)
	}
	c.release()
	c.results()
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestListenersOwnFigures: counters, histograms and errnos of each, and in all.
func TestListenersOwnFigures(t *testing.T) {
	for name, cfg := range paths(nil) {
		t.Run(name, func(t *testing.T) {
			cfg.BySource, cfg.BySyscall = true, true
			cfg.DefaultErrno = 4000
			cfg.Handler = engine.HandlerFunc(func(r engine.Request) {
				switch r.Data().Args[0] % 4 {
				case 0:
					_ = r.Fail(unix.EACCES)
				case 1:
					_ = r.Fail(unix.EPERM)
				case 2: // by default
				default:
					_ = r.Return(1)
				}
			})
			e, stop := start(t, cfg)
			a, b := startTarget(t, 4, 100), startTarget(t, 4, 50)
			sa, sb := mustAdd(t, e, a), mustAdd(t, e, b)
			for _, c := range []*child{a, b} {
				c.release()
			}
			for _, c := range []*child{a, b} {
				c.results()
			}
			<-sa.Done()
			<-sb.Done()
			for s, n := range map[*engine.Source]uint64{sa: 400, sb: 200} {
				if c := s.Counters(); c.Received != n || c.Answered != n || c.Balance() != 0 {
					t.Errorf("counters: %+v", c)
				}
				if l := s.Latencies(); l.Wait.Count != n || l.Service.Count != n || l.Answer.Count != n || l.Drop.Count != 0 {
					t.Errorf("%d waits, %d services, %d answers, %d drops", l.Wait.Count, l.Service.Count, l.Answer.Count, l.Drop.Count)
				}
				if m := s.Errnos(); m[unix.EACCES] != n/4 || m[unix.EPERM] != n/4 || m[engine.OtherErrnos] != n/4 || len(m) != 3 {
					t.Errorf("errnos: %v", m)
				}
			}
			if m := e.Errnos(); m[unix.EACCES] != 150 || m[unix.EPERM] != 150 || m[engine.OtherErrnos] != 150 || len(m) != 3 {
				t.Errorf("errnos in all: %v", m)
			}
			if st := e.Syscalls(); len(st) != 1 || st[0].Service.Count != 600 || st[0].Service.Max == 0 {
				t.Errorf("by system call: %+v", st)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
	e, _ := start(t, engine.Config{Handler: engine.HandlerFunc(returnsOne)})
	c := startTarget(t, 1, 1)
	s := mustAdd(t, e, c)
	if l := s.Latencies(); l.Wait != nil || s.Errnos() != nil {
		t.Error("figures that nobody asked for")
	}
	c.release()
	c.results()
}

// TestDropsByErrno: what overload answers is among the errnos, of the listener too.
func TestDropsByErrno(t *testing.T) {
	e, stop := start(t, engine.Config{BySource: true, Queue: 64, Workers: 1, Handler: engine.HandlerFunc(func(r engine.Request) {
		for end := time.Now().Add(50 * time.Microsecond); time.Now().Before(end); {
		}
		_ = r.Return(1)
	})})
	c := startTarget(t, 64, 50)
	s := mustAddWith(t, e, c, engine.SourceOptions{Queue: 8})
	c.release()
	r := c.results()
	if err := stop(); err != nil {
		t.Error(err)
	}
	got := checkBalance(t, e)
	if got.Dropped == 0 {
		t.Error("no drops: the test shows nothing")
	}
	if m := s.Errnos(); m[unix.EINTR] != got.Dropped || uint64(r.errno(unix.EINTR)) != got.Dropped {
		t.Errorf("%v of %+v", m, got)
	}
	own := s.Counters()
	if own.Overflowed != got.Overflowed || own.Dropped != got.Dropped || own.Answered != got.Answered || own.Balance() != 0 || own.Held != 0 || s.Latencies().Drop.Count != got.Dropped {
		t.Errorf("the listener's %+v, the engine's %+v", own, got)
	}
	if s.HighWater() != 8 {
		t.Errorf("high water %d in a ring of 8", s.HighWater())
	}
}

// TestLogOfListeners: a line for each that comes or goes, with its tag.
func TestLogOfListeners(t *testing.T) {
	var log syncBuffer
	e, stop := start(t, engine.Config{Handler: engine.HandlerFunc(returnsOne), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	hangs, removed, released := startTarget(t, 1, 1), startTarget(t, 1, 1), startTarget(t, 1, 1)
	h := mustAddWith(t, e, hangs, engine.SourceOptions{Tag: "web"})
	m := mustAddWith(t, e, removed, engine.SourceOptions{Tag: "db"})
	r := mustAdd(t, e, released)
	hangs.release()
	hangs.results()
	<-h.Done()
	if err := e.Remove(t.Context(), m); err != nil {
		t.Error(err)
	}
	l, err := e.Release(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	removed.release()
	removed.results()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if n := e.Counters(); n.Added != 3 || n.HungUp != 1 {
		t.Errorf("%d listeners came, %d hung up; want 3 and 1", n.Added, n.HungUp)
	}
	for _, want := range []string{
		`msg="listener added" listener=`, `tag=web receiver=`, `msg="listener hangs up, no target is left" listener=`,
		`msg="listener removed" listener=`, ` tag=web received=1 answered=1 dropped=0`, ` tag=db received=0`,
		`msg="listener released" listener=`,
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %q in\n%s", want, log.String())
		}
	}
}

// TestReadyIsForThreadsThatAreUp: not before Run, and not where the hook fails.
func TestReadyIsForThreadsThatAreUp(t *testing.T) {
	var hooked atomic.Bool
	e, err := engine.New(engine.Config{Handler: engine.HandlerFunc(returnsOne), ThreadHook: func(engine.Thread) error {
		hooked.Store(true)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-e.Ready():
		t.Error("ready before Run")
	default:
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	osthread.Start(func() { done <- e.Run(ctx) })
	<-e.Ready()
	if !hooked.Load() {
		t.Error("ready before the hook has run")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	bad, err := engine.New(engine.Config{Handler: engine.HandlerFunc(returnsOne), ThreadHook: func(engine.Thread) error { return unix.EPERM }})
	if err != nil {
		t.Fatal(err)
	}
	if err := bad.Run(t.Context()); !errors.Is(err, unix.EPERM) {
		t.Errorf("Run: %v", err)
	}
	select {
	case <-bad.Ready():
		t.Error("ready although the hook failed")
	default:
	}
}
