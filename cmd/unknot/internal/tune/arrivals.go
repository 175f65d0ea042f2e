package tune

import (
	"time"

	"github.com/unknot/unknot/bench/replay"
	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/cmd/unknot/internal/tune/sim"
	"github.com/unknot/unknot/internal/dist"
)

// times is a with calls that many times as often.
func times(a Arrivals, x float64) Arrivals {
	switch c := a.Calls.(type) {
	case storm.Process:
		c.Rate *= x
		a.Calls = c
	case *replay.Arrivals:
		a.Calls = c.Faster(x)
	}
	return a
}

// other is another arrival process that is much the same load. full is how long it
// takes to serve all targets, in s.
func other(a Arrivals, full float64) Arrivals {
	if p, ok := a.Calls.(storm.Process); ok && p.Kind == storm.Poisson {
		return Arrivals{Calls: storm.Process{Kind: storm.OnOff, Rate: p.Rate, On: 20 * time.Millisecond, Off: 5 * time.Millisecond}}
	}
	switch {
	case a.Open():
		return Arrivals{Calls: storm.Process{Kind: storm.Poisson, Rate: a.Rate()}}
	case a.Think.Mean == 0:
		// A third of the time a call takes when all call at once: still overloaded, and calls
		// no longer come the moment that others are answered.
		return Arrivals{Think: dist.Dist{Mean: time.Duration(full / 3 * 1e9).Round(time.Microsecond)}}
	}
	return Arrivals{}
}

// burstBound is the capacity that takes a's bursts without a drop: 0 of arrivals
// without bursts. service is that of one of c workers, in s.
func burstBound(a Arrivals, c int, service float64) (bound int) {
	switch calls := a.Calls.(type) {
	case storm.Process:
		if calls.Kind == storm.OnOff {
			peak := calls.Rate * float64(calls.On+calls.Off) / float64(calls.On)
			return sim.BurstBound(c, service, peak, calls.On.Seconds())
		}
	case *replay.Arrivals:
		gaps := calls.Gaps()
		for _, w := range []int64{1e6, 3e6, 1e7, 3e7, 1e8} {
			most := fullest(gaps, w)
			length := float64(w) / 1e9
			bound = max(bound, sim.BurstBound(c, service, float64(most)/length, length))
		}
	}
	return bound
}

// mostEnough is how long a storm lasts at most, unless told so.
const mostEnough = 3 * time.Second

// enough is how long a storm should last for its 99th percentile to say something: where calls
// come in bursts, it is a matter of the few longest of them.
func enough(a Arrivals) time.Duration {
	const least, many = 500 * time.Millisecond, 50
	switch p, ok := a.Calls.(storm.Process); {
	case ok && p.Kind == storm.OnOff:
		return max(many*(p.On+p.Off), least)
	case bursts(a): // unknown ones
		return 3 * least
	}
	return least
}

// bursts reports whether a has any.
func bursts(a Arrivals) bool {
	p, ok := a.Calls.(storm.Process)
	return a.Open() && (!ok || p.Kind == storm.OnOff)
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
