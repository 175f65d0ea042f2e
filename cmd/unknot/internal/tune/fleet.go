package tune

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/bench/record"
	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/cmd/unknot/internal/tune/sim"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/engine/policy"
)

// A Node is a supervisor whose load somebody else measured, or a recording of one.
type Node struct {
	Name    string
	Load    Load // its Service has Times by the wall clock, the answer included
	Workers int
	Calls   float64        // received while it was measured
	Wait    *hist.Snapshot // measured; nil: not known
	Drop    float64        // measured part of the calls; NaN: not known
}

// AnyTargets are the targets of a Node's open loop, of which nobody knows who calls: as many as may be.
const AnyTargets = 4096

// Rates are Poisson arrivals at rates that change: each for an equal part of the time.
type Rates []float64

// Schedule implements [storm.Arrivals].
func (r Rates) Schedule(d time.Duration, seed uint64) (as []storm.Arrival, err error) {
	if n := r.Rate() * d.Seconds(); !(n <= storm.MaxArrivals) {
		return nil, fmt.Errorf("%.3g calls in %v: a schedule holds %d: shorten the storm", n, d, storm.MaxArrivals)
	}
	rng := rand.New(rand.NewPCG(seed, 0xf1ee7))
	part := d.Seconds() / float64(len(r))
	for i, rate := range r {
		for at := 0.; rate > 0; {
			if at += rng.ExpFloat64() / rate; at >= part {
				break
			}
			as = append(as, storm.Arrival{At: time.Duration((float64(i)*part + at) * 1e9)})
		}
	}
	return as, nil
}

func (r Rates) String() string {
	return fmt.Sprintf("poisson:%.0f..%.0f", slices.Min(r), slices.Max(r))
}

// Rate is the mean in calls per second.
func (r Rates) Rate() float64 {
	sum := 0.
	for _, x := range r {
		sum += x
	}
	return sum / float64(len(r))
}

// NodeFromRecording is a recording as a node of a fleet, and what a reader should know of it.
func NodeFromRecording(name string, r *record.Recording, workers int, work *bench.Work) (Node, []string, error) {
	l, notes, err := FromRecording(r, work)
	if err != nil {
		return Node{}, nil, err
	}
	if work == nil {
		l.Service = Service{Times: r.Service().Times, Sleeps: true}
	}
	return Node{Name: name, Load: l, Workers: workers, Calls: float64(len(r.Calls)), Drop: math.NaN()}, notes, nil
}

// A Choice is what is expected of a node with a capacity, or with the wait target alone.
type Choice struct {
	Candidate
	Lost float64 // part of what its own best serves that is not served
}

// A NodeAnswer is a node with its own best capacity, the one for all, and the wait target alone.
type NodeAnswer struct {
	Node
	Own, All, Target Choice
	None             bool // no capacity meets the target; Own is the best that there is
}

// A Fleet is the answer for several nodes.
type Fleet struct {
	WaitP99  time.Duration
	MaxDrop  float64
	Capacity int // for all
	Nodes    []NodeAnswer
}

// fleetCalls is how many calls of a node are simulated for each capacity, so that 300 lie above a p99, and longestFleet for
// how long at most: a node of one call in a minute has fewer.
const fleetCalls, longestFleet = 30000, 24 * time.Hour

// TuneFleet finds, by simulation alone, the capacity for each node and the one for all: that with which most meet the target
// and, of these, least is lost. Nothing is stormed: the loads are other machines', and their services have in them
// what those cost.
func TuneFleet(nodes []Node, waitP99 time.Duration, maxDrop float64, seed uint64) (f *Fleet, err error) {
	f = &Fleet{WaitP99: waitP99, MaxDrop: maxDrop}
	ks := candidates(fleetTop)
	table := make([]map[int]Candidate, len(nodes))
	for i, n := range nodes {
		table[i] = map[int]Candidate{}
		var last Candidate
		for _, k := range append([]int{targetAlone}, ks...) {
			if last.Capacity > 0 && last.Drop == 0 { // more room changes nothing
				last.Capacity = k
			} else if last, err = f.expect(n, k, seed); err != nil {
				return nil, fmt.Errorf("%s: %w", n.Name, err)
			}
			table[i][k] = last
		}
		a := NodeAnswer{Node: n}
		var some []Candidate
		least := table[i][ks[0]]
		for _, k := range ks {
			c := table[i][k]
			if c.Meets {
				some = append(some, c)
			}
			if c.P99 < least.P99 {
				least = c
			}
		}
		if a.None = len(some) == 0; a.None {
			a.Own.Candidate = least
		} else {
			a.Own.Candidate = pick(some, n.Workers)
		}
		f.Nodes = append(f.Nodes, a)
	}
	best, met, lost := 0, -1, 0.
	for _, k := range ks {
		m, l := 0, 0.
		for i := range nodes {
			if table[i][k].Meets {
				m++
			}
			l += f.Nodes[i].lost(table[i][k])
		}
		if m > met || m == met && l < lost-.005 {
			best, met, lost = k, m, l
		}
	}
	f.Capacity = best
	for i := range f.Nodes {
		a := &f.Nodes[i]
		a.All = Choice{table[i][best], a.lost(table[i][best])}
		a.Target = Choice{table[i][targetAlone], a.lost(table[i][targetAlone])}
	}
	return f, nil
}

// fleetTop is the greatest capacity that is looked at.
const fleetTop = 1024

func (a *NodeAnswer) lost(c Candidate) float64 { return max(0, 1-c.Goodput/max(a.Own.Goodput, 1e-9)) }

// expect simulates a node.
func (f *Fleet) expect(n Node, capacity int, seed uint64) (Candidate, error) {
	set := Setting{Config: policy.Config{Capacity: capacity}, Workers: n.Workers}
	if capacity == targetAlone {
		set.Capacity, set.WaitTarget = engine.DefaultTargetQueue, f.WaitP99
	}
	mean, _ := n.Load.Service.Moments()
	rate := n.Load.Arrivals.Rate()
	if !n.Load.Arrivals.Open() {
		rate = float64(n.Workers) / mean * 1e9
	}
	length := min(max(time.Duration(fleetCalls/max(rate, .1)*1e9), 200*time.Millisecond), longestFleet)
	o, err := sim.Simulate(n.Load, set, Model{}, Run{Seed: seed, WarmUp: length / 10, Length: length})
	if err != nil {
		return Candidate{}, err
	}
	c := Candidate{Capacity: capacity, Goodput: o.Goodput(), P99: o.P99(), Drop: o.DropRate()}
	c.Meets = c.P99 <= float64(f.WaitP99) && c.Drop <= f.MaxDrop
	return c, nil
}

// Text writes the answer for a terminal.
func (f *Fleet) Text(w io.Writer) error {
	var b strings.Builder
	width := len("node")
	for _, n := range f.Nodes {
		width = max(width, len(n.Name))
	}
	drop := func(x float64) string {
		if math.IsNaN(x) {
			return "-"
		}
		return percent(x)
	}
	fmt.Fprintf(&b, "%-*s %9s %9s %5s %7s %10s %8s │ %6s %10s %7s │ %10s %7s %7s │ %10s %7s %7s\n", width, "node", "calls/s", "service", "CV", "workers", "p99 now", "drops",
		"depth", "wait p99", "drops", fmt.Sprintf("with %d", f.Capacity), "drops", "lost", "by target", "drops", "lost")
	for _, n := range f.Nodes {
		mean, cv := n.Load.Service.Moments()
		rate := "closed"
		if n.Load.Arrivals.Open() {
			rate = fmt.Sprintf("%.0f", n.Load.Arrivals.Rate())
		}
		now := math.NaN()
		if n.Wait != nil {
			now = n.Wait.Quantile(.99)
		}
		own := fmt.Sprint(n.Own.Capacity)
		if n.None {
			own = "none"
		}
		p99 := func(c Choice) string {
			if !c.Meets {
				return bench.Duration(c.P99) + "!"
			}
			return bench.Duration(c.P99)
		}
		fmt.Fprintf(&b, "%-*s %9s %9s %5.2g %7d %10s %8s │ %6s %10s %7s │ %10s %7s %7s │ %10s %7s %7s\n", width, n.Name, rate, bench.Duration(mean), cv, n.Workers, bench.Duration(now), drop(n.Drop),
			own, p99(n.Own), percent(n.Own.Drop), p99(n.All), percent(n.All.Drop), percent(n.All.Lost), p99(n.Target), percent(n.Target.Drop), percent(n.Target.Lost))
	}
	b.WriteByte('\n')
	var missed, none []string
	for _, n := range f.Nodes {
		mean, _ := n.Load.Service.Moments()
		switch {
		case n.None && mean > float64(f.WaitP99):
			none = append(none, fmt.Sprintf("%s: no depth can meet this: service is %s, add workers", n.Name, bench.Duration(mean)))
		case n.None:
			none = append(none, fmt.Sprintf("%s: no capacity meets wait-p99=%v; at best %s", n.Name, f.WaitP99, bench.Duration(n.Own.P99)))
		case !n.All.Meets:
			missed = append(missed, n.Name)
		}
	}
	switch {
	case len(missed) == 0 && len(none) == 0:
		fmt.Fprintf(&b, "queue: %d holds for all %d\n", f.Capacity, len(f.Nodes))
	default:
		fmt.Fprintf(&b, "queue: %d holds for %d of %d", f.Capacity, len(f.Nodes)-len(missed)-len(none), len(f.Nodes))
		if len(missed) > 0 {
			fmt.Fprintf(&b, ", not for %s", strings.Join(missed, ", "))
		}
		b.WriteByte('\n')
	}
	for _, n := range none {
		fmt.Fprintln(&b, n)
	}
	met := 0
	for _, n := range f.Nodes {
		if n.Target.Meets {
			met++
		}
	}
	fmt.Fprintf(&b, "wait-target: %v holds for %d of %d; ! is a target that is missed\n", f.WaitP99, met, len(f.Nodes))
	_, err := io.WriteString(w, b.String())
	return err
}

// Holds reports whether the capacity for all meets the target everywhere.
func (f *Fleet) Holds() bool {
	return !slices.ContainsFunc(f.Nodes, func(n NodeAnswer) bool { return !n.All.Meets })
}

// A Bucket is one of a histogram's: how many values are above Low and no more than High, in ns.
type Bucket struct{ Low, High, Count float64 }

// FromBuckets is a histogram of that mean from its buckets, whose values it puts where in their bucket the mean says
// that they are: all at the same part of it, by the logarithm. resolution is the greatest relative width of those buckets that
// have nearly all of the values.
func FromBuckets(buckets []Bucket, mean float64) (h *hist.Snapshot, resolution float64) {
	place := func(b Bucket, part float64) float64 {
		low := max(b.Low, b.High/2) // below the first bound
		if math.IsInf(b.High, 1) {
			return b.Low * (1 + part)
		}
		return low * math.Pow(b.High/low, part)
	}
	at := func(part float64) float64 {
		n, sum := 0., 0.
		for _, b := range buckets {
			n += b.Count
			sum += b.Count * place(b, part)
		}
		return sum / n
	}
	low, high := 0., 1.
	for range 40 {
		if mid := (low + high) / 2; at(mid) < mean {
			low = mid
		} else {
			high = mid
		}
	}
	h = new(hist.Snapshot)
	total, rest := 0., 0.
	for _, b := range buckets {
		total += b.Count
		n := b.Count + rest
		whole := math.Round(n)
		rest = n - whole
		if whole > 0 {
			h.Add(int64(place(b, low)), uint64(whole))
		}
	}
	sorted := slices.SortedFunc(slices.Values(buckets), func(a, b Bucket) int { return cmp.Compare(b.Count, a.Count) })
	seen := 0.
	for _, b := range sorted {
		if seen >= .9*total {
			break
		}
		seen += b.Count
		width := math.Inf(1)
		if b.Low > 0 {
			width = b.High/b.Low - 1
		}
		resolution = max(resolution, width)
	}
	return h, resolution
}
