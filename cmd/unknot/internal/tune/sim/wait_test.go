package sim

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/engine/policy"
	"github.com/unknot/unknot/internal/dist"
)

// A waitSetting is a load, a wait target, and the times at which the load changes.
type waitSetting struct {
	name    string
	loads   []Load
	workers int
	cpus    int // 0: endless
	target  time.Duration
	length  int // parts of the run
	steps   int // how many of them begin with a step, the last ones
	ramps   int // the number of a part in which the service changes all the time, or 0
	costs   Model
}

func sleeping(mean time.Duration, cv float64, steps ...Step) Service {
	return Service{Dist: dist.Dist{Mean: mean, CV: cv}, Sleeps: true, Steps: steps}
}

func step(at, mean time.Duration, cv float64) Step {
	return Step{at, dist.Dist{Mean: mean, CV: cv}}
}

// mixed are two classes of handlers, of which so many in a hundred are slow.
func mixed(fast, slow time.Duration, slowPart uint64) Service {
	h := new(hist.Snapshot)
	h.Add(int64(fast), 100-slowPart)
	h.Add(int64(slow), slowPart)
	return Service{Times: h, Sleeps: true}
}

// ramp are many small steps.
func ramp(from, to time.Duration, begin, end time.Duration, cv float64) (steps []Step) {
	const n = 20
	for i := range n {
		part := float64(i+1) / n
		mean := float64(from) * math.Pow(float64(to)/float64(from), part)
		steps = append(steps, step(begin+time.Duration(part*float64(end-begin)), time.Duration(mean), cv))
	}
	return steps
}

const ms = time.Millisecond

// waitSettings are twelve settings, of which the last six vary. A part takes that long.
func waitSettings(part time.Duration) []waitSetting {
	small := Model{Recv: 3000, Send: 3000, Drop: 3000, Nudge: 3000, Target: 10000}
	computing := Model{Recv: 8000, Send: 8000, Drop: 6000, Nudge: 3000, Target: 15000, Idle: 5000, Grain: ms, Slice: 3 * ms, ReceiverFirst: true}
	closed := func(targets int, s Service) []Load { return []Load{{Targets: targets, Service: s}} }
	arriving := func(p storm.Process, s Service) []Load {
		return []Load{{Targets: 512, Service: s, Arrivals: open(p)}}
	}
	there := func(a, b time.Duration, cv float64) Service {
		return sleeping(a, cv, step(part, b, cv), step(2*part, a, cv))
	}
	quiet := Load{Targets: 1, Service: sleeping(200*us, .5), Arrivals: Arrivals{Think: dist.Dist{Mean: 5 * ms, CV: 1}}}
	return []waitSetting{
		{name: "constant", loads: closed(64, sleeping(200*us, 0)), workers: 2, target: 2 * ms, length: 2, costs: small},
		{name: "exponential", loads: closed(64, sleeping(200*us, 1)), workers: 4, target: 2 * ms, length: 2, costs: small},
		{name: "computing", loads: closed(48, Service{Dist: dist.Dist{Mean: 150 * us, CV: .5}}), workers: 2, cpus: 2, target: 3 * ms, length: 2, costs: computing},
		{name: "poisson at 0.8", loads: arriving(storm.Process{Kind: storm.Poisson, Rate: 4000}, sleeping(400*us, 1)), workers: 2, target: 4 * ms, length: 6, costs: small},
		{name: "one slow worker", loads: closed(32, sleeping(2*ms, .5)), workers: 1, target: 20 * ms, length: 8, costs: small},
		{name: "four listeners", loads: slices.Repeat(closed(24, sleeping(200*us, .5)), 4), workers: 4, target: 4 * ms, length: 2, costs: small},

		{name: "step by 4 and back", loads: closed(64, there(100*us, 400*us, 0)), workers: 2, target: 2 * ms, length: 3, steps: 2, costs: small},
		{name: "step by 4 and back, exponential", loads: closed(64, there(100*us, 400*us, 1)), workers: 2, target: 4 * ms, length: 3, steps: 2, costs: small},
		{name: "ramp by 8", loads: closed(64, sleeping(100*us, .5, ramp(100*us, 800*us, part, 2*part, .5)...)), workers: 4, target: 3 * ms, length: 3, steps: 2, ramps: 1, costs: small},
		{name: "bursts", loads: arriving(storm.Process{Kind: storm.OnOff, Rate: 4000, On: 20 * ms, Off: 20 * ms}, sleeping(400*us, .5)), workers: 2, target: 5 * ms, length: 8, costs: small},
		{name: "two classes", loads: closed(64, mixed(5*us, 2*ms, 20)), workers: 4, target: 10 * ms, length: 6, costs: small},
		{name: "many listeners, steps", loads: append(slices.Repeat(closed(16, there(200*us, 800*us, .5)), 4), quiet), workers: 8, target: 10 * ms, length: 3, steps: 2, costs: small},
	}
}

// A waitPart is what happened from one step to the next, once it is over for 50 ms and 20 services.
type waitPart struct {
	p99, goodput float64
	settled      time.Duration // after the step p99 was within 1.1 times the target, in windows of 50 ms
	limit, cv    float64       // of the first listener, by call
}

// run simulates with a capacity or, if 0, with the target alone.
func (w *waitSetting) run(t *testing.T, part time.Duration, capacity int, seed uint64) (parts []waitPart) {
	set := Setting{Config: policy.Config{Capacity: capacity}, Workers: w.workers, CPUs: w.cpus}
	if capacity == 0 {
		set.Capacity, set.WaitTarget = 1024, w.target
	}
	const warm = 100 * ms
	type sample struct{ at, x int64 }
	var waits, limits []sample
	run := Run{Seed: seed, WarmUp: warm, Length: time.Duration(w.length) * part,
		Waited: func(at int64, _ int, wait int64) { waits = append(waits, sample{at - int64(warm), wait}) },
		Looked: func(at int64, n int, l policy.Limit) {
			if n == 0 && at > int64(warm) {
				limits = append(limits, sample{at - int64(warm), int64(l.Depth)})
			}
		}}
	if _, err := SimulateListeners(w.loads, set, w.costs, run); err != nil {
		t.Fatal(err)
	}
	in := func(all []sample, from, to time.Duration) (xs []int64) {
		for _, s := range all {
			if s.at >= int64(from) && s.at < int64(to) {
				xs = append(xs, s.x)
			}
		}
		slices.Sort(xs)
		return xs
	}
	p99 := func(xs []int64) float64 {
		if len(xs) == 0 {
			return 0
		}
		return float64(xs[min(len(xs)-1, len(xs)*99/100)])
	}
	for n := w.length - w.steps - 1; n < w.length; n++ {
		from, to := time.Duration(n)*part, time.Duration(n+1)*part
		steady := from + w.settle(from)
		if n == w.length-w.steps-1 {
			from, steady = 0, 0
		}
		var p waitPart
		xs := in(waits, steady, to)
		p.p99, p.goodput = p99(xs), float64(len(xs))/(to-steady).Seconds()
		for ; p.settled < to-from-50*ms && p99(in(waits, from+p.settled, from+p.settled+50*ms)) > 1.1*float64(w.target); p.settled += ms {
		}
		var sum, squares float64
		ls := in(limits, steady, to)
		for _, x := range ls {
			sum, squares = sum+float64(x), squares+float64(x*x)
		}
		p.limit = sum / float64(len(ls))
		p.cv = sqrt(squares/float64(len(ls))-p.limit*p.limit) / p.limit
		parts = append(parts, p)
	}
	return parts
}

// settle is how long after a step at the given time the target may be missed: 50 ms and 20 services.
func (w *waitSetting) settle(at time.Duration) time.Duration {
	mean := w.loads[0].Service.Mean
	for _, s := range w.loads[0].Service.Steps {
		if s.At <= at {
			mean = s.Mean
		}
	}
	return 50*ms + 20*mean
}

// The target alone, without a capacity, does as well as the best capacity for each part of the load, which nobody
// knows beforehand, and which is another one in the next part.
func TestWaitTargetIsAsGoodAsTheBestCapacity(t *testing.T) {
	part, finer, capacities := 150*ms, 2., 128
	if *long {
		part, finer = time.Second, 1.25
	}
	for _, w := range waitSettings(part) {
		t.Run(w.name, func(t *testing.T) {
			const seed = 1
			got := w.run(t, part, 0, seed)
			fixed := map[int][]waitPart{}
			for k := float64(w.workers); k <= float64(capacities); k = math.Ceil(k * finer) {
				fixed[int(k)] = w.run(t, part, int(k), seed)
			}
			all := map[int]bool{} // capacities that meet the target in every part
			for k, parts := range fixed {
				all[k] = !slices.ContainsFunc(parts, func(p waitPart) bool { return p.p99 > float64(w.target) })
			}
			for i, p := range got {
				best, of := waitPart{}, 0
				for k, f := range fixed {
					if f[i].p99 <= float64(w.target) && f[i].goodput > best.goodput {
						best, of = f[i], k
					}
				}
				if of == 0 {
					t.Errorf("part %d: no capacity meets %v: the setting shows nothing", i+1, w.target)
					continue
				}
				t.Logf("part %d: p99 %v for %v, %.0f/s; capacity %d: %v, %.0f/s; back in %v, limit %.1f, CV %.2f", i+1, time.Duration(p.p99), w.target,
					p.goodput, of, time.Duration(best.p99), best.goodput, p.settled, p.limit, p.cv)
				if p.p99 > 1.1*float64(w.target) {
					t.Errorf("part %d: p99 %v, the target is %v", i+1, time.Duration(p.p99), w.target)
				}
				if p.goodput < .97*best.goodput {
					t.Errorf("part %d: %.0f/s, %.3f of that of capacity %d", i+1, p.goodput, p.goodput/best.goodput, of)
				}
				if most := w.settle(time.Duration(w.length-w.steps-1+i) * part); p.settled > most {
					t.Errorf("part %d: back within the target in %v, want %v", i+1, p.settled, most)
				}
				if p.cv > .2 && (w.ramps == 0 || i != w.ramps) {
					t.Errorf("part %d: the limit oscillates: CV %.2f", i+1, p.cv)
				}
			}
		})
	}
}

// A capacity that is right for one part of a load is wrong for the other one.
func TestNoCapacityFitsBothSidesOfAStep(t *testing.T) {
	const part, target = 200 * ms, 2 * ms
	for _, w := range waitSettings(part) {
		if w.name != "step by 4 and back" {
			continue
		}
		for _, k := range []int{16, 32} {
			parts := w.run(t, part, k, 1)
			if parts[0].p99 > 1.1*float64(target) || parts[1].p99 < 1.5*float64(target) {
				t.Errorf("capacity %d: p99 %v and %v for a target of %v", k, time.Duration(parts[0].p99), time.Duration(parts[1].p99), target)
			}
		}
	}
}

// A quiet listener beside others in overload waits as it does beside quiet ones, but for the workers being busy.
func TestQuietListenerKeepsItsWait(t *testing.T) {
	quiet := Load{Targets: 1, Service: sleeping(200*us, 0), Arrivals: Arrivals{Think: dist.Dist{Mean: 2 * ms, CV: 1}}}
	loud := Load{Targets: 128, Service: sleeping(200*us, 0)}
	set := Setting{Config: policy.Config{Capacity: 1024, WaitTarget: 3 * ms}, Workers: 4}
	os, err := SimulateListeners([]Load{loud, quiet}, set, Model{Recv: 3000, Send: 3000, Drop: 3000, Nudge: 3000, Target: 10000}, Run{Seed: 1, WarmUp: 100 * ms, Length: 500 * ms})
	if err != nil {
		t.Fatal(err)
	}
	if o := os[1]; o.Dropped > 0 || o.P99() > 210e3 || o.Served < 100 {
		t.Errorf("%d served, %d dropped, p99 %v: want no drop, and to wait for one handler at most", o.Served, o.Dropped, time.Duration(o.P99()))
	}
	if o := os[0]; o.P99() > 3.3e6 || o.Dropped == 0 {
		t.Errorf("the loud one: p99 %v, %d dropped", time.Duration(o.P99()), o.Dropped)
	}
}
