package engine

import (
	"testing"
	"time"
)

// A lulled load is a load of calls 4 µs apart, factor times that after a lull.
type lulledLoad struct {
	l  lulls
	at int64
}

// run has the load for a time and returns the share of the batches, in the second half, that
// ended with a lull.
func (x *lulledLoad) run(t *testing.T, d time.Duration, crowd bool, factor float64) float64 {
	t.Helper()
	lulled, looks, yes := false, 0, 0
	for began := x.at; x.at-began < int64(d); {
		step := 4000.0 // ns
		if lulled {
			step *= factor
		}
		x.at += int64(step)
		due := x.l.called(x.at, crowd)
		if x.l.calls != 0 {
			if due {
				t.Fatal("a lull in the middle of a batch")
			}
			continue
		}
		if lulled = due; x.at-began > int64(d)/2 {
			looks++
			if due {
				yes++
			}
		}
	}
	return float64(yes) / float64(looks)
}

// TestLullsStayWhereTheyHelp: lulls that change what a call takes by a factor.
func TestLullsStayWhereTheyHelp(t *testing.T) {
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
			x := lulledLoad{at: 1e9}
			if share := x.run(t, 20*time.Second, c.crowd, c.factor); share < c.from || share > c.until {
				t.Errorf("after 10 s, lulls in %.2f of the batches, want %.2f to %.2f", share, c.from, c.until)
			}
		})
	}
}

// TestLullsFollowTheLoad: a verdict does not outlive what it was about.
func TestLullsFollowTheLoad(t *testing.T) {
	x := lulledLoad{at: 1e9}
	if share := x.run(t, 10*time.Second, true, 0.8); share < 0.9 {
		t.Errorf("lulls that help: in %.2f of the batches", share)
	}
	if share := x.run(t, 20*time.Second, true, 1.2); share > 0.1 {
		t.Errorf("when they no longer help: in %.2f of the batches", share)
	}
	if share := x.run(t, 10*time.Second, true, 0.8); share < 0.9 {
		t.Errorf("when they help again: in %.2f of the batches", share)
	}
	if share := x.run(t, time.Second, false, 0.8); share != 0 {
		t.Errorf("once the crowd is gone: in %.2f of the batches", share)
	}
	// Calls that the receive thread waits for need none.
	x.l = lulls{}
	for range 1000 * lullCalls {
		if x.at += int64(time.Millisecond); x.l.called(x.at, true) {
			t.Fatal("1,000 calls a second made it lull")
		}
	}
	// A trial that silence interrupts says nothing: silence is not the lulls' doing.
	x.l = lulls{}
	for range 100 {
		x.run(t, 50*time.Millisecond, true, 1)
		x.at += int64(time.Second)
	}
	if x.l.on {
		t.Error("silences made it lull")
	}
}
