package sim

import (
	"flag"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/engine/policy"
	"github.com/unknot/unknot/internal/dist"
)

const us = time.Microsecond

// exact are engines without costs of their own, which is what closed forms know.
func exact(kind policy.Kind, workers, capacity int) Setting {
	return Setting{Config: policy.Config{Kind: kind, Capacity: capacity, Pace: policy.Immediately}, Workers: workers}
}

func exponential(mean time.Duration) Service {
	return Service{Dist: dist.Dist{Mean: mean, CV: 1}, Sleeps: true}
}

func open(p storm.Process) Arrivals { return Arrivals{Calls: p} }

// An estimate is the mean of independent repetitions and its standard error.
type estimate struct{ mean, se float64 }

// repeated simulates independent repetitions and estimates what each of the
// functions reads off them.
func repeated(t *testing.T, l Load, set Setting, run Run, of ...func(*Outcome) float64) []estimate {
	t.Helper()
	const reps = 12
	sum, squares := make([]float64, len(of)), make([]float64, len(of))
	for i := range uint64(reps) {
		run.Seed = 1000*run.Seed + i
		o, err := Simulate(l, set, Model{}, run)
		if err != nil {
			t.Fatal(err)
		}
		if o.Late > 0 {
			t.Fatalf("%d arrivals found no thread", o.Late)
		}
		for j := range of {
			x := of[j](o)
			sum[j] += x
			squares[j] += x * x
		}
	}
	es := make([]estimate, len(of))
	for j := range es {
		m := sum[j] / reps
		es[j] = estimate{m, math.Sqrt(max(squares[j]/reps-m*m, 0) / (reps - 1))}
	}
	return es
}

// agrees holds an estimate against the truth: within four standard errors, and
// these within 5% of it, so that the comparison can fail.
func agrees(t *testing.T, what string, e estimate, want float64) {
	t.Helper()
	mean, se := e.mean, e.se
	z := (mean - want) / max(se, 1e-12)
	t.Logf("%-40s simulated %.5g ±%.1g, closed form %.5g (z %+.1f)", what, mean, se, want, z)
	if math.Abs(mean-want) > 4*se+1e-3*math.Abs(want) {
		t.Errorf("%s: simulated %v ± %v, the closed form says %v", what, mean, se, want)
	}
	if se > .05*want+.002 {
		t.Errorf("%s: a standard error of %v of %v shows nothing", what, se, want)
	}
}

func meanWait(o *Outcome) float64 { return o.Wait.Mean() }

var long = flag.Bool("long", false, "compare longer simulations with the closed forms")

func TestClosedForms(t *testing.T) {
	n, length := 0, 300*time.Millisecond
	if *long {
		length = 5 * time.Second
	}
	for _, c := range []struct {
		workers, capacity int
		rho               float64
	}{{1, 1, .5}, {1, 4, .8}, {1, 16, 1.2}, {2, 2, .7}, {2, 8, .9}, {2, 16, 1}, {2, 32, 1.1}, {4, 4, .8}, {4, 16, 1.3}, {8, 8, .95}} {
		n++
		service := 50 * us
		mu := 1 / service.Seconds()
		lambda := c.rho * float64(c.workers) * mu
		q := MMcK(lambda, mu, c.workers, c.capacity)
		// More threads than can ever be in flight.
		l := Load{Targets: c.workers + c.capacity + 2, Arrivals: open(storm.Process{Kind: storm.Poisson, Rate: lambda}), Service: exponential(service)}
		run := Run{Seed: uint64(n), WarmUp: 100 * time.Millisecond, Length: length}
		name := fmt.Sprintf("M/M/%d/%d at load %v", c.workers, c.workers+c.capacity, c.rho)
		// Of the three policies this is the one that the form describes: drop-oldest
		// serves other calls than those that found room, and rests.
		set := exact(policy.DropNewest, c.workers, c.capacity)
		es := repeated(t, l, set, run, (*Outcome).DropRate, meanWait)
		agrees(t, name+": loss", es[0], q.Loss)
		agrees(t, name+": mean wait", es[1], q.Wait*1e9)
	}
	for _, c := range []struct {
		workers, targets int
		think            time.Duration
	}{{1, 2, 50 * us}, {1, 8, 500 * us}, {1, 16, 400 * us}, {2, 4, 50 * us}, {2, 8, 200 * us}, {2, 32, time.Millisecond}, {2, 64, 500 * us}, {4, 16, 100 * us}, {4, 64, time.Millisecond}, {8, 100, 500 * us}} {
		n++
		service := 50 * us
		q := MMcN(1/c.think.Seconds(), 1/service.Seconds(), c.workers, c.targets)
		l := Load{Targets: c.targets, Arrivals: Arrivals{Think: dist.Dist{Mean: c.think, CV: 1}}, Service: exponential(service)}
		run := Run{Seed: uint64(n), WarmUp: 100 * time.Millisecond, Length: length}
		set := exact(policy.DropOldest, c.workers, c.targets)
		name := fmt.Sprintf("M/M/%d//%d, think %v", c.workers, c.targets, c.think)
		es := repeated(t, l, set, run, (*Outcome).Goodput, meanWait)
		agrees(t, name+": throughput", es[0], q.Throughput)
		agrees(t, name+": mean wait", es[1], q.Wait*1e9)
	}
	if n != 20 {
		t.Errorf("%d settings", n)
	}
}

func TestBounds(t *testing.T) {
	// The example of the theory: 12 µs, two workers, a wait of 200 µs.
	if k := DeadlineBound(2, 12e3, 200e3); k != 34 {
		t.Errorf("deadline bound %d", k)
	}
	if k := BurstBound(2, 50e3, 100e3/1e9, 1e6); k != 60 {
		t.Errorf("burst bound %d", k)
	}
	if k := BurstBound(2, 50e3, 10e3/1e9, 1e6); k != 0 {
		t.Errorf("burst bound %d where workers keep up", k)
	}
	if n := Knee(2, 50, 150); n != 8 {
		t.Errorf("knee %v", n)
	}
}

// Every call's time, added up, is the integral of how many there were, to the ns.
func TestLittlesLawExactly(t *testing.T) {
	costs := Model{Recv: 4000, Send: 9000, Drop: 3000, Nudge: 2000, Target: 5000, Idle: 8000, PerCall: 15}
	for i, l := range []Load{
		{Targets: 64, Service: Service{Dist: dist.Dist{Mean: 50 * us}}},
		{Targets: 64, Service: Service{Dist: dist.Dist{Mean: 50 * us, CV: 1}, Sleeps: true}, Arrivals: Arrivals{Think: dist.Dist{Mean: 300 * us, CV: 1}}},
		{Targets: 200, Service: Service{Dist: dist.Dist{Mean: 80 * us, CV: 2}}, Arrivals: open(storm.Process{Kind: storm.OnOff, Rate: 12000, On: 5 * time.Millisecond, Off: 10 * time.Millisecond})},
		{Targets: 200, Service: Service{Dist: dist.Dist{Mean: 80 * us}}, Arrivals: open(storm.Process{Kind: storm.Constant, Rate: 9000})},
		{Targets: 40, Service: Service{Dist: dist.Dist{Mean: 80 * us}}, Arrivals: open(storm.Process{Kind: storm.OnOff, Rate: 5000, On: 20 * us, Off: 700 * us})},
	} {
		for _, kind := range []policy.Kind{policy.DropOldest, policy.DropNewest, policy.Block} {
			for _, capacity := range []int{1, 16, 256} {
				set := Setting{Config: policy.Config{Kind: kind, Capacity: capacity}, Workers: 2, CPUs: 2}
				o, err := Simulate(l, set, costs, Run{Seed: uint64(i), WarmUp: 10 * time.Millisecond, Length: 300 * time.Millisecond})
				if err != nil {
					t.Fatal(err)
				}
				if o.Served == 0 || o.RingSum == 0 {
					t.Errorf("load %d, %v, capacity %d: nothing happened: %+v", i, kind, capacity, o)
				}
				if o.RingIntegral != o.RingSum || o.SystemIntegral != o.SystemSum {
					t.Errorf("load %d, %v, capacity %d: Little's law: ring %d and %d, system %d and %d ns", i, kind, capacity,
						o.RingIntegral, o.RingSum, o.SystemIntegral, o.SystemSum)
				}
				if kind == policy.Block && o.Dropped > 0 {
					t.Errorf("block dropped %d", o.Dropped)
				}
				if o.CPU > 2.0001 {
					t.Errorf("load %d, %v, capacity %d: used %v of 2 CPUs", i, kind, capacity, o.CPU)
				}
			}
		}
	}
}

// With more to compute than there are CPUs, what is served is what the CPUs
// yield, and a machine with more of them yields more.
func TestComputingHandlersShareTheCPUs(t *testing.T) {
	costs := Model{Recv: 5000, Send: 5000, Target: 10000, Slice: 3 * time.Millisecond}
	l := Load{Targets: 32, Service: Service{Dist: dist.Dist{Mean: 80 * us}}}
	for cpus, want := range map[int]float64{1: 1e4, 2: 2e4, 4: 4e4} {
		set := Setting{Config: policy.Config{Capacity: 64}, Workers: 4, CPUs: cpus}
		o, err := Simulate(l, set, costs, Run{Length: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if g := o.Goodput(); math.Abs(g/want-1) > .02 || math.Abs(o.CPU/float64(cpus)-1) > .01 {
			t.Errorf("%d CPUs: %v calls/s with %v CPUs busy, want %v", cpus, g, o.CPU, want)
		}
	}
	// Workers that sleep do not care.
	l.Service.Sleeps = true
	o, err := Simulate(l, Setting{Config: policy.Config{Capacity: 64}, Workers: 4, CPUs: 1}, Model{Recv: 100, Send: 100, Target: 100}, Run{Length: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if g := o.Goodput(); math.Abs(g/5e4-1) > .01 {
		t.Errorf("sleeping handlers on one CPU: %v calls/s, want nearly 4 workers' 5e4", g)
	}
}

func TestSameSeedSameStorm(t *testing.T) {
	l := Load{Targets: 64, Service: Service{Dist: dist.Dist{Mean: 50 * us, CV: 1}}, Arrivals: open(storm.Process{Kind: storm.Poisson, Rate: 20000})}
	set := Setting{Config: policy.Config{Capacity: 16}, Workers: 2, CPUs: 2}
	outcome := func(seed uint64) string {
		o, err := Simulate(l, set, Model{Recv: 3000, Send: 5000, Target: 4000}, Run{Seed: seed, Length: 200 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		wait := *o.Wait
		o.Wait = nil
		return fmt.Sprint(*o, wait)
	}
	if first, again := outcome(1), outcome(1); first != again {
		t.Error("one seed, two outcomes")
	}
	if outcome(1) == outcome(2) {
		t.Error("two seeds, one outcome")
	}
}

func TestBadLoads(t *testing.T) {
	good := Load{Targets: 4, Service: Service{Dist: dist.Dist{Mean: us}}}
	for _, change := range []func(*Load){
		func(l *Load) { l.Targets = 0 },
		func(l *Load) { l.Service.Mean = 0 },
		func(l *Load) { l.Service.CV = math.NaN() },
		func(l *Load) { l.Arrivals = open(storm.Process{Kind: storm.Poisson}) },
		func(l *Load) { l.Arrivals = open(storm.Process{Kind: storm.OnOff, Rate: 1}) },
	} {
		l := good
		change(&l)
		if _, err := Simulate(l, exact(policy.DropOldest, 1, 1), Model{}, Run{Length: time.Millisecond}); err == nil {
			t.Errorf("%+v was simulated", l)
		}
	}
	if _, err := Simulate(good, exact(policy.DropOldest, 0, 1), Model{}, Run{Length: time.Millisecond}); err == nil {
		t.Error("no workers were simulated")
	}
}

func BenchmarkSimulate(b *testing.B) {
	l := Load{Targets: 64, Service: Service{Dist: dist.Dist{Mean: 50 * us}}}
	set := Setting{Config: policy.Config{Capacity: 16}, Workers: 2, CPUs: 2}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Simulate(l, set, Model{Recv: 10000, Send: 20000, Target: 20000}, Run{Length: 100 * time.Millisecond}); err != nil {
			b.Fatal(err)
		}
	}
}
