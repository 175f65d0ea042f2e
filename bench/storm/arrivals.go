package storm

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MaxArrivals bounds a schedule: each takes 32 bytes of memory.
const MaxArrivals = 1 << 24

// An Arrival is one call of an open loop.
type Arrival struct {
	At   time.Duration // the intended start, from [Storm.Go]
	Call Call          // 0: drawn from the storm's Mix; else [CallOf]
	// Tag is the low half of the call's sixth argument, for the supervisor: the
	// work that it shall do, say. getppid carries it too.
	Tag uint32
}

// Arrivals make schedules: of an arrival process, or of a recording. Their
// dynamic types are comparable.
type Arrivals interface {
	// Schedule returns the calls that shall start in [0, d), in order. The same
	// seed gives the same schedule.
	Schedule(d time.Duration, seed uint64) ([]Arrival, error)
	// String names the process and its rate for the benchmark's name; it has no
	// blanks and no slashes.
	String() string
}

// A Process is a stationary arrival process: an [Arrivals].
type Process struct {
	Kind    ProcessKind
	Rate    float64       // calls per second, over bursts and silences
	On, Off time.Duration // of OnOff: the mean lengths, both exponentially distributed
}

// A ProcessKind says how arrivals follow each other.
type ProcessKind uint8

const (
	Constant ProcessKind = iota // equal gaps
	Poisson                     // exponential gaps
	OnOff                       // Poisson in bursts, silence between them
)

// ParseProcess reads "constant", "poisson" or "onoff:10ms:40ms" (the mean lengths
// of bursts and silences).
func ParseProcess(s string, rate float64) (Process, error) {
	p := Process{Rate: rate}
	kind, lengths, _ := strings.Cut(s, ":")
	switch {
	case s == "constant":
	case s == "poisson":
		p.Kind = Poisson
	case kind == "onoff":
		p.Kind = OnOff
		on, off, _ := strings.Cut(lengths, ":")
		var err1, err2 error
		p.On, err1 = time.ParseDuration(on)
		p.Off, err2 = time.ParseDuration(off)
		if err1 != nil || err2 != nil {
			return Process{}, fmt.Errorf("arrivals %q: want the mean lengths of bursts and silences, as in onoff:10ms:40ms", s)
		}
	default:
		return Process{}, fmt.Errorf("arrivals %q: want constant, poisson or onoff:10ms:40ms", s)
	}
	return p, p.check()
}

func (p Process) check() error {
	switch {
	case !(p.Rate > 0) || math.IsInf(p.Rate, 0):
		return fmt.Errorf("rate %v: want calls per second, more than 0", p.Rate)
	case p.Kind > OnOff:
		return fmt.Errorf("no arrival process %d", p.Kind)
	case p.Kind == OnOff && (p.On <= 0 || p.Off <= 0):
		return fmt.Errorf("bursts of %v, silences of %v: want more than 0", p.On, p.Off)
	case p.Kind == OnOff && p.inBursts() > maxRate:
		return fmt.Errorf("rate %v in bursts of %v with silences of %v: in a burst %.3g calls per second would come, %.0g at most: longer bursts or a lower rate are needed", p.Rate, p.On, p.Off, p.inBursts(), float64(maxRate))
	}
	return nil
}

// maxRate is a call in each nanosecond.
const maxRate = 1e9

// inBursts is the rate while one lasts.
func (p Process) inBursts() float64 { return p.Rate * (float64(p.On) + float64(p.Off)) / float64(p.On) }

// String is as in "poisson:1000".
func (p Process) String() string {
	rate := strconv.FormatFloat(p.Rate, 'f', -1, 64)
	switch p.Kind {
	case Poisson:
		return "poisson:" + rate
	case OnOff:
		return fmt.Sprintf("onoff:%v:%v:%s", p.On, p.Off, rate)
	}
	return "constant:" + rate
}

// Schedule implements [Arrivals].
func (p Process) Schedule(d time.Duration, seed uint64) (as []Arrival, err error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	if n := p.Rate * d.Seconds(); n > MaxArrivals {
		return nil, fmt.Errorf("%.0f calls in %v: a schedule holds %d: shorten the storm or lower the rate", n, d, MaxArrivals)
	}
	// Times are in ns of the burst's own clock, which stands still in silences.
	r := rand.New(rand.NewPCG(seed, 0x73746f726d))
	end, gap := float64(d), float64(time.Second)/p.Rate
	switch p.Kind {
	case Constant:
		for k := 0; float64(k)*gap < end; k++ {
			as = append(as, Arrival{At: time.Duration(float64(k) * gap)})
		}
	case Poisson:
		for t := gap * r.ExpFloat64(); t < end; t += gap * r.ExpFloat64() {
			as = append(as, Arrival{At: time.Duration(t)})
		}
	case OnOff:
		on, off := float64(p.On), float64(p.Off)
		if n := end / (on + off); n > MaxArrivals {
			return nil, fmt.Errorf("%.0f bursts in %v: a schedule has %d at most: longer ones, or a shorter storm, are needed", n, d, MaxArrivals)
		}
		gap *= on / (on + off)
		start := 0.0
		if r.Float64() < off/(on+off) { // the storm comes upon it anywhere
			start = off * r.ExpFloat64()
		}
		for start < end {
			until := start + on*r.ExpFloat64()
			for t := start + gap*r.ExpFloat64(); t < min(until, end); t += gap * r.ExpFloat64() {
				as = append(as, Arrival{At: time.Duration(t)})
			}
			start = until + off*r.ExpFloat64()
		}
	}
	if len(as) > MaxArrivals {
		return nil, fmt.Errorf("a schedule of %d calls: at most %d", len(as), MaxArrivals)
	}
	return as, nil
}

var errOrder = errors.New("a schedule's calls must be in the order of their starts, none before 0")

// checkSchedule says what is wrong with a schedule from wherever.
func checkSchedule(as []Arrival) error {
	if len(as) > MaxArrivals {
		return fmt.Errorf("a schedule of %d calls: at most %d", len(as), MaxArrivals)
	}
	if !slices.IsSortedFunc(as, func(a, b Arrival) int { return int(max(-1, min(1, a.At-b.At))) }) || len(as) > 0 && as[0].At < 0 {
		return errOrder
	}
	for _, a := range as {
		if a.Call >= numCalls {
			return fmt.Errorf("a schedule with call %d: there is none", a.Call)
		}
	}
	return nil
}
