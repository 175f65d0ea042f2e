package engine

import "testing"

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

func TestCensus(t *testing.T) {
	for _, c := range []struct {
		threads       int
		inline, queue bool
	}{{1, false, false}, {4, false, false}, {8, false, false}, {16, true, true}, {24, true, true}, {64, true, true}, {256, false, true}, {1024, false, true}} {
		for _, multitudes := range []bool{false, true} {
			var s census
			agreed, last := 0, false
			for i := range 10 * wide {
				if crowd, ok := s.count(uint32(1000+i%c.threads), multitudes); ok {
					agreed, last = agreed+1, crowd
				}
			}
			want := c.inline
			if multitudes {
				want = c.queue
			}
			if agreed == 0 || last != want {
				t.Errorf("%d targets, multitudes %t: %t, %d times, want %t", c.threads, multitudes, last, agreed, want)
			}
		}
	}
}
