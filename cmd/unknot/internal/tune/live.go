package tune

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/cmd/unknot/internal/tune/sim"
	"github.com/unknot/unknot/internal/dist"
	"github.com/unknot/unknot/internal/osthread"
)

// Timer slack and the way back to a CPU: what a sleep takes beyond what was asked.
const sleepExcess = 60 * time.Microsecond

// mostLate is the part of an open loop's calls that may be made late for want of a thread. They are
// made all the same, and wait as long from then on; bench is stricter, because its latencies are
// from when a call was due.
const mostLate = .02

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
		Load: stormOf(l.Arrivals), Seed: seed,
		Work:    bench.Work{Time: l.Service.Mean, CV: l.Service.CV, Sleep: l.Service.Sleeps},
		Workers: set.Workers, Queue: set.Capacity, DropBatch: set.Batch, Policy: set.Kind, Pace: set.Pace, WaitTarget: set.WaitTarget, Confine: confine}, d, false)
	if err != nil {
		return nil, err
	}
	if r.Lost > 0 {
		return nil, fmt.Errorf("%d targets hung and were killed", r.Lost)
	}
	if err := r.Check(); err != nil {
		return nil, err
	}
	if err := r.Void(); err != nil && float64(r.Open.Late-r.Open.Excused) > mostLate*float64(r.Open.Intended) {
		return nil, refuse("generator-limited: the storm of %v with %d threads is void: %v", l.Arrivals, l.Targets, err)
	}
	if r.Stats.Served < 20 {
		return nil, fmt.Errorf("%d calls were served in %v: too few to tell anything; give --duration a multiple of the service time", r.Stats.Served, d)
	}
	served := float64(r.Stats.Served)
	s := &Sample{Load: l, Setting: set, Seed: seed, Length: d, Outcome: Outcome{Elapsed: r.Elapsed.Seconds(), Received: r.Stats.Served + r.Stats.Dropped,
		Served: r.Stats.Served, Dropped: r.Stats.Dropped, Wait: r.Wait, CPU: float64(r.CPU+r.TargetCPU) / float64(r.Elapsed),
		InFlight: served / r.Elapsed.Seconds() * r.RoundTrip.Mean() / 1e9},
		SupervisorCPU: float64(r.CPU) / served, TargetCPU: float64(r.TargetCPU) / served, Services: r.Service}
	s.ServiceMean, s.ServiceCV = sim.Moments(r.Service)
	return s, nil
}

// stormOf is a as a storm's load.
func stormOf(a Arrivals) bench.Load {
	if a.Open() {
		return bench.Load{Arrivals: a.Calls}
	}
	return bench.Load{Think: storm.Think{Dist: a.Think, Sleep: !a.ThinkComputes}}
}

// ServiceOf is the service of handlers that do that work, by CPU time or asleep.
func ServiceOf(w bench.Work) Service { return Service{Dist: w.Dist(), Sleeps: w.Sleep} }

// simulated is the load as the simulation shall see it: handlers that sleep take as
// long as was measured, whatever they were asked for, and so does thinking. So do handlers that
// compute in an open loop, where CPUs are idle at times: what interrupts and the
// host take is in no CPU time, and is much of a wait there.
func simulated(l Load, samples []*Sample) Load {
	if l.Service.Sleeps || slices.ContainsFunc(samples, func(s *Sample) bool { return s.Load.Arrivals.Open() }) {
		// The emptiest storm has the least of what the simulation adds itself.
		best := slices.MinFunc(samples, func(a, b *Sample) int {
			return cmp.Or(cmp.Compare(a.Load.Targets, b.Load.Targets), cmp.Compare(a.InFlight, b.InFlight))
		})
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
