package tune

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/aclements/go-moremath/stats"
	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/cmd/unknot/internal/tune/sim"
	"github.com/unknot/unknot/engine/hist"
)

// A Sample is one measured storm: what was asked for and what came of it.
type Sample struct {
	Load    Load
	Setting Setting
	Seed    uint64        // of an open loop's calls
	Length  time.Duration // of the storm
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
	// Residual is the median of |ln(predicted / measured)| over the 99th percentiles of the
	// load that is tuned for, each predicted with the correction that the other capacities
	// give: how far a prediction for a capacity that was not measured is off.
	Residual float64
	// Service is S(n) = S₀ + a·n: the CPU time of the supervisor for a call with n in
	// flight, in ns.
	Service Line

	knots []knot // see Predict
	roomy int    // the capacity from which on a closed loop has a place for every target; 0: an open loop
}

// MaxMisfit is the Residual above which a Fit predicts nothing.
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
	// The busiest sample tells of costs under load: of a closed loop, if there is one, which
	// is never idle.
	var busiest, timed *Sample
	for i := range samples {
		of := &busiest
		if samples[i].Load.Arrivals.Open() {
			of = &timed
		}
		if *of == nil || samples[i].Goodput() > (*of).Goodput() {
			*of = &samples[i]
		}
	}
	open := timed != nil
	if busiest == nil {
		busiest = timed
	} else if !open {
		timed = busiest
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
			Recv: over * (1 - send) * stretch, Send: over * send * stretch, Target: busiest.TargetCPU * stretch, Timed: timed.TargetCPU,
			Drop: over * (1 - send) * stretch * .7, Nudge: 3000, Idle: idle, PerCall: line.Slope / 2,
			Grain: grain, Slice: slice, ReceiverFirst: first,
		}
		if off := misfit(m, samples, best); off < best {
			best, base.Model = off, m
		}
	}
	stretch := 1.
	if cpus := float64(busiest.Setting.CPUs); !sleeps && busiest.Setting.Workers >= busiest.Setting.CPUs {
		// With more to do than CPUs, what no call accounts for is lost to others.
		lost := max(cpus*1e9/busiest.Goodput()-max(busiest.SupervisorCPU, work+over)-busiest.TargetCPU, 0)
		stretch += lost / (over + busiest.TargetCPU)
	}
	sends, stretches := []float64{.2, .4, .6, .8}, []float64{1, (1 + stretch) / 2, stretch}
	firsts, grains := []bool{false, true}, []time.Duration{0, 300 * time.Microsecond, time.Millisecond, 3 * time.Millisecond}
	idles := []float64{8e3}
	switch {
	case sleeps:
		// What a sleeping handler's thread does before and after is in its service time.
		sends, stretches, firsts, grains = []float64{0, .25}, []float64{.5, 1}, []bool{true}, []time.Duration{0, time.Millisecond}
	case open: // so is what one does that computes, see simulated
		sends = []float64{0, .25, .5}
	}
	if open {
		// CPUs idle between calls, and on a virtual machine above all it takes long to wake one.
		idles = []float64{8e3, 30e3, 60e3, 120e3}
	}
	for _, idle = range idles {
		for _, send := range sends {
			for _, x := range stretches {
				for _, first := range firsts {
					for _, g := range grains {
						try(send, x, g, 3*time.Millisecond, first)
					}
				}
			}
		}
	}
	base.Misfit = best
	return &base, base.correct(samples)
}

// fitLength is how long a candidate is simulated for each sample of a closed loop.
const fitLength = 150 * time.Millisecond

// run is the run that is held against the sample. An open loop's is of the very calls
// that were stormed, since a short storm's bursts are not the average ones.
func (s *Sample) run(seed uint64, length time.Duration) Run {
	if s.Load.Arrivals.Open() {
		return Run{Seed: s.Seed, WarmUp: bench.WarmUp, Length: s.Length}
	}
	return Run{Seed: seed, WarmUp: bench.WarmUp, Length: length}
}

// misfit is the mean distance between the samples and what m makes of them; it
// gives up, and returns more than limit, once it is above that for certain.
func misfit(m Model, samples []Sample, limit float64) float64 {
	n := 3 * float64(len(samples))
	sum := 0.
	for _, s := range samples {
		o, err := sim.Simulate(s.Load, s.Setting, m, s.run(1, fitLength))
		if err != nil || o.Wait.Count == 0 || s.Wait.Count == 0 {
			return math.Inf(1)
		}
		mean, _ := s.Load.Service.Moments()
		short := max(mean/4, 20e3) // waits below that are all alike: a thread's way to a CPU
		for _, x := range [...][3]float64{{o.Goodput(), s.Goodput(), 1}, {o.Wait.Quantile(.5), s.Wait.Quantile(.5), short}, {o.P99(), s.P99(), short}} {
			sum += math.Abs(math.Log(max(x[0], x[2]) / max(x[1], x[2])))
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

// A Prediction is what is expected of a setting: what was simulated, corrected.
type Prediction struct {
	Goodput float64 // calls per second
	P99     float64 // of the wait, ns
	Drop    float64 // part of the received calls
}

// Predict simulates a setting and corrects its results by what the
// simulation was off at the capacities that were measured, interpolated over the
// logarithm of the capacity: what it does not know, it mostly does not know in
// one way for neighbouring capacities.
func (f *Fit) Predict(l Load, set Setting, seed uint64) (Prediction, error) {
	return f.predict(l, set, Run{Seed: seed, WarmUp: bench.WarmUp, Length: predictLength})
}

func (f *Fit) predict(l Load, set Setting, run Run) (Prediction, error) {
	o, err := sim.Simulate(l, set, f.Model, run)
	if err != nil {
		return Prediction{}, err
	}
	k := set.Capacity
	if set.WaitTarget > 0 {
		k = min(o.Limit.Depth, max(l.Targets, 1)) // which is what bounded it
	}
	c := f.correction(k)
	return Prediction{o.Goodput() * math.Exp(c.goodput), o.P99() * math.Exp(c.p99), max(0, min(1, o.DropRate()+c.drop))}, nil
}

// A knot is, at a capacity of logarithm x, ln(measured / simulated) of the goodput and of the
// 99th percentile, and measured − simulated of the drop rate.
type knot struct{ x, goodput, p99, drop float64 }

// correction is what the knots say of a capacity. Where every target has a place nothing is
// dropped, which is another regime: it says nothing about smaller capacities, nor they about it.
func (f *Fit) correction(capacity int) knot {
	knots := f.knots
	if n := len(knots); f.roomy > 0 && n > 1 && knots[n-1].x >= math.Log(float64(f.roomy)) {
		if capacity >= f.roomy {
			return knots[n-1]
		}
		knots = knots[:n-1]
	}
	x := math.Log(float64(capacity))
	for i, k := range knots {
		if x <= k.x {
			if i == 0 {
				return k
			}
			b := knots[i-1]
			w := (x - b.x) / (k.x - b.x)
			return knot{x, b.goodput + w*(k.goodput-b.goodput), b.p99 + w*(k.p99-b.p99), b.drop + w*(k.drop-b.drop)}
		}
	}
	if n := len(knots); n > 0 {
		return knots[n-1]
	}
	return knot{}
}

// correct learns the correction from samples of the load that is tuned for, which is
// that of the most targets and the highest rate: the median of each capacity's.
func (f *Fit) correct(samples []Sample) error {
	open := slices.ContainsFunc(samples, func(s Sample) bool { return s.Load.Arrivals.Open() })
	var targets int
	var rate float64
	for _, s := range samples {
		targets, rate = max(targets, s.Load.Targets), max(rate, s.Load.Arrivals.Rate())
	}
	goodputs, p99s, drops := map[int][]float64{}, map[int][]float64{}, map[int][]float64{}
	for _, s := range samples {
		if s.Load.Arrivals.Open() != open || s.Load.Targets < targets || s.Load.Arrivals.Rate() < rate {
			continue
		}
		o, err := sim.Simulate(s.Load, s.Setting, f.Model, s.run(3, predictLength))
		if err != nil {
			return err
		}
		k := s.Setting.Capacity
		goodputs[k] = append(goodputs[k], math.Log(max(s.Goodput(), 1)/max(o.Goodput(), 1)))
		p99s[k] = append(p99s[k], math.Log(max(s.P99(), 1)/max(o.P99(), 1)))
		drops[k] = append(drops[k], s.DropRate()-o.DropRate())
	}
	f.knots, f.roomy = nil, targets
	if open {
		f.roomy = 0
	}
	for k := range p99s {
		f.knots = append(f.knots, knot{math.Log(float64(k)), max(-.3, min(.3, stats.Sample{Xs: goodputs[k]}.Quantile(.5))), max(-1, min(1, stats.Sample{Xs: p99s[k]}.Quantile(.5))), stats.Sample{Xs: drops[k]}.Quantile(.5)})
	}
	slices.SortFunc(f.knots, func(a, b knot) int { return cmp.Compare(a.x, b.x) })
	f.Residual = f.Misfit
	if len(f.knots) < 3 {
		return nil
	}
	var off []float64
	for i := 1; i < len(f.knots)-1; i++ {
		others := Fit{roomy: f.roomy, knots: slices.Delete(slices.Clone(f.knots), i, i+1)}
		k := int(math.Round(math.Exp(f.knots[i].x)))
		for _, x := range p99s[k] {
			off = append(off, math.Abs(x-others.correction(k).p99))
		}
	}
	f.Residual = stats.Sample{Xs: off}.Quantile(.5)
	return nil
}
