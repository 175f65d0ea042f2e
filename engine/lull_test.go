package engine

import (
	"testing"
	"time"
)

// TestLullsStayWhereTheyHelp: lulls that change what a call takes by a factor.
func TestLullsStayWhereTheyHelp(t *testing.T) {
	const perCall = 4 * time.Microsecond
	for _, c := range []struct {
		name        string
		crowd       bool
		factor      float64
		from, until float64 // the share of calls' batches that end with a lull, at the end
	}{
		{"faster with lulls", true, 0.85, 0.9, 1},
		{"slower with lulls", true, 1.1, 0, 0.1},
		{"a little faster", true, 0.99, 0, 0.1},
		{"few targets", false, 0.5, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var l lulls
			at, lulled := int64(1e9), false
			looks, yes := 0, 0
			for began := at; at-began < int64(20*time.Second); {
				d := float64(perCall)
				if lulled {
					d *= c.factor
				}
				at += int64(d)
				due := l.called(at, c.crowd)
				if l.calls == 0 {
					lulled = due
					if at-began > int64(10*time.Second) {
						looks++
						if due {
							yes++
						}
					}
				} else if due {
					t.Fatal("a lull in the middle of a batch")
				}
			}
			if share := float64(yes) / float64(looks); share < c.from || share > c.until {
				t.Errorf("after 10 s, lulls in %.2f of the batches, want %.2f to %.2f", share, c.from, c.until)
			}
		})
	}
}

// TestLullsFollowTheLoad: a verdict does not outlive what it was about.
func TestLullsFollowTheLoad(t *testing.T) {
	var l lulls
	at := int64(1e9)
	// run has the load for a time and returns the share of lulls in the second half.
	run := func(d time.Duration, crowd bool, factor float64) float64 {
		lulled, looks, yes := false, 0, 0
		for began := at; at-began < int64(d); {
			step := 4000.0
			if lulled {
				step *= factor
			}
			at += int64(step)
			due := l.called(at, crowd)
			if l.calls != 0 {
				continue
			}
			if lulled = due; at-began > int64(d)/2 {
				looks++
				if due {
					yes++
				}
			}
		}
		return float64(yes) / float64(looks)
	}
	if share := run(10*time.Second, true, 0.8); share < 0.9 {
		t.Errorf("lulls that help: in %.2f of the batches", share)
	}
	if share := run(20*time.Second, true, 1.2); share > 0.1 {
		t.Errorf("when they no longer help: in %.2f of the batches", share)
	}
	if share := run(10*time.Second, true, 0.8); share < 0.9 {
		t.Errorf("when they help again: in %.2f of the batches", share)
	}
	if share := run(time.Second, false, 0.8); share != 0 {
		t.Errorf("once the crowd is gone: in %.2f of the batches", share)
	}
	// Calls that the receive thread waits for need none.
	l = lulls{}
	for range 1000 * lullCalls {
		if at += int64(time.Millisecond); l.called(at, true) {
			t.Fatal("1,000 calls a second made it lull")
		}
	}
	// A trial that silence interrupts says nothing: silence is not the lulls' doing.
	l = lulls{}
	for range 100 {
		run(50*time.Millisecond, true, 1)
		at += int64(time.Second)
	}
	if l.on {
		t.Error("silences made it lull")
	}
}
