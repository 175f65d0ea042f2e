package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/internal/dist"
)

// A Load is what the targets ask for.
type Load struct {
	// Targets is how many threads may have a call in flight at once.
	Targets int
	// Arrivals says when calls are made. In a closed loop, Closed, each thread
	// calls again once it has its answer and has thought for Think; what is
	// dropped is tried again. In an open loop calls come on their own, whatever
	// the answers; an idle thread makes each, and a drop is final.
	Arrivals Arrivals
	Service  Service
}

// Arrivals say when calls are made.
type Arrivals struct {
	// Calls are those of an open loop: a [storm.Process], or what has a method Rate, in calls per second. nil is
	// a closed loop. A simulation and a storm of one seed make the same calls.
	Calls storm.Arrivals
	// Think is between an answer and the next call of a thread of the closed
	// loop. ThinkComputes says that it has a CPU meanwhile, not sleep.
	Think         dist.Dist
	ThinkComputes bool
}

// Open reports whether calls come whatever the answers.
func (a Arrivals) Open() bool { return a.Calls != nil }

// Rate is in calls per second, over bursts and silences, of an open loop.
func (a Arrivals) Rate() float64 {
	switch c := a.Calls.(type) {
	case storm.Process:
		return c.Rate
	case interface{ Rate() float64 }:
		return c.Rate()
	}
	return 0
}

func (a Arrivals) String() string {
	switch c := a.Calls.(type) {
	case nil:
		if a.Think.Mean == 0 {
			return "closed loop"
		}
		return fmt.Sprintf("closed loop, think time %v", a.Think)
	case storm.Process:
		if c.Kind == storm.OnOff {
			return fmt.Sprintf("%.0f calls/s in bursts: %v on, %v off", c.Rate, c.On, c.Off)
		}
		return fmt.Sprintf("%.0f calls/s, %s", c.Rate, processNames[c.Kind])
	}
	return fmt.Sprintf("%.0f calls/s, recorded", a.Rate())
}

var processNames = map[storm.ProcessKind]string{storm.Constant: "constant", storm.Poisson: "poisson"}

// A Service is how long a handler takes.
type Service struct {
	dist.Dist
	// Times, if not nil, are the times in ns themselves, instead of Dist.
	Times *hist.Snapshot
	// Steps change Dist, in the order of their times; only a simulation's.
	Steps []Step
	// Sleeps says that a handler is blocked, not computing: it needs no CPU.
	Sleeps bool
}

// A Step is what handlers take from a time on, which counts from the end of the warm-up.
type Step struct {
	At time.Duration
	dist.Dist
}

// Moments are the mean in ns and the coefficient of variation.
func (s Service) Moments() (mean, cv float64) {
	if s.Times == nil {
		return float64(s.Mean), s.CV
	}
	return Moments(s.Times)
}

// stepped returns a function that draws service times in ns at times in ns since the end of the warm-up, which do not go back.
func (s Service) stepped(r *rand.Rand) func(at int64) float64 {
	draw, left := s.sampler(r), s.Steps
	return func(at int64) float64 {
		for len(left) > 0 && at >= int64(left[0].At) {
			draw = Service{Dist: left[0].Dist}.sampler(r)
			left = left[1:]
		}
		return draw()
	}
}

// sampler returns a function that draws service times in ns.
func (s Service) sampler(r *rand.Rand) func() float64 {
	if s.Times == nil || s.Times.Count == 0 {
		return func() float64 { return s.Draw(r) }
	}
	return Sampler(s.Times, r)
}

// String says what load it is.
func (l Load) String() string {
	if l.Arrivals.Open() {
		return l.Arrivals.String()
	}
	return fmt.Sprintf("%d targets, %v", l.Targets, l.Arrivals)
}

// Check refuses what cannot be simulated or stormed.
func (l Load) Check() error {
	a := l.Arrivals
	mean, cv := l.Service.Moments()
	switch {
	case l.Targets < 1:
		return fmt.Errorf("%d targets: want at least 1", l.Targets)
	case !(mean > 0):
		return fmt.Errorf("a service time of %v: without work there is nothing to queue for; give the time that handlers take", time.Duration(mean))
	case !(cv >= 0 && cv <= dist.MaxCV):
		return fmt.Errorf("service times with a coefficient of variation of %.3g: want at most %d; a few calls take nearly all the time: give them an engine of their own", cv, dist.MaxCV)
	}
	if a.Open() {
		if _, err := a.Calls.Schedule(1, 1); err != nil {
			return err
		}
	}
	return nil
}

// Moments are the mean in ns and the coefficient of variation of a histogram.
func Moments(h *hist.Snapshot) (mean, cv float64) {
	var n, sum, squares float64
	for i, k := range h.Counts {
		if k > 0 {
			lo, hi := hist.Bounds(i)
			x := float64(lo+hi-1) / 2
			n += float64(k)
			sum += x * float64(k)
			squares += x * x * float64(k)
		}
	}
	if n == 0 {
		return 0, 0
	}
	mean = sum / n
	return h.Mean(), sqrt(squares/n-mean*mean) / mean
}

// Sampler returns a function that draws times in ns like those in h.
func Sampler(h *hist.Snapshot, r *rand.Rand) func() float64 {
	var upTo []uint64
	var of []int
	var n uint64
	for i, k := range h.Counts {
		if k > 0 {
			n += k
			upTo, of = append(upTo, n), append(of, i)
		}
	}
	return func() float64 {
		k := r.Uint64N(n)
		i, j := 0, len(upTo)-1
		for i < j {
			if m := (i + j) / 2; upTo[m] > k {
				j = m
			} else {
				i = m + 1
			}
		}
		lo, hi := hist.Bounds(of[i])
		return float64(lo) + r.Float64()*float64(hi-lo)
	}
}
