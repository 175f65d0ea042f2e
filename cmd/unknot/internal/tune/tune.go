package tune

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/aclements/go-moremath/stats"
	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/cmd/unknot/internal/tune/sim"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/policy"
)

// A Request is what is asked for.
type Request struct {
	Load     Load
	Workers  int
	WaitP99  time.Duration // the target
	MaxDrop  float64       // part of the received calls; 1: no limit
	Duration time.Duration // of one storm; 0: as long as its arrivals want
	Rounds   int           // of the verification
	Seed     uint64        // of orders and simulations
	Confine  bench.Confiner
	// Progress, if not nil, is told what is done.
	Progress func(done, total int, what string)
}

// A Candidate is a capacity with what is expected of it.
type Candidate struct {
	Capacity int
	Goodput  float64 // calls per second
	P99      float64 // ns
	Drop     float64
	Meets    bool
}

// A Check is one capacity, or the wait target without one, under one arrival process: predicted and measured.
type Check struct {
	Process  string
	Capacity int  // 0: Target
	Target   bool // the engine bounds the depth by itself, to keep to the wait target
	Chosen   bool
	Predicted,
	Measured Candidate
	P99Low, P99High float64 // the rounds' range
	Rounds          int
	Agrees          bool
}

// A Result is the answer.
type Result struct {
	Request                   Request
	CPUs                      int
	Fit                       *Fit
	Samples                   []*Sample
	Service                   struct{ Mean, CV float64 } // of handlers by the wall clock, ns
	Knee                      float64
	KneeLow                   float64 // 95%, by bootstrap
	KneeHigh                  float64
	Capacity                  float64 // of the engine, calls/s
	CapacityLow, CapacityHigh float64 // 95%, by bootstrap
	Deadline                  int     // bound
	Burst                     int     // bound; 0: no burst needs room
	Candidates                []Candidate
	Chosen                    Candidate
	Checks                    []Check
	// Curves are the p99 waits by load, for the report: for each capacity of
	// CurveCapacities, at each of CurveLoads, which are threads of the closed loop, or
	// calls per second.
	CurveCapacities []int
	CurveLoads      []float64
	Curves          [][]Candidate
}

// Agrees reports whether every check of the chosen capacity agrees.
func (r *Result) Agrees() bool {
	for _, c := range r.Checks {
		if c.Chosen && !c.Agrees {
			return false
		}
	}
	return true
}

// A Refusal is the reason why there is no answer.
type Refusal struct{ Reason string }

func (r *Refusal) Error() string { return r.Reason }

func refuse(format string, args ...any) error { return &Refusal{fmt.Sprintf(format, args...)} }

// Agreement: within 25% of the p99 and 2 points of the drop rate.
const (
	agreeP99  = .25
	agreeDrop = .02
)

// setting is the engine with a capacity; with targetAlone, with a wait target and as much room as that may want.
func (r *Request) setting(capacity int) Setting {
	if capacity == targetAlone {
		return Setting{Config: policy.Config{Capacity: engine.DefaultTargetQueue, WaitTarget: r.WaitP99}, Workers: r.Workers, CPUs: cpuCount()}
	}
	return Setting{Config: policy.Config{Capacity: capacity}, Workers: r.Workers, CPUs: cpuCount()}
}

// targetAlone, as a capacity, is none: the engine finds it.
const targetAlone = 0

// saturating is how many threads of a closed loop keep the workers busy.
func (r *Request) saturating() int {
	if !r.Load.Arrivals.Open() {
		return r.Load.Targets
	}
	return max(8*r.Workers, 16)
}

// lone is how many threads of a closed loop never queue: one for each worker; beside an open
// loop a single one, whose calls show how long handlers take where nobody else
// wants a CPU.
func (r *Request) lone() int {
	if r.Load.Arrivals.Open() {
		return 1
	}
	return r.Workers
}

// top is the largest capacity that is looked at: in a closed loop there are never
// more calls than targets; in an open one twice what can be served in time is
// too much in any case.
func (r *Request) top() int {
	if !r.Load.Arrivals.Open() {
		return r.Load.Targets
	}
	mean, _ := r.Load.Service.Moments()
	return min(max(2*sim.DeadlineBound(r.Workers, mean, float64(r.WaitP99)), 16), 256)
}

// openTargets is how many threads make the calls of an open loop unless told
// otherwise: enough for the largest capacity that is stormed, twice top, for all calls
// whose answer is held at once, and for some on their way.
func (r *Request) openTargets() int { return 2*r.top() + policy.DefaultMaxHeld + r.Workers + 64 }

// defaults fills in what the request leaves to the load.
func (r *Request) defaults() {
	if r.Load.Arrivals.Open() && r.Load.Targets == 0 {
		r.Load.Targets = r.openTargets()
	}
	if r.Duration == 0 {
		// So many calls that a 99th percentile says something.
		mean, _ := r.Load.Service.Moments()
		r.Duration = min(max(time.Duration(2000*mean)/time.Duration(max(r.Workers, 1)), enough(r.Load.Arrivals)), mostEnough).Round(time.Millisecond)
	}
}

// Tune measures, fits, chooses and verifies. In an open loop a Load.Targets of 0 means
// enough.
func Tune(ctx context.Context, r Request) (*Result, error) {
	r.defaults()
	if err := r.Load.Check(); err != nil {
		return nil, err
	}
	res := &Result{Request: r, CPUs: cpuCount()}
	n := r.saturating()
	if n <= r.Workers {
		return nil, refuse("%d targets and %d workers: no call ever waits in the queue, whatever its capacity; tune needs more targets than workers", n, r.Workers)
	}
	points := r.sweep()
	total, done := len(points)+refineStorms+r.Rounds*8, 0
	measure := func(l Load, capacity int, what string) (*Sample, error) {
		if r.Progress != nil {
			total = max(total, done+1) // it is not known beforehand how often the choice is refined
			with := fmt.Sprintf("capacity %d", capacity)
			if capacity == targetAlone {
				with = fmt.Sprintf("wait target %v", r.WaitP99)
			}
			r.Progress(done, total, fmt.Sprintf("%s: %v, %s", what, l.Arrivals, with))
		}
		done++
		return r.measure(ctx, l, capacity, r.Seed+uint64(done))
	}
	for _, p := range points {
		s, err := measure(p.load, p.capacity, "sweep")
		if err != nil {
			return nil, err
		}
		res.Samples = append(res.Samples, s)
	}
	if err := sameTwice(res.Samples); err != nil {
		return nil, err
	}
	if err := res.fit(measure); err != nil {
		return nil, err
	}
	res.describe()
	if err := res.decide(measure); err != nil {
		return nil, err
	}
	if err := res.verify(measure); err != nil {
		return nil, err
	}
	return res, res.curves(simulated(r.Load, res.Samples))
}

// A stormer storms a load at a capacity; what is said to the user as what it is for.
type stormer func(l Load, capacity int, what string) (*Sample, error)

// storms adds n storms of the load at each of the capacities, in turn, to the samples.
func (res *Result) storms(measure stormer, n int, what string, capacities ...int) error {
	for range n {
		for _, k := range capacities {
			s, err := measure(res.Request.Load, k, what)
			if err != nil {
				return err
			}
			res.Samples = append(res.Samples, s)
		}
	}
	return nil
}

// refineStorms is how many storms the choice is refined by each time.
const refineStorms = 3

// refineMost bounds how often.
const refineMost = 6

// decide chooses a capacity, storms it, learns from that and chooses again, until it has
// stormed what it chooses. In turn with it, it storms what was best of all measured, since the
// machine may be another one than at the time of the sweep.
func (res *Result) decide(measure stormer) error {
	stormed := map[int]bool{}
	for {
		if err := res.choose(simulated(res.Request.Load, res.Samples)); err != nil {
			return err
		}
		k := res.Chosen.Capacity
		if stormed[k] || len(stormed) == refineMost {
			return nil
		}
		stormed[k] = true
		ks := []int{k}
		if rival := res.rival(); rival != 0 && rival != k {
			ks = append(ks, rival)
		}
		if err := res.storms(measure, refineStorms, "refine", ks...); err != nil {
			return err
		}
		if err := res.Fit.correct(res.fitted()); err != nil {
			return err
		}
	}
}

// rival is the capacity that served most in the storms of the load, of those that met the target
// with room; 0 if none did.
func (res *Result) rival() (best int) {
	got := map[int][]*Sample{}
	for _, s := range res.Samples {
		if s.Load.Targets == res.Request.Load.Targets && s.Load.Arrivals == res.Request.Load.Arrivals {
			got[s.Setting.Capacity] = append(got[s.Setting.Capacity], s)
		}
	}
	most := 0.
	for k, s := range got {
		if c := res.meets(typical(s)); c.Meets && res.safe(c) && c.Goodput > most {
			best, most = k, c.Goodput
		}
	}
	return best
}

// fitted is the samples that the model is fitted to: those in which calls queue.
func (res *Result) fitted() (at []Sample) {
	for _, s := range res.Samples {
		if s.Load.Targets > res.Request.lone() {
			m := *s
			m.Load = simulated(s.Load, res.Samples)
			at = append(at, m)
		}
	}
	return at
}

// A point is what one storm of the sweep is of.
type point struct {
	load     Load
	capacity int
}

// sweep is what is measured, in shuffled order: the load at several capacities, and what
// tells the rest of the model: calls that do not queue, and fewer of them.
func (r *Request) sweep() []point {
	open := r.Load.Arrivals.Open()
	closed := func(targets int) Load {
		l := r.Load
		l.Targets = targets
		if open {
			l.Arrivals = Arrivals{}
		}
		return l
	}
	n, top := r.saturating(), r.top()
	points := []point{{closed(r.lone()), n}}
	for _, k := range sweepCapacities(top) {
		points = append(points, point{r.Load, k})
	}
	if open {
		slower := r.Load
		slower.Arrivals = times(slower.Arrivals, .5) // few calls in flight
		points = append(points, point{slower, top}, point{closed(n), n})
	} else {
		points = append(points, point{closed(max(n/2, r.Workers+1)), n})
	}
	points = slices.Repeat(points, 3)
	shuffle(points, r.Seed)
	return points
}

// measure storms. Where the machine stands still for a moment, or one burst is very long, a
// storm runs out of threads; more than once, and it is the load.
func (r *Request) measure(ctx context.Context, l Load, capacity int, seed uint64) (s *Sample, err error) {
	for try := range uint64(3) {
		s, err = Storm(ctx, l, r.setting(capacity), r.Confine, r.Duration, seed+try<<32)
		var refusal *Refusal
		if !errors.As(err, &refusal) {
			break
		}
	}
	return s, err
}

// fit finds the model of the samples, or refuses. Where it predicts badly, it first has
// capacities between those of the sweep stormed too.
func (res *Result) fit(measure stormer) (err error) {
	for finer := false; ; finer = true {
		if res.Fit, err = FitModel(res.fitted()); err != nil {
			return err
		}
		switch {
		case res.Fit.Residual <= MaxMisfit:
			return nil
		case finer:
			return refuse("the model does not fit what was measured (off by %.0f%% on average, at most %.0f%% is accepted): keep the machine otherwise idle; and handlers shorter than about 20µs run on the receive thread's CPU in turns, which it does not know: measure those with bench instead", 100*res.Corrected(), 100*(math.Exp(MaxMisfit)-1))
		}
		if err := res.storms(measure, 2, "sweep, finer", between(sweepCapacities(res.Request.top()))...); err != nil {
			return err
		}
	}
}

// between are the capacities halfway, by their logarithm, between those given, which are in order.
func between(ks []int) (mid []int) {
	for i, k := range ks[1:] {
		if m := int(math.Round(math.Sqrt(float64(k) * float64(ks[i])))); m > ks[i] && m < k {
			mid = append(mid, m)
		}
	}
	return mid
}

// sweepCapacities are those that are measured: from few to all targets.
func sweepCapacities(n int) []int {
	ks := []int{4, max(n/8, 5), max(n/3, 6), n}
	slices.Sort(ks)
	return slices.Compact(ks)
}

// sameTwice refuses samples that say different things of one setting.
func sameTwice(samples []*Sample) error {
	for i, a := range samples {
		for _, b := range samples[:i] {
			if a.Load.Targets == b.Load.Targets && a.Load.Arrivals.String() == b.Load.Arrivals.String() && a.Setting.Capacity == b.Setting.Capacity {
				x := a.Goodput() / b.Goodput()
				if a.Load.Arrivals.Open() { // where as many are served as come: what else differs is the bursts
					x = (1 - a.DropRate()) / (1 - b.DropRate())
				}
				if x > 1.6 || x < 1/1.6 {
					return refuse("the load is not stationary: two storms of one setting (%d targets, capacity %d) served %.0f and %.0f calls/s; keep the machine otherwise idle, or give a longer --duration", a.Load.Targets, a.Setting.Capacity, a.Goodput(), b.Goodput())
				}
			}
		}
	}
	return nil
}

// describe reads the service time, the knee and the capacity off the samples.
func (res *Result) describe() {
	w := res.Request.Workers
	var lone, full []*Sample
	for _, s := range res.Samples {
		switch {
		case s.Load.Arrivals.Open():
		case s.Load.Targets == res.Request.lone():
			lone = append(lone, s)
		case s.Load.Targets == res.Request.saturating():
			full = append(full, s)
		}
	}
	knee := func(pick func([]*Sample) []*Sample) (knee, capacity float64) {
		var trip float64
		for _, s := range pick(lone) {
			trip += s.InFlight / s.Goodput() / float64(len(lone)) // of a call that does not queue, s
		}
		for _, s := range pick(full) {
			capacity += s.Goodput() / float64(len(full))
		}
		return capacity * (trip + res.Request.Load.Arrivals.Think.Mean.Seconds()), capacity
	}
	res.Knee, res.Capacity = knee(func(s []*Sample) []*Sample { return s })
	rng := rand.New(rand.NewPCG(res.Request.Seed, 0xb007))
	const draws = 1000
	knees, capacities := make([]float64, draws), make([]float64, draws)
	for i := range draws {
		knees[i], capacities[i] = knee(func(s []*Sample) []*Sample {
			out := make([]*Sample, len(s))
			for i := range out {
				out[i] = s[rng.IntN(len(s))]
			}
			return out
		})
	}
	slices.Sort(knees)
	slices.Sort(capacities)
	res.KneeLow, res.KneeHigh = knees[draws/40], knees[draws-1-draws/40]
	res.CapacityLow, res.CapacityHigh = capacities[draws/40], capacities[draws-1-draws/40]
	for _, s := range full {
		res.Service.Mean += s.ServiceMean / float64(len(full))
		res.Service.CV += s.ServiceCV / float64(len(full))
	}
	// By what the workers serve together, which is never more than the CPUs yield.
	service := float64(w) / res.Capacity
	res.Deadline = sim.DeadlineBound(w, service, res.Request.WaitP99.Seconds())
	res.Burst = burstBound(res.Request.Load.Arrivals, w, service)
}

func (res *Result) candidate(l Load, capacity int, seed uint64) (Candidate, error) {
	p, err := res.Fit.Predict(l, res.Request.setting(capacity), seed)
	if err != nil {
		return Candidate{}, err
	}
	return res.meets(Candidate{Capacity: capacity, Goodput: p.Goodput, P99: p.P99, Drop: p.Drop}), nil
}

// safe leaves room for a prediction that is somewhat off: as much as predictions of capacities
// that were not measured are, within bounds.
func (res *Result) safe(c Candidate) bool {
	room := max(.7, min(.85, math.Exp(-res.Fit.Residual)))
	return c.P99 <= room*float64(res.Request.WaitP99)
}

// What is chosen serves at least nearBest of what the best serves, and drops at most moreDrops
// more of the calls than the least.
const (
	nearBest  = .98
	moreDrops = .02
)

// choose takes the smallest capacity that meets the target, with some room if any does, of
// those that serve nearly as much as the best and drop hardly more than the least,
// and have two places for each worker, if any has: below that, chance decides
// whether a worker finds something to do.
func (res *Result) choose(l Load) error {
	res.Candidates = nil
	var some, safe []Candidate
	for _, k := range candidates(res.Request.top()) {
		c, err := res.candidate(l, k, res.Request.Seed+1)
		if err != nil {
			return err
		}
		res.Candidates = append(res.Candidates, c)
		if c.Meets {
			some = append(some, c)
			if res.safe(c) {
				safe = append(safe, c)
			}
		}
	}
	if len(some) == 0 {
		return res.nothingWorks(l)
	}
	if len(safe) > 0 {
		some = safe
	}
	res.Chosen = pick(some, res.Request.Workers)
	// With a place for all targets that are not being served, whether there are drops is up to
	// how fast a worker comes back for the next call. With one for each, there are none.
	last := some[len(some)-1]
	if n := l.Targets; !l.Arrivals.Open() && res.Chosen.Capacity >= n-res.Request.Workers && last.Capacity == n {
		res.Chosen = last
	}
	return nil
}

// pick takes the smallest of the candidates, in order, that serve nearly as much as the best and drop hardly more than the least, and
// have two places for each worker.
func pick(some []Candidate, workers int) (chosen Candidate) {
	least, best := 1., 0.
	for _, c := range some {
		least = min(least, c.Drop)
	}
	few := slices.DeleteFunc(slices.Clone(some), func(c Candidate) bool { return c.Drop > least+moreDrops })
	for _, c := range few {
		best = max(best, c.Goodput)
	}
	for _, c := range few {
		if c.Goodput >= nearBest*best {
			chosen = c
			if c.Capacity >= 2*workers {
				break
			}
		}
	}
	return chosen
}

// candidates are about a sixth apart.
func candidates(n int) (ks []int) {
	top := min(max(n, 2), engine.MaxQueue)
	for k := 1.; int(k) < top; k = max(k+1, k*1.19) {
		ks = append(ks, int(k))
	}
	return append(ks, top)
}

// nothingWorks says so, and what would.
func (res *Result) nothingWorks(l Load) error {
	r := res.Request
	least := res.Candidates[0]
	for _, c := range res.Candidates {
		if c.Drop <= r.MaxDrop && (least.Drop > r.MaxDrop || c.P99 < least.P99) {
			least = c
		}
	}
	msg := fmt.Sprintf("no capacity meets wait-p99=%v", r.WaitP99)
	if r.MaxDrop < 1 {
		msg += fmt.Sprintf(" with at most %.3g%% dropped", 100*r.MaxDrop)
	}
	msg += fmt.Sprintf(" under %s: ", r.Load)
	if service := res.Service.Mean; service > float64(r.WaitP99) {
		msg += fmt.Sprintf("no depth that keeps %d workers busy can meet this: service is %s; ", r.Workers, bench.Duration(service))
	}
	if res.Burst > res.Deadline {
		msg += fmt.Sprintf("a burst wants room for %d calls, and no more than %d are served in time; ", res.Burst, res.Deadline)
	}
	if least.Drop > r.MaxDrop {
		msg += fmt.Sprintf("every one drops more. A target of --max-drop %.3g%% works", 100*least.Drop)
	} else {
		msg += fmt.Sprintf("at best, at capacity %d, p99 is %v with %.2g%% dropped. A target of wait-p99=%v works", least.Capacity, bench.Duration(least.P99), 100*least.Drop, bench.Duration(1.1*least.P99))
	}
	if r.Load.Service.Sleeps {
		for w := r.Workers * 2; w <= min(64*r.Workers, engine.MaxWorkers) && w < l.Targets; w *= 2 {
			for _, k := range candidates(r.top()) {
				set := r.setting(k)
				set.Workers = w
				p, err := res.Fit.Predict(l, set, r.Seed)
				if err == nil && p.P99 <= float64(r.WaitP99) && p.Drop <= r.MaxDrop {
					return refuse("%s; so do %d workers with a capacity of %d", msg, w, k)
				}
			}
		}
	} else if r.Workers < res.CPUs {
		msg += fmt.Sprintf("; or add workers: %d of %d CPUs have one", r.Workers, res.CPUs)
	} else {
		msg += "; handlers compute, so more workers do not help: shorten them, or add CPUs"
	}
	return refuse("%s", msg)
}

// verify storms the chosen capacity, half and twice of it, and the wait target alone, interleaved, under the
// load itself and under another arrival process, and holds the predictions against them.
func (res *Result) verify(measure stormer) error {
	r := res.Request
	changed := r.Load
	changed.Arrivals = other(r.Load.Arrivals, float64(r.Load.Targets)/res.Capacity)
	ks := []int{max(res.Chosen.Capacity/2, 1), res.Chosen.Capacity, 2 * res.Chosen.Capacity}
	ks = append(slices.Compact(ks), targetAlone)
	type point struct{ process, k int }
	var points []point
	loads := []Load{r.Load, changed}
	for p := range loads {
		for k := range ks {
			points = append(points, point{p, k})
		}
	}
	got := make(map[point][]*Sample)
	for round := range r.Rounds {
		shuffle(points, r.Seed+uint64(round)+100)
		for _, p := range points {
			s, err := measure(loads[p.process], ks[p.k], "verify")
			if err != nil {
				return err
			}
			got[p] = append(got[p], s)
		}
	}
	for p, load := range loads {
		for i, k := range ks {
			pred, err := res.expected(simulated(load, res.Samples), k, got[point{p, i}])
			if err != nil {
				return err
			}
			c := Check{Process: load.Arrivals.String(), Capacity: k, Chosen: k == res.Chosen.Capacity, Target: k == targetAlone, Predicted: pred, Rounds: r.Rounds}
			c.Measured = res.meets(typical(got[point{p, i}]))
			c.P99Low, c.P99High = math.Inf(1), 0
			for _, s := range got[point{p, i}] {
				c.P99Low, c.P99High = min(c.P99Low, s.P99()), max(c.P99High, s.P99())
			}
			c.Agrees = agree(pred, c.Measured)
			res.Checks = append(res.Checks, c)
		}
	}
	return nil
}

// typical is the medians of storms of one setting.
func typical(storms []*Sample) Candidate {
	var p99, drop, x []float64
	for _, s := range storms {
		p99, drop, x = append(p99, s.P99()), append(drop, s.DropRate()), append(x, s.Goodput())
	}
	return Candidate{Capacity: storms[0].Setting.Capacity, P99: stats.Sample{Xs: p99}.Quantile(.5), Drop: stats.Sample{Xs: drop}.Quantile(.5), Goodput: stats.Sample{Xs: x}.Quantile(.5)}
}

// agree reports whether a prediction is near enough to what was measured.
func agree(predicted, measured Candidate) bool {
	return math.Abs(predicted.P99/measured.P99-1) <= agreeP99 && math.Abs(predicted.Drop-measured.Drop) <= agreeDrop
}

// expected is the prediction that storms are held against: of an open loop, that for the
// very calls that they made, of which the simulation saw none before.
func (res *Result) expected(l Load, capacity int, storms []*Sample) (Candidate, error) {
	if !l.Arrivals.Open() {
		return res.candidate(l, capacity, res.Request.Seed+2)
	}
	var p99, drop, x []float64
	for _, s := range storms {
		p, err := res.Fit.predict(l, s.Setting, s.run(0, 0))
		if err != nil {
			return Candidate{}, err
		}
		p99, drop, x = append(p99, p.P99), append(drop, p.Drop), append(x, p.Goodput)
	}
	return res.meets(Candidate{Capacity: capacity, P99: stats.Sample{Xs: p99}.Quantile(.5), Drop: stats.Sample{Xs: drop}.Quantile(.5), Goodput: stats.Sample{Xs: x}.Quantile(.5)}), nil
}

// meets is c with its verdict.
func (res *Result) meets(c Candidate) Candidate {
	c.Meets = c.P99 <= float64(res.Request.WaitP99) && c.Drop <= res.Request.MaxDrop
	return c
}

// curves predicts the wait by load, for the report.
func (res *Result) curves(l Load) error {
	targets, rate := l.Targets, l.Arrivals.Rate()
	k := res.Chosen.Capacity
	res.CurveCapacities = slices.Compact([]int{max(k/2, 1), k, 2 * k})
	var loads []Load
	for i := 1; i <= 8; i++ {
		part := float64(i) / 6 // up to a third above the load
		if l.Arrivals.Open() {
			at := l
			at.Arrivals = times(l.Arrivals, part)
			loads = append(loads, at)
			res.CurveLoads = append(res.CurveLoads, rate*part)
			continue
		}
		at := l
		at.Targets = max(targets*i/8, 1)
		if n := len(loads); n == 0 || loads[n-1].Targets < at.Targets {
			loads = append(loads, at)
			res.CurveLoads = append(res.CurveLoads, float64(at.Targets))
		}
	}
	for _, k := range res.CurveCapacities {
		var row []Candidate
		for _, at := range loads {
			c, err := res.candidate(at, k, res.Request.Seed+3)
			if err != nil {
				return err
			}
			row = append(row, c)
		}
		res.Curves = append(res.Curves, row)
	}
	return nil
}
