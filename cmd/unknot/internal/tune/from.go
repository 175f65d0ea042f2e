package tune

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/bench/record"
	"github.com/unknot/unknot/bench/replay"
	"github.com/unknot/unknot/cmd/unknot/internal/tune/sim"
	"github.com/unknot/unknot/internal/dist"
	"github.com/unknot/unknot/internal/osthread"
)

// Of a recording.
const (
	// ownThink is about what a thread takes from an answer to its next call when it does
	// nothing else; a storm's threads take as long by themselves.
	ownThink = 50 * time.Microsecond
	// shortThink is the part of a call's time from trap to answer below which a think time
	// changes nothing, and is mostly the way back to a CPU.
	shortThink = .05
	// mostStarved is the part of the time in which all threads of an open loop may have
	// had a call in flight.
	mostStarved = .01
)

// FromRecording is the load that was recorded, and what a reader should know of it.
// work, if not nil, is what handlers do instead of what they did. It fails with
// replay.ErrServiceUnknown where neither is known, and with a *[Refusal] where the
// recorded arrivals were limited by those who made them.
func FromRecording(r *record.Recording, work *bench.Work) (l Load, notes []string, err error) {
	note := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	if l.Service, err = recordedService(r, work); err != nil {
		return Load{}, nil, err
	}
	if lost := r.Lost.Overrun + r.Lost.Missed; lost*100 > uint64(len(r.Calls)) {
		note("the recording lacks %d calls beside the %d that it has: the load was higher", lost, len(r.Calls))
	}
	f := r.Feedback()
	if f.Loop == record.ClosedLoop {
		l.Targets = r.AtOnce()
		l.Arrivals = recordedThink(r)
		note("threads waited for answers: a closed loop of %d threads", l.Targets)
		return l, notes, nil
	}
	flight := r.InFlight()
	if starved := float64(flight.Time[flight.Max]) / float64(r.Elapsed); flight.Max >= r.AtOnce() && starved > mostStarved {
		return Load{}, nil, refuse("generator-limited: all of the recording's %d threads had a call in flight for %.2g%% of the time, and it is no closed loop either: nobody can tell when calls would have come; record a lower load, or one of more threads", r.AtOnce(), 100*starved)
	}
	if f.Loop == record.Unclear {
		note("it is unclear whether calls waited for answers: they are made when they were, whatever the answers")
	}
	calls, err := replay.Of(r)
	if err != nil && !errors.Is(err, replay.ErrServiceUnknown) { // the handlers' work is known from elsewhere
		return Load{}, nil, err
	}
	l.Arrivals.Calls = calls.Anywhere()
	return l, notes, nil
}

func recordedService(r *record.Recording, work *bench.Work) (Service, error) {
	if work != nil {
		return ServiceOf(*work), nil
	}
	s := r.Service()
	if s.Times == nil {
		return Service{}, replay.ErrServiceUnknown
	}
	sleeps := s.Blocked > .5
	times := s.Computing
	if sleeps {
		times = s.Times
	}
	mean, cv := sim.Moments(times)
	d := dist.Dist{Mean: time.Duration(mean), CV: cv}
	if sleeps {
		d.Mean = max(d.Mean-oversleep(d.Mean), d.Mean/2)
	}
	return Service{Dist: d, Sleeps: sleeps}, nil
}

// recordedThink is the closed loop's think time.
func recordedThink(r *record.Recording) Arrivals {
	t := r.Think()
	mean := time.Duration(t.Times.Mean())
	response := time.Duration(r.InFlight().Mean / r.Rate() * 1e9) // by Little's law
	switch {
	case t.Times.Count == 0 || mean < ownThink || float64(mean) < shortThink*float64(response):
		return Arrivals{}
	case t.Slept > .5:
		return Arrivals{Think: dist.Dist{Mean: max(mean-sleepExcess, 0).Round(time.Microsecond)}}
	}
	return Arrivals{Think: dist.Dist{Mean: (mean - ownThink/2).Round(time.Microsecond)}, ThinkComputes: true}
}

// oversleep is how much longer than asked for a handler's sleep is here: the
// recording has what it took.
func oversleep(d time.Duration) time.Duration {
	var late []time.Duration
	done := make(chan struct{})
	osthread.Start(func() {
		defer close(done)
		for range 21 {
			from := time.Now()
			bench.Work{Time: min(d, 10*time.Millisecond), Sleep: true}.Do()
			late = append(late, time.Since(from)-min(d, 10*time.Millisecond))
		}
	})
	<-done
	slices.Sort(late)
	return late[len(late)/2]
}
