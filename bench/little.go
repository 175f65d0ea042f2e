package bench

import (
	"fmt"
	"math"

	"github.com/unknot/unknot/bench/storm"
)

// little holds a whole storm against Little's law: the mean number of calls in
// flight is the throughput times the mean time that a call is in the system. Its
// three terms are of three sources: the time that the threads were not idle, what
// the engine counts, and the targets' histograms. Calls lost, or counted twice, by
// any of them do not fit.
//
// Package trace checks the law too, in another way, since it sees no clocks of the
// targets: between RECV and answer, and against looks at how many are in flight, which
// have a standard error where this has none.
type little struct {
	InFlight   float64 // mean, over the storm
	Throughput float64 // answered calls per second
	Time       float64 // mean, ns
}

// littleTolerance is the share by which the two sides may differ: what lies
// between a call's two clock readings and the next call's.
const littleTolerance = 0.02

// newLittle leaves out the calls that were rung, which no thread made.
func newLittle(s Stats, rung uint64, r *storm.Report) little {
	trips := *r.RoundTrip
	trips.Merge(r.FailTrip)
	t := r.Elapsed.Seconds()
	return little{r.InFlight.Seconds() / t, float64(s.Served+s.Dropped-rung) / t, trips.Mean()}
}

// Error is by how much of it throughput times time misses the mean in flight.
func (l little) Error() float64 {
	if l.InFlight == 0 {
		return 0
	}
	return l.Throughput*l.Time/1e9/l.InFlight - 1
}

// Check is nil where the law holds.
func (l little) Check() error {
	if e := l.Error(); math.IsNaN(e) || math.Abs(e) > littleTolerance {
		return fmt.Errorf("against Little's law: %v (%+.1f%%): calls were lost, or counted twice", l, 100*e)
	}
	return nil
}

func (l little) String() string {
	return fmt.Sprintf("%.4g calls in flight, %.0f/s × %s = %.4g", l.InFlight, l.Throughput, Duration(l.Time), l.Throughput*l.Time/1e9)
}
