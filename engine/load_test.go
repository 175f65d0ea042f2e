package engine

import (
	"math"
	"testing"
	"time"
)

func TestWakeUpFollowsTheTargets(t *testing.T) {
	// modes feeds windows of calls by n threads with ids from 1000 on and
	// returns the last decision.
	run := func(s *estimator, n, windows int) (mode WakeUp) {
		mode = AutoWakeUp
		for i := range windows * window {
			if m, full := s.count(uint32(1000 + i%n)); full {
				mode = m
			}
		}
		return mode
	}
	for _, c := range []struct {
		threads int
		want    WakeUp
	}{{1, Sync}, {2, Sync}, {4, Sync}, {16, Async}, {64, Async}, {1024, Async}} {
		var s estimator
		if got := run(&s, c.threads, agreement-1); got != AutoWakeUp {
			t.Errorf("%d targets: decided after %d windows: %v", c.threads, agreement-1, got)
		}
		if got := run(&s, c.threads, 1); got != c.want {
			t.Errorf("%d targets: %v, want %v", c.threads, got, c.want)
		}
	}
	// One odd window does not turn it over.
	var s estimator
	run(&s, 1, 10)
	if got := run(&s, 64, 1); got != AutoWakeUp {
		t.Errorf("after one window of many: %v", got)
	}
}

// TestCensus: what the receive thread concludes from how many targets call, and how fast.
func TestCensus(t *testing.T) {
	for _, c := range []struct {
		threads             int
		gap                 time.Duration
		inline, queue, pair bool
	}{
		{1, 5 * time.Microsecond, false, false, false},
		{4, 5 * time.Microsecond, false, false, false},
		{8, 5 * time.Microsecond, false, false, false},
		{16, 5 * time.Microsecond, true, true, true},
		{16, 15 * time.Microsecond, true, true, true},
		{16, 40 * time.Microsecond, true, true, false},
		{64, 5 * time.Microsecond, true, true, true},
		{256, 5 * time.Microsecond, false, true, false},
		{1024, 5 * time.Microsecond, false, true, false},
	} {
		for _, inline := range []bool{false, true} {
			e := &Engine{cfg: Config{Inline: inline, RaisePriority: true, Workers: 2}, asks: make(chan struct{}, 1)}
			e.workers.Store(&[]*worker{{}})
			e.crowded.Store(!c.queue || inline && !c.inline) // it must turn over
			if !c.pair {
				e.pairUntil.Store(math.MaxInt64)
			}
			rx := &receiver{e: e, crowds: true}
			for i := range 10 * wide {
				rx.crowd(uint32(1000+i%c.threads), int64(c.gap)*int64(i))
			}
			want := c.queue
			if inline {
				want = c.inline
			}
			if got := e.crowded.Load(); got != want {
				t.Errorf("%+v, inline %t: a crowd: %t, want %t", c, inline, got, want)
			}
			if got := e.pairUntil.Load() > int64(c.gap)*10*wide; got != c.pair {
				t.Errorf("%+v: a pair: %t, want %t", c, got, c.pair)
			}
		}
	}
}

// TestBench: workers beyond the last that is up sit, until they are called.
func TestBench(t *testing.T) {
	var e Engine
	e.bench.init()
	if e.arrange(pair, alone, 1) || !e.arrange(everybody, alone, 1) || e.placement.Load() != 1 {
		t.Fatal("not from everybody to alone")
	}
	stood := make(chan int, 3)
	for i := 1; i <= 3; i++ {
		go func() { e.bench.sit(i); stood <- i }()
	}
	next := func(want int) {
		t.Helper()
		select {
		case i := <-stood:
			if i != want {
				t.Fatalf("worker %d is up, want %d", i, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("worker %d sits", want)
		}
	}
	next(1)
	if !e.arrange(alone, pair, anywhere) || e.placement.Load() != anywhere {
		t.Fatal("not from alone to the pair")
	}
	next(2)
	select {
	case i := <-stood:
		t.Fatalf("worker %d is up", i)
	case <-time.After(10 * time.Millisecond):
	}
	e.arrange(pair, alone, 1)
	e.bench.end()
	next(3)
	if e.arrange(whatever, alone, 1) {
		t.Error("somebody shall sit after the end")
	}
	e.bench.sit(7)
}
