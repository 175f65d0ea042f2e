package tune

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/engine/osthread"
)

// Timer slack and the way back to a CPU: what a sleep takes beyond what was asked.
const sleepExcess = 60 * time.Microsecond

// Storm measures a setting by a storm of the given length. Only the closed loop,
// with or without think time, can be stormed.
func Storm(ctx context.Context, l Load, set Setting, confine bench.Confiner, d time.Duration) (*Sample, error) {
	if err := l.Check(); err != nil {
		return nil, err
	}
	if l.Arrivals.Open() || l.Arrivals.ThinkComputes || l.Arrivals.Think.CV != 0 || l.Service.Times != nil {
		return nil, fmt.Errorf("no storm has arrivals of %v with services of %v", l.Arrivals, l.Service.Dist)
	}
	if l.Targets > storm.MaxTargets {
		return nil, fmt.Errorf("%d targets: a storm has at most %d", l.Targets, storm.MaxTargets)
	}
	r, err := bench.Once(ctx, bench.Spec{Engine: "unknot", Path: bench.PathQueue, Targets: l.Targets,
		Load:    bench.Load{Think: storm.Think{Dist: l.Arrivals.Think, Sleep: true}},
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

// simulated is the load as the simulation shall see it: handlers that sleep take as
// long as was measured, whatever they were asked for, and so does thinking.
func simulated(l Load, samples []*Sample) Load {
	if l.Service.Sleeps {
		// The emptiest storm has the least of what the simulation adds itself.
		best := samples[0]
		for _, s := range samples {
			if s.Load.Targets < best.Load.Targets {
				best = s
			}
		}
		l.Service.Times = best.Services
	}
	if l.Arrivals.Think.Mean > 0 {
		l.Arrivals.Think.Mean += sleepExcess
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
