package tune

import (
	"fmt"
	"time"

	"github.com/unknot/unknot/bench/dist"
)

// times is a with calls that many times as often.
func (a Arrivals) times(x float64) Arrivals {
	a.Rate *= x
	if a.Process == Recorded {
		gaps := make([]int64, len(a.Gaps))
		for i, g := range a.Gaps {
			gaps[i] = int64(float64(g) / x)
		}
		a.Gaps = gaps
	}
	return a
}

// other is another arrival process that is much the same load. full is how long it
// takes to serve all targets, in s.
func (a Arrivals) other(full float64) Arrivals {
	switch {
	case a.Process == Poisson:
		return Arrivals{Process: OnOff, Rate: a.Rate, On: 20 * time.Millisecond, Off: 5 * time.Millisecond}
	case a.Open():
		return Arrivals{Process: Poisson, Rate: a.Rate}
	case a.Think.Mean == 0:
		// A third of the time a call takes when all call at once: still overloaded, and calls
		// no longer come the moment that others are answered.
		return Arrivals{Think: dist.Dist{Mean: time.Duration(full / 3 * 1e9).Round(time.Microsecond)}}
	}
	return Arrivals{}
}

// burstBound is the capacity that takes a's bursts without a drop: 0 of arrivals
// without bursts. service is that of one of c workers, in s.
func (a Arrivals) burstBound(c int, service float64) (bound int) {
	switch a.Process {
	case OnOff:
		return BurstBound(c, service, a.Peak(), a.On.Seconds())
	case Recorded:
		for _, w := range []int64{1e6, 3e6, 1e7, 3e7, 1e8} {
			most := fullest(a.Gaps, w)
			length := float64(w) / 1e9
			bound = max(bound, BurstBound(c, service, float64(most)/length, length))
		}
	}
	return bound
}

// fullest is the most arrivals in any window of w ns.
func fullest(gaps []int64, w int64) (most int) {
	first, span := 0, int64(0) // from gaps[first]'s arrival to the last
	for i, g := range gaps {
		if i > 0 {
			span += g
		}
		for span >= w {
			first++
			span -= gaps[first]
		}
		most = max(most, i-first+1)
	}
	return most
}

// String says what load it is.
func (l Load) String() string {
	if l.Arrivals.Open() {
		return l.Arrivals.String()
	}
	return fmt.Sprintf("%d targets, %v", l.Targets, l.Arrivals)
}
