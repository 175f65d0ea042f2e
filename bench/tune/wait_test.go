package tune

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/unknot/unknot/bench/dist"
	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/engine/policy"
)

// A waitSetting is a load, a wait target, and the times at which the load changes.
type waitSetting struct {
	name    string
	loads   []Load
	workers int
	cpus    int
	target  time.Duration
	steps   []time.Duration // where parts begin, after the first
	length  time.Duration
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

func waitSettings() []waitSetting {
	small := Model{Recv: 3000, Send: 3000, Drop: 3000, Nudge: 3000, Target: 10000}
	one := func(l Load) []Load { return []Load{l} }
	part := 400 * ms
	return []waitSetting{
		{name: "closed, constant", loads: one(Load{Targets: 64, Service: sleeping(200*us, 0)}), workers: 2, target: 2 * ms, length: part, costs: small},
		{name: "closed, exponential", loads: one(Load{Targets: 64, Service: sleeping(200*us, 1)}), workers: 4, target: 2 * ms, length: part, costs: small},
		{name: "closed, computing", loads: one(Load{Targets: 48, Service: Service{Dist: dist.Dist{Mean: 150 * us, CV: .5}}}), workers: 2, cpus: 2, target: 3 * ms, length: part, costs: Model{Recv: 8000, Send: 8000, Drop: 6000, Nudge: 3000, Target: 15000, Idle: 5000, Grain: ms, Slice: 3 * ms, ReceiverFirst: true}},
		{name: "open, poisson at 0.8", loads: one(Load{Targets: 512, Service: sleeping(400*us, 1), Arrivals: open(storm.Process{Kind: storm.Poisson, Rate: 4000})}), workers: 2, target: 3 * ms, length: 2 * part, costs: small},
		{name: "closed, one slow worker", loads: one(Load{Targets: 32, Service: sleeping(2*ms, .5)}), workers: 1, target: 20 * ms, length: 4 * part, costs: small},
		{name: "four listeners", loads: slices.Repeat(one(Load{Targets: 24, Service: sleeping(200*us, .5)}), 4), workers: 4, target: 4 * ms, length: part, costs: small},

		{name: "step x4 and back", loads: one(Load{Targets: 64, Service: sleeping(100*us, 0, step(part, 400*us, 0), step(2*part, 100*us, 0))}), workers: 2, target: 2 * ms, steps: []time.Duration{part, 2 * part}, length: 3 * part, costs: small},
		{name: "step x4 and back, varying", loads: one(Load{Targets: 64, Service: sleeping(100*us, 1, step(part, 400*us, 1), step(2*part, 100*us, 1))}), workers: 2, target: 4 * ms, steps: []time.Duration{part, 2 * part}, length: 3 * part, costs: small},
		{name: "ramp x8", loads: one(Load{Targets: 64, Service: sleeping(100*us, .5, ramp(100*us, 800*us, part, 2*part, .5)...)}), workers: 4, target: 3 * ms, steps: []time.Duration{part, 2 * part}, length: 3 * part, costs: small},
		{name: "bursts", loads: one(Load{Targets: 512, Service: sleeping(400*us, .5), Arrivals: open(storm.Process{Kind: storm.OnOff, Rate: 4000, On: 20 * ms, Off: 20 * ms})}), workers: 2, target: 5 * ms, length: 4 * part, costs: small},
		{name: "two classes", loads: one(Load{Targets: 64, Service: mixed(5*us, 2*ms, 20)}), workers: 4, target: 10 * ms, length: 3 * part, costs: small},
		{name: "many listeners, steps", loads: append(slices.Repeat(one(Load{Targets: 16, Service: sleeping(200*us, .5, step(part, 800*us, .5), step(2*part, 200*us, .5))}), 8), Load{Targets: 1, Service: sleeping(200*us, .5), Arrivals: Arrivals{Think: dist.Dist{Mean: 5 * ms, CV: 1}}}), workers: 8, target: 10 * ms, steps: []time.Duration{part, 2 * part}, length: 3 * part, costs: small},
	}
}

type waitPart struct {
	p99, goodput float64
	settled      time.Duration // after its beginning
	limits       float64       // coefficient of variation
	limit        float64
	steady       bool
}

// run simulates with a capacity or, of 0, with the target alone. The parts are of all listeners but of the waits, which
// are those of the first.
func (w *waitSetting) run(t *testing.T, capacity int, seed uint64) (parts []waitPart, drops float64, limit policy.Limit) {
	set := Setting{Config: policy.Config{Capacity: capacity}, Workers: w.workers, CPUs: w.cpus}
	if capacity == 0 {
		set.Capacity, set.WaitTarget = 1024, w.target
	}
	const warm = 100 * ms
	type sample struct{ at, x int64 }
	var waits, limits []sample
	run := Run{Seed: seed, WarmUp: warm, Length: w.length,
		Waited: func(at int64, n int, wait int64) {
			if n == 0 {
				waits = append(waits, sample{at - int64(warm), wait})
			}
		},
		Looked: func(at int64, n int, l policy.Limit) {
			if n == 0 && at > int64(warm) {
				limits = append(limits, sample{at - int64(warm), int64(l.Depth)})
			}
		}}
	os, err := SimulateListeners(w.loads, set, w.costs, run)
	if err != nil {
		t.Fatal(err)
	}
	p99 := func(from, to time.Duration) (float64, int) {
		var xs []int64
		for _, s := range waits {
			if s.at >= int64(from) && s.at < int64(to) {
				xs = append(xs, s.x)
			}
		}
		if len(xs) == 0 {
			return 0, 0
		}
		slices.Sort(xs)
		return float64(xs[min(len(xs)-1, len(xs)*99/100)]), len(xs)
	}
	edges := append(append([]time.Duration{0}, w.steps...), w.length)
	for i := range len(edges) - 1 {
		from, to := edges[i], edges[i+1]
		settle := time.Duration(0)
		if i > 0 {
			settle = w.settle(from)
		}
		var p waitPart
		n := 0
		p.p99, n = p99(from+settle, to)
		p.goodput = float64(n) / (to - from - settle).Seconds()
		for ; p.settled < to-from; p.settled += ms {
			if x, _ := p99(from+p.settled, min(from+p.settled+50*ms, to)); x <= 1.1*float64(w.target) {
				break
			}
		}
		var sum, squares, k float64
		for _, s := range limits {
			if s.at >= int64(from+settle) && s.at < int64(to) {
				x := float64(s.x)
				sum, squares, k = sum+x, squares+x*x, k+1
			}
		}
		p.limit = sum / k
		p.limits = math.Sqrt(max(0, squares/k-p.limit*p.limit)) / p.limit
		parts = append(parts, p)
	}
	return parts, os[0].DropRate(), os[0].Limit
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

func TestWaitTarget(t *testing.T) {
	for _, w := range waitSettings() {
		t.Run(w.name, func(t *testing.T) {
			start := time.Now()
			got, drops, limit := w.run(t, 0, 1)
			fixed := map[int][]waitPart{}
			for k := w.workers; k <= 256; k = k*5/4 + 1 {
				fixed[k], _, _ = w.run(t, k, 1)
			}
			for i, p := range got {
				best, bestK := waitPart{}, 0
				for k, f := range fixed {
					if f[i].p99 <= float64(w.target) && f[i].goodput > best.goodput {
						best, bestK = f[i], k
					}
				}
				t.Logf("part %d: p99 %v of %v, goodput %.0f (%.3f of capacity %d, whose p99 is %v), settled in %v, limit %.1f CV %.2f", i, time.Duration(p.p99), w.target,
					p.goodput, p.goodput/best.goodput, bestK, time.Duration(best.p99), p.settled, p.limit, p.limits)
			}
			t.Logf("drops %.3f, limit %+v, in %v", drops, limit, time.Since(start))
		})
	}
	_ = fmt.Sprint
}
