package tune

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"time"

	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/bench/dist"
	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/engine/osthread"
)

// Timer slack and the way back to a CPU: what a sleep takes beyond what was asked.
const sleepExcess = 60 * time.Microsecond

// Storm measures a setting by a storm of the given length; the seed is of its
// arrivals. An open loop that its threads could not keep up with is a *[Refusal].
func Storm(ctx context.Context, l Load, set Setting, confine bench.Confiner, d time.Duration, seed uint64) (*Sample, error) {
	if err := l.Check(); err != nil {
		return nil, err
	}
	if l.Service.Times != nil {
		return nil, fmt.Errorf("storm: handlers take times of a distribution, not of a histogram")
	}
	if l.Targets > storm.MaxTargets {
		return nil, fmt.Errorf("%d targets: a storm has at most %d", l.Targets, storm.MaxTargets)
	}
	r, err := bench.Once(ctx, bench.Spec{Engine: "unknot", Path: bench.PathQueue, Targets: l.Targets,
		Load: l.Arrivals.storm(), Seed: seed,
		Work:    bench.Work{Time: l.Service.Mean, CV: l.Service.CV, Sleep: l.Service.Sleeps},
		Workers: set.Workers, Queue: set.Capacity, DropBatch: set.Batch, Policy: set.Kind, Pace: set.Pace, Confine: confine}, d, false)
	if err != nil {
		return nil, err
	}
	if r.Lost > 0 {
		return nil, fmt.Errorf("%d targets hung and were killed", r.Lost)
	}
	if err := r.Check(); err != nil {
		return nil, err
	}
	if err := r.Void(); err != nil {
		return nil, refuse("generator-limited: the storm of %v with %d threads is void: %v", l.Arrivals, l.Targets, err)
	}
	if r.Stats.Served < 20 {
		return nil, fmt.Errorf("%d calls were served in %v: too few to tell anything; give --duration a multiple of the service time", r.Stats.Served, d)
	}
	served := float64(r.Stats.Served)
	s := &Sample{Load: l, Setting: set, Outcome: Outcome{Elapsed: r.Elapsed.Seconds(), Received: r.Stats.Served + r.Stats.Dropped,
		Served: r.Stats.Served, Dropped: r.Stats.Dropped, Wait: r.Wait, CPU: float64(r.CPU+r.TargetCPU) / float64(r.Elapsed),
		InFlight: served / r.Elapsed.Seconds() * r.RoundTrip.Mean() / 1e9},
		SupervisorCPU: float64(r.CPU) / served, TargetCPU: float64(r.TargetCPU) / served, Services: r.Service}
	s.ServiceMean, s.ServiceCV = Moments(r.Service)
	return s, nil
}

// storm is a as a storm's load.
func (a Arrivals) storm() bench.Load {
	switch a.Process {
	case Closed:
		return bench.Load{Think: storm.Think{Dist: a.Think, Sleep: !a.ThinkComputes}}
	case Recorded:
		return bench.Load{Arrivals: &gaps{a.String(), a.Gaps}}
	}
	return bench.Load{Arrivals: storm.Process{Kind: stormKinds[a.Process], Rate: a.Rate, On: a.On, Off: a.Off}}
}

var stormKinds = map[Process]storm.ProcessKind{Poisson: storm.Poisson, Constant: storm.Constant, OnOff: storm.OnOff}

// FromProcess are a storm's arrivals.
func FromProcess(p storm.Process) Arrivals {
	a := Arrivals{Rate: p.Rate, On: p.On, Off: p.Off}
	for of, kind := range stormKinds {
		if kind == p.Kind {
			a.Process = of
		}
	}
	return a
}

// gaps are those of a recording, over and over, as [storm.Arrivals].
type gaps struct {
	name string
	ns   []int64
}

func (g *gaps) String() string { return strings.ReplaceAll(g.name, " ", "-") }

// Schedule begins anywhere in the recording.
func (g *gaps) Schedule(d time.Duration, seed uint64) (as []storm.Arrival, err error) {
	i := rand.New(rand.NewPCG(seed, 0x6761)).IntN(len(g.ns))
	for at := time.Duration(0); ; i = (i + 1) % len(g.ns) {
		if at += time.Duration(g.ns[i]); at >= d {
			return as, nil
		}
		if as = append(as, storm.Arrival{At: at}); len(as) > storm.MaxArrivals {
			return nil, fmt.Errorf("more than %d calls in %v: shorten the storms", storm.MaxArrivals, d)
		}
	}
}

// simulated is the load as the simulation shall see it: handlers that sleep take as
// long as was measured, whatever they were asked for, and so does thinking.
func simulated(l Load, samples []*Sample) Load {
	if l.Service.Sleeps {
		// The emptiest storm has the least of what the simulation adds itself.
		best := samples[0]
		for _, s := range samples {
			if s.InFlight < best.InFlight {
				best = s
			}
		}
		l.Service.Times = best.Services
	}
	switch a := &l.Arrivals; {
	case a.ThinkComputes:
		// It is in the targets' CPU time, as that was measured.
		a.Think, a.ThinkComputes = dist.Dist{}, false
	case a.Think.Mean > 0:
		a.Think.Mean += sleepExcess
	}
	return l
}

// cpuCount is how many CPUs the process may use.
func cpuCount() int {
	if n := len(osthread.Allowed()); n > 0 {
		return n
	}
	return runtime.NumCPU()
}

func shuffle[T any](xs []T, seed uint64) {
	rand.New(rand.NewPCG(seed, 0x0bde)).Shuffle(len(xs), func(i, j int) { xs[i], xs[j] = xs[j], xs[i] })
}
