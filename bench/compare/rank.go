package compare

import (
	"math"
	"slices"
	"sync"

	"github.com/aclements/go-moremath/mathx"
	"github.com/aclements/go-moremath/stats"
)

// A pair is the two samples of one row, oriented by cost: worse is larger in y
// than in x. Where higher is better the caller swaps old and new, so that a
// threshold of 5% means the same for a time per call and for calls per second.
// Paired, x[i] and y[i] are of the same round.
type pair struct {
	x, y   []float64
	paired bool
	// Counts are whole numbers of which there are a few: 9 or 10 allocations. Their
	// ranks jump (all ratios are 0.9, 1 or 1.11), so means are compared.
	counts bool
}

// isCounts says whether all values are whole and of only a few kinds.
func isCounts(samples ...[]float64) bool {
	kinds := map[float64]bool{}
	for _, s := range samples {
		for _, v := range s {
			if v != math.Trunc(v) || math.Abs(v) > 1<<40 {
				return false
			}
			if kinds[v] = true; len(kinds) > 5 {
				return false
			}
		}
	}
	return len(kinds) > 1
}

// exceeds returns the p-value of the hypothesis that y is no more than factor·x
// against the alternative that it is more, by the rank test that fits the data:
// signed ranks within the rounds, or Mann-Whitney's U.
//
// A threshold so lies inside the test: exceeds(1.05) does not ask whether y
// differs from x and whether the difference looks like 5%, but whether y is
// worse than x by more than 5%.
func (p pair) exceeds(factor float64) float64 {
	switch {
	case p.paired && p.counts:
		return signedScore(p.differences(factor))
	case p.paired:
		return signedRank(p.relative(factor))
	case p.counts:
		if t, err := welch(scaled(p.x, factor), p.y); err == nil {
			return t
		}
	}
	return uTest(scaled(p.x, factor), p.y)
}

// below is the other side: the p-value against the alternative that y is less
// than factor·x.
func (p pair) below(factor float64) float64 {
	if p.paired {
		s, test := p.relative(factor), signedRank
		if p.counts {
			s, test = p.differences(factor), signedScore
		}
		for i := range s {
			s[i] = -s[i]
		}
		return test(s)
	}
	if p.counts {
		if t, err := welch(p.y, scaled(p.x, factor)); err == nil {
			return t
		}
	}
	return uTest(p.y, scaled(p.x, factor))
}

// relative is (y-c)/(y+c) with c = factor·x of each round. That is an odd,
// increasing function of ln(y/c), so it has the signs and the order of the
// logarithms of the ratios: a slow minute multiplies both sides of a round and
// leaves it alone. Unlike the logarithm it is defined when one side is 0.
func (p pair) relative(factor float64) []float64 {
	s := make([]float64, len(p.x))
	for i := range s {
		c := factor * p.x[i]
		if sum := p.y[i] + c; sum != 0 {
			s[i] = (p.y[i] - c) / sum
		}
	}
	return s
}

// differences is y - factor·x of each round, whose mean counts compare.
func (p pair) differences(factor float64) []float64 {
	s := make([]float64, len(p.x))
	for i := range s {
		s[i] = p.y[i] - factor*p.x[i]
	}
	return s
}

// constant says that each value is the same on both sides, 0 included.
func (p pair) constant() bool {
	return slices.Max(p.x) == slices.Min(p.x) && slices.Equal(p.x, p.y)
}

// least is the smallest p-value that samples of these sizes can have.
func (p pair) least() float64 {
	if p.paired {
		return math.Exp2(-float64(len(p.x)))
	}
	return math.Exp(-mathx.Lchoose(len(p.x)+len(p.y), len(p.x)))
}

// effect estimates y/x by Hodges and Lehmann: the median of the rounds' ratios
// averaged two by two (geometrically), or of all ratios across the two samples.
// Lo and hi bound it, each with confidence 1-alpha; they are what the tests
// above reject at alpha, up to ties. NaN where a value is 0 or the samples are
// too large or too small for it.
func (p pair) effect(alpha float64) (center, lo, hi float64) {
	const limit = 4_000_000 // candidates: 2000 runs a side
	nan := math.NaN()
	if len(p.x)*len(p.y) == 0 || len(p.x)*len(p.y) > limit || slices.Min(p.x) <= 0 || slices.Min(p.y) <= 0 {
		return nan, nan, nan
	}
	if p.counts {
		return p.means(alpha)
	}
	var c []float64
	var critical int
	if p.paired {
		d := make([]float64, len(p.x))
		for i := range d {
			d[i] = math.Log(p.y[i] / p.x[i])
		}
		for i := range d {
			for j := i; j < len(d); j++ {
				c = append(c, (d[i]+d[j])/2)
			}
		}
		critical = signedRankCritical(len(d), alpha)
	} else {
		for _, x := range p.x {
			for _, y := range p.y {
				c = append(c, math.Log(y/x))
			}
		}
		critical = uCritical(len(p.x), len(p.y), alpha)
	}
	slices.Sort(c)
	center = math.Exp((c[(len(c)-1)/2] + c[len(c)/2]) / 2)
	if critical < 0 || critical >= len(c) {
		return center, 0, math.Inf(1)
	}
	return center, math.Exp(c[critical]), math.Exp(c[len(c)-1-critical])
}

// means is effect for counts: the ratio of the means, and the factors beyond which
// the tests reject.
func (p pair) means(alpha float64) (center, lo, hi float64) {
	center = mean(p.y) / mean(p.x)
	// The p-values are monotonic in the factor, up to their steps.
	bound := func(far float64, rejects func(float64) bool) float64 {
		if !rejects(far) {
			return far
		}
		near := center
		for range 30 {
			if mid := math.Sqrt(far * near); rejects(mid) {
				far = mid
			} else {
				near = mid
			}
		}
		return far
	}
	lo = bound(center/64, func(f float64) bool { return p.exceeds(f) <= alpha })
	hi = bound(center*64, func(f float64) bool { return p.below(f) <= alpha })
	if lo <= center/64 || hi >= center*64 {
		return center, 0, math.Inf(1)
	}
	return center, lo, hi
}

func mean(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}

func sorted(v []float64) []float64 {
	return slices.Sorted(slices.Values(v))
}

func scaled(v []float64, factor float64) []float64 {
	s := make([]float64, len(v))
	for i := range v {
		s[i] = v[i] * factor
	}
	return s
}

// uTest is the p-value of the alternative that a lies below b.
func uTest(a, b []float64) float64 {
	r, err := stats.MannWhitneyUTest(a, b, stats.LocationLess)
	if err != nil {
		return 1 // all equal, or one is empty: evidence for nothing
	}
	return r.P
}

// welch is the p-value of the alternative that a's mean lies below b's. It has none
// where neither side varies.
func welch(a, b []float64) (float64, error) {
	r, err := stats.TwoSampleWelchTTest(&stats.Sample{Xs: a}, &stats.Sample{Xs: b}, stats.LocationLess)
	if err != nil {
		return 1, err
	}
	return r.P, nil
}

// signedRank is the p-value of the alternative that s is symmetric about
// something above 0 (Wilcoxon 1945), exact up to 200 values, ties included:
// the distribution is that of these very ranks under random signs. A zero
// keeps its rank and counts against the alternative, so that a rounded
// measurement never makes a test more certain.
func signedRank(s []float64) float64 {
	ranks, plus := doubledRanks(s) // doubled, so that those of ties are whole
	n := len(s)
	if n == 0 {
		return 1
	}
	sum, sumSquares := 0, 0.0
	for _, r := range ranks {
		sum += r
		sumSquares += float64(r) * float64(r)
	}
	if n > 200 {
		// Half a doubled unit is the continuity correction.
		z := (float64(plus) - 1 - float64(sum)/2) / (math.Sqrt(sumSquares) / 2)
		return 1 - stats.StdNormal.CDF(z)
	}
	if !tied(ranks, n) {
		return untiedTail(n)[plus/2]
	}
	dist := signDistribution(ranks, sum)
	p := 0.0
	for _, q := range dist[plus:] {
		p += q
	}
	return min(p, 1)
}

// tied says whether doubled ranks are other than 2, 4 … 2n.
func tied(ranks []int, n int) bool {
	seen := make([]bool, n+1)
	for _, r := range ranks {
		if r%2 != 0 || seen[r/2] {
			return true
		}
		seen[r/2] = true
	}
	return false
}

// untied has the upper tails of the sum of signed ranks without ties, by their number.
var untied sync.Map // int → []float64

func untiedTail(n int) []float64 {
	if tail, ok := untied.Load(n); ok {
		return tail.([]float64)
	}
	ranks := make([]int, n)
	for i := range ranks {
		ranks[i] = i + 1
	}
	tail := signDistribution(ranks, n*(n+1)/2)
	for w := len(tail) - 2; w >= 0; w-- {
		tail[w] = min(1, tail[w]+tail[w+1])
	}
	untied.Store(n, tail)
	return tail
}

// signedScore is signedRank with the absolute values themselves in place of their
// ranks (Fisher 1935): a test on the mean. They are rounded to a thousandth of the
// largest, away from the alternative.
func signedScore(s []float64) float64 {
	most := 0.0
	for _, v := range s {
		most = max(most, math.Abs(v))
	}
	if most == 0 {
		return 1
	}
	scores, sum, plus, squares := make([]int, len(s)), 0, 0, 0.0
	for i, v := range s {
		scores[i] = int(math.Ceil(math.Abs(v) / most * 1000))
		if v > 0 {
			scores[i] = int(v / most * 1000)
			plus += scores[i]
		}
		sum += scores[i]
		squares += float64(scores[i]) * float64(scores[i])
	}
	if len(s) > 60 {
		z := (float64(plus) - float64(sum)/2) / (math.Sqrt(squares) / 2)
		return 1 - stats.StdNormal.CDF(z)
	}
	p := 0.0
	for _, q := range signDistribution(scores, sum)[plus:] {
		p += q
	}
	return min(p, 1)
}

// signDistribution is the distribution of the sum of those ranks that a fair
// coin chooses.
func signDistribution(ranks []int, sum int) []float64 {
	dist := make([]float64, sum+1)
	dist[0] = 1
	top := 0
	for _, r := range ranks {
		top += r
		for w := top; w >= 0; w-- {
			v := dist[w] / 2
			if w >= r {
				v += dist[w-r] / 2
			}
			dist[w] = v
		}
	}
	return dist
}

// doubledRanks are twice the ranks of the absolute values of s, ties sharing
// their mean, and the sum of those of the positive values.
func doubledRanks(s []float64) (ranks []int, plus int) {
	order := make([]int, len(s))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		switch x, y := math.Abs(s[a]), math.Abs(s[b]); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	ranks = make([]int, len(s))
	for i := 0; i < len(order); {
		j := i
		for j < len(order) && math.Abs(s[order[j]]) == math.Abs(s[order[i]]) {
			j++
		}
		for k := i; k < j; k++ {
			ranks[order[k]] = i + 1 + j // twice the mean of i+1 … j
			if s[order[k]] > 0 {
				plus += i + 1 + j
			}
		}
		i = max(j, i+1)
	}
	return ranks, plus
}

// signedRankCritical is the largest number k of Walsh averages that may lie
// below the lower bound: P(W ≤ k) ≤ alpha; -1 if n is too small for any.
func signedRankCritical(n int, alpha float64) int {
	if n > 200 {
		m, sd := float64(n)*float64(n+1)/4, math.Sqrt(float64(n)*float64(n+1)*float64(2*n+1)/24)
		return int(math.Floor(m + sd*stats.InvCDF(stats.StdNormal)(alpha) - .5))
	}
	ranks := make([]int, n)
	for i := range ranks {
		ranks[i] = i + 1
	}
	k, p := -1, 0.0
	for w, q := range signDistribution(ranks, n*(n+1)/2) {
		if p += q; p > alpha {
			break
		}
		k = w
	}
	return k
}

// uCritical is the same for Mann-Whitney's U.
func uCritical(n1, n2 int, alpha float64) int {
	if n1 > stats.MannWhitneyExactLimit || n2 > stats.MannWhitneyExactLimit {
		m, sd := float64(n1)*float64(n2)/2, math.Sqrt(float64(n1)*float64(n2)*float64(n1+n2+1)/12)
		return int(math.Floor(m + sd*stats.InvCDF(stats.StdNormal)(alpha) - .5))
	}
	d := stats.UDist{N1: n1, N2: n2}
	k := -1
	for float64(k+1) <= float64(n1*n2)/2 && d.CDF(float64(k+1)) <= alpha {
		k++
	}
	return k
}
