package storm

import (
	"time"

	"github.com/unknot/unknot/engine/hist"
)

// A made is what became of one call of a schedule. Times are in ns of CLOCK_MONOTONIC.
type made struct {
	Intended       int64
	Started, Ended int64 // 0: it was not made, or not answered
	Errno          uint32
	// Late says that no thread was idle at the intended start.
	Late bool
}

// An OpenReport is what an open loop saw.
type OpenReport struct {
	calls  []made
	origin int64
}

// Origin is when a call at 0 of the schedule was due, in ns of CLOCK_MONOTONIC.
func (r *OpenReport) Origin() int64 { return r.origin }

// A Window is the calls of an open loop whose intended starts lie in a window of
// time.
type Window struct {
	Intended  int            // calls that should have started
	Unmade    int            // of these, those that were never made or never answered
	Late      int            // of these, those for which no thread was idle; not made ones among them
	Excused   int            // of these, those that were late because of a stall
	Corrected *hist.Snapshot // ns, of served calls, from the intended start
	RoundTrip *hist.Snapshot // ns, of served calls, from when they were made
	Lag       *hist.Snapshot // ns, from the intended start until it was made, of calls that were not late
}

// Window reads the calls with an intended start in [from, to). A stall of the
// supervisor that began at stallFrom and ended at stallTo (0: none) excuses the
// calls that were late from its beginning until a call after its end was not.
func (r *OpenReport) Window(from, to, stallFrom, stallTo int64) *Window {
	w := &Window{Corrected: new(hist.Snapshot), RoundTrip: new(hist.Snapshot), Lag: new(hist.Snapshot)}
	shadow := false
	for i := range r.calls {
		c := &r.calls[i]
		late := c.Late || c.Ended == 0
		switch {
		case stallFrom == 0 || c.Intended < stallFrom:
		case c.Intended <= stallTo || shadow && late:
			shadow = true
		default:
			shadow = false
			stallFrom = 0
		}
		if c.Intended < from || c.Intended >= to {
			continue
		}
		w.Intended++
		if late {
			w.Late++
			if shadow {
				w.Excused++
			}
		}
		if c.Ended == 0 {
			w.Unmade++
			continue
		}
		if !late {
			w.Lag.Add(c.Started-c.Intended, 1)
		}
		if c.Errno == 0 {
			w.Corrected.Add(c.Ended-c.Intended, 1)
			w.RoundTrip.Add(c.Ended-c.Started, 1)
		}
	}
	return w
}

// maxLate is the share of late calls above which an open loop was limited by its
// generator, and says nothing about the supervisor.
const maxLate = 0.001

// Void reports whether the window says nothing about the supervisor.
func (w *Window) Void() bool {
	return w.Intended == 0 || float64(w.Late-w.Excused) > maxLate*float64(w.Intended)
}

// Lead is how long after Go a schedule begins.
func Lead() time.Duration { return lead }
