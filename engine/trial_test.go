package engine

import (
	"testing"
	"time"
)

// A tried load is a load of calls 4 µs apart, factor times that with what is tried.
type triedLoad struct {
	kind *trialKind
	l    trial
	with bool
	at   int64
}

// run has the load for a time and returns the share of the batches, in the second half, that
// were with it. Without a crowd there is nothing to be tried.
func (x *triedLoad) run(d time.Duration, crowd bool, factor float64) float64 {
	looks, yes := 0, 0
	for began := x.at; x.at-began < int64(d); {
		step := 4000.0 * trialCalls // ns
		if x.with {
			step *= factor
		}
		x.at += int64(step)
		if crowd {
			x.with = x.l.batch(x.kind, x.at, true)
		} else {
			x.l = trial{last: x.at}
			x.with = false
		}
		if x.at-began > int64(d)/2 {
			looks++
			if x.with {
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
			x := triedLoad{kind: &lulls, at: 1e9}
			if share := x.run(20*time.Second, c.crowd, c.factor); share < c.from || share > c.until {
				t.Errorf("after 10 s, lulls in %.2f of the batches, want %.2f to %.2f", share, c.from, c.until)
			}
		})
	}
}

// TestLullsFollowTheLoad: a verdict does not outlive what it was about.
func TestLullsFollowTheLoad(t *testing.T) {
	x := triedLoad{kind: &lulls, at: 1e9}
	if share := x.run(10*time.Second, true, 0.8); share < 0.9 {
		t.Errorf("lulls that help: in %.2f of the batches", share)
	}
	if share := x.run(20*time.Second, true, 1.2); share > 0.1 {
		t.Errorf("when they no longer help: in %.2f of the batches", share)
	}
	if share := x.run(10*time.Second, true, 0.8); share < 0.9 {
		t.Errorf("when they help again: in %.2f of the batches", share)
	}
	if share := x.run(time.Second, false, 0.8); share != 0 {
		t.Errorf("once the crowd is gone: in %.2f of the batches", share)
	}
	// Calls that the receive thread waits for need none.
	x.l = trial{}
	for range 1000 {
		if x.at += trialCalls * int64(time.Millisecond); x.l.batch(&lulls, x.at, true) {
			t.Fatal("1,000 calls a second made it lull")
		}
	}
	// A trial that silence interrupts says nothing: silence is not the lulls' doing.
	x.l = trial{}
	for range 100 {
		x.run(50*time.Millisecond, true, 1)
		x.at += int64(time.Second)
	}
	if x.l.on {
		t.Error("silences made it lull")
	}
}

// TestTargetsAreJoinedWhereItHelps: few also where it makes no difference.
func TestTargetsAreJoinedWhereItHelps(t *testing.T) {
	for _, c := range []struct {
		name        string
		kind        *trialKind
		factor      float64
		from, until float64 // the share of batches together, at the end
	}{
		{"few, faster", &joinsFew, 0.2, 0.9, 1},
		{"few, the same", &joinsFew, 1, 0.9, 1},
		{"few, slower", &joinsFew, 1.3, 0, 0.1},
		{"many, faster", &joinsMany, 0.7, 0.9, 1},
		{"many, the same", &joinsMany, 1, 0, 0.1},
		{"many, slower", &joinsMany, 1.3, 0, 0.1},
		{"a throng, faster", &joinsThrong, 0.7, 0.9, 1},
		{"a throng, a little faster", &joinsThrong, 0.95, 0, 0.1},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := triedLoad{kind: c.kind, at: 1e9}
			if share := x.run(20*time.Second, true, c.factor); share < c.from || share > c.until {
				t.Errorf("together in %.2f of the batches, want %.2f to %.2f", share, c.from, c.until)
			}
			// Calls too rare for a trial.
			for on, i := x.l.on, 0; i < 100; i++ {
				x.at += trialCalls * int64(10*time.Millisecond)
				if x.l.batch(c.kind, x.at, true) != on {
					t.Fatal("rare calls change it")
				}
			}
		})
	}
}

// TestTrialWaitsUntilItIsDone: time in which things are not yet as wanted does not count.
func TestTrialWaitsUntilItIsDone(t *testing.T) {
	l, at := trial{}, int64(1e9)
	for range 10_000 { // 5 s of calls
		at += trialCalls * 4000
		l.batch(&joinsMany, at, !l.with())
	}
	if l.window != 2 || l.from != 0 {
		t.Errorf("it went on to window %d, with %d calls counted", l.window, l.n)
	}
}

// TestTrialThatTriedNothingMayBeginAgain: a silence before the load is done otherwise than it was
// holds up no trial, one after that does.
func TestTrialThatTriedNothingMayBeginAgain(t *testing.T) {
	for window, waits := range []bool{1: false, 2: true} {
		if window == 0 {
			continue
		}
		x := triedLoad{kind: &joinsMany, at: 1e9}
		for x.l.window != window {
			x.run(time.Millisecond, true, 1)
		}
		x.at += int64(time.Second) / 2 // longer than any batch of that kind may take, less than holdFirst
		x.l.batch(x.kind, x.at, true)
		if x.l.window != 0 {
			t.Fatalf("window %d outlived a silence", window)
		}
		x.run(time.Millisecond, true, 1)
		if began := x.l.window != 0; began == waits {
			t.Errorf("broken off in window %d: the next one has begun at once: %v", window, began)
		}
	}
}
