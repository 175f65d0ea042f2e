package compare

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/aclements/go-moremath/stats"
	"golang.org/x/perf/benchfmt"
)

// History writes what a comparison found to a history, in Go benchmark format: for each
// gated row a line with new's median and its ratio to old, below keys that say when,
// where and of which commit. A history is appended to, and [Trends] reads it.
func (r *Report) History(w io.Writer, now time.Time) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "Unit new/old better=lower\ndate: %s\ncommit: %s\ngo: %s\nmachine: %s\n", now.UTC().Format(time.RFC3339), r.Commits[1], r.Go[1], r.Machine)
	for _, row := range r.Rows {
		if !row.Gated || row.New == nil || math.IsNaN(float64(row.New.Center)) {
			continue
		}
		v, unit := float64(row.New.Center), row.Unit
		if rest, ok := strings.CutPrefix(unit, "sec/"); ok {
			v, unit = v*1e9, "ns/"+rest // as it was before it was read
		}
		fmt.Fprintf(&b, "pkg: %s\nBenchmark%s %d %v %s", row.Pkg, row.Benchmark, row.New.N, v, unit)
		if c := float64(row.Change); !math.IsNaN(c) && !math.IsInf(c, 0) {
			fmt.Fprintf(&b, " %v new/old", 1+c)
		}
		b.WriteByte('\n')
	}
	_, err := w.Write(b.Bytes()) // in one piece: others may append too
	return err
}

// A Trend is the history of one unit of one benchmark on one machine.
type Trend struct {
	Machine   string        `json:"machine"`
	Pkg       string        `json:"pkg,omitempty"`
	Benchmark string        `json:"benchmark"`
	Unit      string        `json:"unit"`
	Values    int           `json:"values"`
	First     Number        `json:"first"` // medians of the first and the last segment
	Last      Number        `json:"last"`
	Changes   []ChangePoint `json:"changes"`
}

// A ChangePoint is where a trend's level changed, from one segment to the next.
type ChangePoint struct {
	Date   string `json:"date"`   // of the first comparison of the new level
	Commit string `json:"commit"` // and its commit
	Before Number `json:"before"` // medians of both segments
	After  Number `json:"after"`
	Change Number `json:"change"`
	P      Number `json:"p"`
}

// Trends finds the change points of a history by E-divisive (Matteson and James, "A
// nonparametric approach for multiple change point analysis of multivariate data",
// JASA 109, 2014): where the energy distance between what is before and what is after
// is largest, a change is one if few permutations have a larger; then in each part.
func Trends(in Input) ([]*Trend, error) {
	label, data, err := clean(in.Label, in.Data)
	if err != nil {
		return nil, err
	}
	type point struct {
		value        float64
		date, commit string
	}
	index := map[[4]string]int{}
	var list []*Trend
	var points [][]point
	rd := benchfmt.NewReader(bytes.NewReader(data), label)
	for rd.Scan() {
		switch rec := rd.Result().(type) {
		case *benchfmt.SyntaxError:
			return nil, fmt.Errorf("not Go benchmark format: %w", rec)
		case *benchfmt.Result:
			for _, v := range rec.Values {
				if v.Unit == "new/old" {
					continue
				}
				key := Trend{Machine: rec.GetConfig("machine"), Pkg: rec.GetConfig("pkg"), Benchmark: string(rec.Name.Full()), Unit: v.Unit}
				id := [4]string{key.Machine, key.Pkg, key.Benchmark, key.Unit}
				at, ok := index[id]
				if !ok {
					at = len(list)
					index[id] = at
					list, points = append(list, &key), append(points, nil)
				}
				points[at] = append(points[at], point{v.Value, rec.GetConfig("date"), rec.GetConfig("commit")})
			}
		}
	}
	if err := rd.Err(); err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s: no comparisons in it", label)
	}
	for i, t := range list {
		values, logs := make([]float64, len(points[i])), make([]float64, len(points[i]))
		for k, p := range points[i] {
			values[k], logs[k] = p.value, math.Log(max(p.value, 1e-300))
		}
		t.Values = len(values)
		changes := changePoints(logs)
		bounds := append([]int{0}, changes.at...)
		bounds = append(bounds, len(values))
		for k := range changes.at {
			before, after := stats.Sample{Xs: values[bounds[k]:bounds[k+1]]}.Quantile(.5), stats.Sample{Xs: values[bounds[k+1]:bounds[k+2]]}.Quantile(.5)
			p := points[i][bounds[k+1]]
			t.Changes = append(t.Changes, ChangePoint{Date: p.date, Commit: p.commit, Before: Number(before), After: Number(after), Change: Number(after/before - 1), P: Number(changes.p[k])})
		}
		t.First = Number(stats.Sample{Xs: values[:bounds[1]]}.Quantile(.5))
		t.Last = Number(stats.Sample{Xs: values[bounds[len(bounds)-2]:]}.Quantile(.5))
	}
	return list, nil
}

const (
	shortestSegment = 4 // fewer have no level
	permutations    = 199
	changeLevel     = .02 // of each test
)

type changes struct {
	at []int
	p  []float64
}

// changePoints are where segments begin. It gives the same for the same values.
func changePoints(v []float64) changes {
	var found changes
	rnd := rand.New(rand.NewPCG(uint64(len(v)), 0x6564697669736976)) // "edivisiv"
	var split func(lo, hi int)
	split = func(lo, hi int) {
		part := v[lo:hi]
		at, q := bestSplit(part)
		if at == 0 {
			return
		}
		larger, shuffled := 0, slices.Clone(part)
		for range permutations {
			rnd.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			if _, other := bestSplit(shuffled); other >= q {
				larger++
			}
		}
		p := float64(larger+1) / (permutations + 1)
		if p > changeLevel {
			return
		}
		split(lo, lo+at)
		found.at, found.p = append(found.at, lo+at), append(found.p, p)
		split(lo+at, hi)
	}
	split(0, len(v))
	return found
}

// bestSplit is where the energy statistic of the two parts is largest; 0 for nowhere.
func bestSplit(v []float64) (at int, most float64) {
	n := len(v)
	if n < 2*shortestSegment {
		return 0, 0
	}
	// Sums of distances: within the first k, within the rest, and between them.
	within, rest, between := 0.0, 0.0, 0.0
	for i := range v {
		for j := range i {
			rest += math.Abs(v[i] - v[j])
		}
	}
	for k := 1; k < n; k++ { // v[k-1] goes from the rest to the first
		toFirst, toRest := 0.0, 0.0
		for j := range k - 1 {
			toFirst += math.Abs(v[k-1] - v[j])
		}
		for j := k; j < n; j++ {
			toRest += math.Abs(v[k-1] - v[j])
		}
		within += toFirst
		rest -= toRest
		between += toRest - toFirst
		if k < shortestSegment || n-k < shortestSegment {
			continue
		}
		a, b := float64(k), float64(n-k)
		energy := 2*between/(a*b) - 2*within/(a*(a-1)) - 2*rest/(b*(b-1))
		if q := energy * a * b / (a + b); q > most {
			at, most = k, q
		}
	}
	return at, most
}
