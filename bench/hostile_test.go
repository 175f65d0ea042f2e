package bench

import (
	"errors"
	"testing"
	"time"

	"github.com/unknot/unknot/bench/storm"
	"golang.org/x/sys/unix"
)

// TestHostileTargetsEndAndLoseNothing: whatever befalls the targets while their
// calls are queued, those that live have their answers, the storm ends, and each
// answer that went nowhere has its disturbance.
func TestHostileTargetsEndAndLoseNothing(t *testing.T) {
	for _, kind := range []storm.Hostile{storm.Killed, storm.Signalled, storm.SignalledKillable, storm.Forked, storm.Preempted} {
		t.Run(kind.String(), func(t *testing.T) {
			each(t, func(t *testing.T, engine, path string) {
				if kind != storm.Killed && (engine != "unknot" || path != PathQueue) {
					t.Skip("deaths are for every engine, the rest for where calls wait longest")
				}
				s := spec(engine, path, 16)
				s.Load.Hostile, s.Work = kind, Work{Time: 300 * time.Microsecond, Sleep: true}
				// On a busy machine a storm may be over before the first target is.
				for end := time.Now().Add(testDeadline); time.Now().Before(end); {
					r, err := Once(t.Context(), s, 100*time.Millisecond, false)
					if errors.Is(err, errors.ErrUnsupported) {
						t.Skip(err)
					}
					if err != nil {
						t.Fatal(err)
					}
					checkWhole(t, r)
					stale := r.Whole.Stats.Stale
					if kind == storm.SignalledKillable && stale > 0 {
						t.Errorf("%d received calls were interrupted", stale)
					}
					// One path has calls that are received and wait for a handler; the Go
					// runtime seldom interrupts those.
					if r.Whole.Targets.OK > 0 && r.Disturbed > 0 && (stale > 0 || path == PathInline || kind == storm.SignalledKillable || kind == storm.Preempted) {
						return
					}
				}
				t.Error("no call was served and no received call disturbed")
			})
		})
	}
}

func TestHostileCheckFindsWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		stats     Stats
		disturbed uint64
		ok        bool
	}{
		"undisturbed":               {Stats{Served: 5, Dropped: 2}, 0, true},
		"answers that went nowhere": {Stats{Served: 7, Dropped: 3, Stale: 3}, 3, true},
		"one more than disturbed":   {Stats{Served: 7, Dropped: 3}, 2, false},
		"more gone than disturbed":  {Stats{Served: 5, Dropped: 2, Stale: 4}, 3, false},
		"a call served by nobody":   {Stats{Served: 4, Dropped: 3}, 3, false},
		"a call dropped by nobody":  {Stats{Served: 6, Dropped: 1}, 3, false},
		"nobody counts":             {Stats{Served: 500, Dropped: 2, Stale: 80}, storm.Unknown, true},
		"nobody counts, not seen":   {Stats{Served: 4, Dropped: 2}, storm.Unknown, false},
	} {
		r := &Result{Disturbed: c.disturbed}
		r.Load.Hostile = storm.Signalled
		r.Whole.Stats = c.stats
		r.Whole.Targets.OK, r.Whole.Targets.Errnos[unix.EINTR] = 5, 2
		if err := r.Check(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
