package tune

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/unknot/unknot/engine/hist"
)

// A Sample is one measured storm: what was asked for and what came of it.
type Sample struct {
	Load    Load
	Setting Setting
	Outcome
	SupervisorCPU float64 // ns for each served call
	TargetCPU     float64 // ns for each served call
	// ServiceMean and ServiceCV are of the handlers by the wall clock, answer included.
	ServiceMean, ServiceCV float64
	Services               *hist.Snapshot
}

// A Fit is a Model found from samples.
type Fit struct {
	Model
	// Misfit is the mean of |ln(simulated / measured)| over the samples' throughputs,
	// median waits and 99th percentiles.
	Misfit float64
	// Service is S(n) = S₀ + a·n: the CPU time of the supervisor for a call with n in
	// flight, in ns.
	Service Line

	knots []knot // see Predict
}

// MaxMisfit is the Misfit above which a Fit predicts nothing.
const MaxMisfit = 0.35

// FitModel finds the Model under which the simulation comes nearest to the
// samples, which should be of one service, with few and with many calls in
// flight, with drops and without. CPU times are taken as they were measured; what
// is searched for is how the supervisor's time divides between receiving and
// answering, which part of the CPUs' time others take, and how coarsely the
// scheduler shares it out.
func FitModel(samples []Sample) (*Fit, error) {
	if len(samples) == 0 {
		return nil, fmt.Errorf("fit: no samples")
	}
	line := serviceLine(samples)
	base := Fit{Service: line}
	// The busiest sample tells of costs under load.
	busiest := &samples[0]
	for i := range samples {
		if samples[i].Goodput() > busiest.Goodput() {
			busiest = &samples[i]
		}
	}
	work, _ := busiest.Load.Service.Moments()
	sleeps := busiest.Load.Service.Sleeps
	over := busiest.SupervisorCPU
	if !sleeps {
		over = max(over-work, work/100, 2000)
	}
	best := math.Inf(1)
	idle := 8000.
	try := func(send, stretch float64, grain, slice time.Duration, first bool) {
		m := Model{
			Recv: over * (1 - send) * stretch, Send: over * send * stretch, Target: busiest.TargetCPU * stretch,
			Drop: over * (1 - send) * stretch * .7, Nudge: 3000, Idle: idle, PerCall: line.Slope / 2,
			Grain: grain, Slice: slice, ReceiverFirst: first,
		}
		if misfit := m.misfit(samples, best); misfit < best {
			best, base.Model = misfit, m
		}
	}
	if busiest.Load.Arrivals.Open() {
		// CPUs idle between calls, and what a wake-up takes then, on a virtual machine above
		// all, is most of a wait. It is CPU time too, as that was measured.
		for _, idle = range []float64{8e3, 30e3, 60e3, 120e3, 200e3} {
			for _, send := range []float64{0, .25, .5} {
				for _, stretch := range []float64{.1, .3, .6, 1} {
					for _, grain := range []time.Duration{0, time.Millisecond} {
						try(send, stretch, grain, 3*time.Millisecond, true)
					}
				}
			}
		}
	} else if sleeps {
		// What a sleeping handler's thread does before and after is in its service time.
		for _, send := range []float64{0, .25} {
			for _, grain := range []time.Duration{0, time.Millisecond} {
				try(send, .5, grain, 3*time.Millisecond, true)
				try(send, 1, grain, 3*time.Millisecond, true)
			}
		}
	} else {
		stretch := 1.
		if cpus := float64(busiest.Setting.CPUs); busiest.Setting.Workers >= busiest.Setting.CPUs {
			// With more to do than CPUs, what no call accounts for is lost to others.
			spent := busiest.Goodput() * (busiest.SupervisorCPU + busiest.TargetCPU)
			lost := max(cpus*1e9-spent, 0) / busiest.Goodput()
			stretch += lost / (over + busiest.TargetCPU)
		}
		for _, send := range []float64{.2, .4, .6, .8} {
			for _, x := range []float64{1, (1 + stretch) / 2, stretch} {
				for _, first := range []bool{false, true} {
					for _, g := range []time.Duration{0, 300 * time.Microsecond, time.Millisecond, 3 * time.Millisecond} {
						try(send, x, g, 3*time.Millisecond, first)
					}
				}
			}
		}
	}
	base.Misfit = best
	return &base, base.correct(samples)
}

// fitLength is how long a candidate is simulated for each sample.
const fitLength = 150 * time.Millisecond

// misfit is the mean distance between the samples and what m makes of them; it
// gives up, and returns more than limit, once it is above that for certain.
func (m Model) misfit(samples []Sample, limit float64) float64 {
	n := 3 * float64(len(samples))
	sum := 0.
	for _, s := range samples {
		o, err := Simulate(s.Load, s.Setting, m, Run{Seed: 1, WarmUp: 60 * time.Millisecond, Length: fitLength})
		if err != nil || o.Wait.Count == 0 || s.Wait.Count == 0 {
			return math.Inf(1)
		}
		for _, x := range [...][2]float64{{o.Goodput(), s.Goodput()}, {o.Wait.Quantile(.5), s.Wait.Quantile(.5)}, {o.P99(), s.P99()}} {
			sum += math.Abs(math.Log(max(x[0], 1) / max(x[1], 1)))
		}
		if sum/n > limit {
			break
		}
	}
	return sum / n
}

// A Line is Intercept + Slope·n.
type Line struct{ Intercept, Slope float64 }

// serviceLine fits the supervisor's CPU time for a call to the calls in flight, by
// least squares over the samples without drops, whose cost is another. A slope
// that may as well be 0, by two standard errors, is 0.
func serviceLine(samples []Sample) Line {
	var n, sx, sy, sxx, sxy, syy float64
	for _, s := range samples {
		if s.Dropped > 0 {
			continue
		}
		x, y := s.InFlight, s.SupervisorCPU
		n++
		sx, sy, sxx, sxy, syy = sx+x, sy+y, sxx+x*x, sxy+x*y, syy+y*y
	}
	if n == 0 {
		return Line{samples[0].SupervisorCPU, 0}
	}
	d := sxx - sx*sx/n
	if n < 4 || d <= 0 {
		return Line{sy / n, 0}
	}
	b := (sxy - sx*sy/n) / d
	rest := max(syy-sy*sy/n-b*b*d, 0) / (n - 2)
	if b < 2*math.Sqrt(rest/d) {
		return Line{sy / n, 0}
	}
	return Line{(sy - b*sx) / n, b}
}

// predictLength is how long a prediction simulates.
const predictLength = 2 * time.Second

// A Prediction is what is expected of a setting. P99 and Drop are corrected,
// Outcome is as it was simulated.
type Prediction struct {
	*Outcome
	P99  float64 // ns
	Drop float64 // part of the received calls
}

// Predict simulates a setting and corrects the 99th percentile and the drop rate by what the
// simulation was off at the capacities that were measured, interpolated over the
// logarithm of the capacity: what it does not know, it mostly does not know in
// one way for neighbouring capacities.
func (f *Fit) Predict(l Load, set Setting, seed uint64) (Prediction, error) {
	o, err := Simulate(l, set, f.Model, Run{Seed: seed, WarmUp: 100 * time.Millisecond, Length: predictLength})
	if err != nil {
		return Prediction{}, err
	}
	p99, drop := f.correction(set.Capacity)
	return Prediction{o, o.P99() * math.Exp(p99), max(0, min(1, o.DropRate()+drop))}, nil
}

// correction is, at a capacity, ln(measured / simulated) of the 99th percentile and
// measured − simulated of the drop rate.
func (f *Fit) correction(capacity int) (p99, drop float64) {
	x := math.Log(float64(capacity))
	for i, k := range f.knots {
		if x <= k.x {
			if i == 0 {
				return k.p99, k.drop
			}
			b := f.knots[i-1]
			w := (x - b.x) / (k.x - b.x)
			return b.p99 + w*(k.p99-b.p99), b.drop + w*(k.drop-b.drop)
		}
	}
	if n := len(f.knots); n > 0 {
		return f.knots[n-1].p99, f.knots[n-1].drop
	}
	return 0, 0
}

type knot struct{ x, p99, drop float64 }

// correct learns the correction from samples of the load that is tuned for, which is
// that of the most targets and the highest rate.
func (f *Fit) correct(samples []Sample) error {
	sums := map[int]*[3]float64{}
	var targets int
	var rate float64
	for _, s := range samples {
		targets, rate = max(targets, s.Load.Targets), max(rate, s.Load.Arrivals.Rate)
	}
	for _, s := range samples {
		if s.Load.Targets < targets || s.Load.Arrivals.Rate < rate {
			continue
		}
		o, err := Simulate(s.Load, s.Setting, f.Model, Run{Seed: 3, WarmUp: 100 * time.Millisecond, Length: predictLength})
		if err != nil {
			return err
		}
		k := sums[s.Setting.Capacity]
		if k == nil {
			k = new([3]float64)
			sums[s.Setting.Capacity] = k
		}
		k[0] += math.Log(max(s.P99(), 1) / max(o.P99(), 1))
		k[1] += s.DropRate() - o.DropRate()
		k[2]++
	}
	for capacity, k := range sums {
		f.knots = append(f.knots, knot{math.Log(float64(capacity)), max(-1, min(1, k[0]/k[2])), k[1] / k[2]})
	}
	slices.SortFunc(f.knots, func(a, b knot) int { return cmp.Compare(a.x, b.x) })
	return nil
}
