package compare

import (
	"math"

	"github.com/aclements/go-moremath/stats"
)

// A look is a time at which a session with a budget judged what it had: how many
// rounds were done, and what part of the budget was spent.
type look struct {
	rounds int
	spent  float64
}

// To look again and again, and to stop at the first success, is to have many chances
// of an error. So each row's test is group-sequential: the chance alpha is spent
// little by little, as a function of the time that is spent of the budget (Lan and
// DeMets, "Discrete sequential boundaries for clinical trials", Biometrika 70, 1983;
// by the calendar, "Group sequential procedures: calendar versus information time",
// Statistics in Medicine 8, 1989), and each look rejects at the level by which the
// chance to have rejected until then is what has been spent.
//
// The function is alpha·t² (Kim and DeMets, "Design and analysis of group sequential
// tests based on the type I error spending rate function", Biometrika 74, 1987): it
// keeps most for the end, where noisy rows need it, and has enough at a fifth of the
// budget for the quiet ones, which then leave their time to the others. When a look
// comes depends on the clock and on other rows, not on the row's own values.
//
// Over the rows it is Holm's procedure at each look (Ye, Li, Liu and Yao, "A group
// sequential Holm procedure with multiple primary endpoints", Statistics in Medicine
// 32, 2013): who is rejected leaves its part of alpha to the others.
func spending(alpha, spent float64) float64 { return alpha * spent * spent }

// A boundary is one row's test up to a look, for an alpha that it may spend in all. It
// follows the density of the sum of n values under the hypothesis, as long as no look
// has rejected, by numerical integration (Armitage, McPherson and Rowe, JRSS A 132,
// 1969). That a rank statistic is such a sum holds for large n; what is compared with
// the level of a look is its exact p-value.
type boundary struct {
	alpha   float64
	n       float64   // of the last look that had new values
	used    float64   // chance to have rejected until then
	level   float64   // of that look: p-values up to it reject; 0 if none does
	at      []float64 // grid of sums
	density []float64 // on it, times the weight of integration
	next    map[look]*boundary
}

const (
	gridSize  = 129 // odd, for Simpson's rule
	gridReach = 6.0 // standard deviations
)

// look is the boundary after another look, at n values when a part of the budget is
// spent. least is the smallest p-value that n values can have: what such a look could
// not use is left for later ones. Rows with the same looks share the boundaries.
func (b *boundary) look(n int, spent float64, least func() float64) *boundary {
	at := look{n, spent}
	if b.next[at] == nil {
		if b.next == nil {
			b.next = map[look]*boundary{}
		}
		b.next[at] = b.after(n, spent, least)
	}
	return b.next[at]
}

func (b *boundary) after(n int, spent float64, least func() float64) *boundary {
	next := &boundary{alpha: b.alpha, n: b.n, used: b.used, at: b.at, density: b.density}
	target := spending(b.alpha, spent) - b.used
	if n == 0 || float64(n) == b.n {
		return next
	}
	next.n = float64(n)
	sd := math.Sqrt(next.n)
	limit := gridReach * sd
	reject := func(at float64) {
		if l := upper(at / sd); l >= least() {
			next.level, next.used, limit = l, b.used+target, at
		}
	}
	if b.n == 0 {
		if target > 0 {
			reject(-sd * stats.InvCDF(stats.StdNormal)(target))
		}
		next.step(sd, limit, func(s float64) float64 { return density(s/sd) / sd })
		return next
	}
	step := math.Sqrt(next.n - b.n)
	crosses := func(limit float64) float64 {
		p := 0.0
		for i, w := range b.density {
			if z := (limit - b.at[i]) / step; z < gridReach+2 {
				p += w * upper(z)
			}
		}
		return p
	}
	if lo, hi := -limit, limit; crosses(hi) < target {
		for hi-lo > 1e-5*sd {
			if mid := (lo + hi) / 2; crosses(mid) > target {
				lo = mid
			} else {
				hi = mid
			}
		}
		reject(hi)
	}
	next.step(sd, limit, func(s float64) float64 {
		p := 0.0
		for i, w := range b.density {
			if z := (s - b.at[i]) / step; z > -gridReach-2 && z < gridReach+2 {
				p += w * density(z)
			}
		}
		return p / step
	})
	return next
}

// step puts the density below a limit onto a new grid.
func (b *boundary) step(sd, limit float64, f func(float64) float64) {
	lo := -gridReach * sd
	width := (limit - lo) / (gridSize - 1)
	at, d := make([]float64, gridSize), make([]float64, gridSize)
	for i := range at {
		weight := width / 3 * float64(2+2*(i%2)) // Simpson: 1 4 2 4 … 4 1
		if i == 0 || i == gridSize-1 {
			weight = width / 3
		}
		at[i] = lo + float64(i)*width
		d[i] = weight * f(at[i])
	}
	b.at, b.density = at, d
}

func density(z float64) float64 { return math.Exp(-z*z/2) / math.Sqrt(2*math.Pi) }
func upper(z float64) float64   { return math.Erfc(z/math.Sqrt2) / 2 }

// A sequence is a row on its way through the looks.
type sequence struct {
	pair
	theta float64
	shaky bool   // it cannot pass
	looks []look // as the row has them: with its own numbers of values

	verdict Verdict // "" while it has none
	p       float64 // that gave it
	n       int     // values that the last look had
	level   float64 // of the look that decided, or of the last that could have
}

// A family are the rows among which Holm's procedure divides alpha.
type family struct {
	alpha float64
	rows  []*sequence
	root  map[float64]*boundary
}

func newFamily(alpha float64, rows []*sequence) *family {
	return &family{alpha: alpha, rows: rows, root: map[float64]*boundary{}}
}

// level is at which level a row is tested at its last look, if it may spend alpha in all.
func (f *family) level(s *sequence, alpha float64) float64 {
	b := f.root[alpha]
	if b == nil {
		b = &boundary{alpha: alpha}
		f.root[alpha] = b
	}
	for _, l := range s.looks {
		b = b.look(l.rounds, l.spent, func() float64 { return s.at(l.rounds).least() })
	}
	return b.level
}

// at has the first values only.
func (s *sequence) at(n int) pair {
	p := s.pair
	p.x, p.y = p.x[:n], p.y[:n]
	return p
}

// look judges the rows that have no verdict yet by the values that they have now.
func (f *family) look(values func(*sequence) int, spent float64) {
	var open []*sequence
	for _, s := range f.rows {
		n := values(s)
		if s.verdict != "" || n == 0 || n == s.n {
			continue
		}
		s.n = n
		s.looks = append(s.looks, look{n, spent})
		open = append(open, s)
	}
	f.reject(open, Regressed, func(s *sequence) float64 { return s.at(s.n).exceeds(1 + s.theta) })
	f.reject(open, Improved, func(s *sequence) float64 { return s.at(s.n).below(1 / (1 + s.theta)) })
	for _, s := range open {
		if s.verdict != "" {
			continue
		}
		now := s.at(s.n)
		p := now.below(1 + s.theta)
		if level := f.level(s, f.alpha); level > 0 {
			s.level = level
			if now.constant() {
				p = 0
			}
			if p <= level {
				s.verdict, s.p = Pass, p
				if s.shaky {
					s.verdict = Inconclusive
				}
			}
		}
	}
}

// reject is Holm's procedure: each rejection leaves its part of alpha to the others.
func (f *family) reject(open []*sequence, verdict Verdict, test func(*sequence) float64) {
	rejected := 0
	for _, s := range f.rows {
		if s.verdict == verdict {
			rejected++
		}
	}
	p := make([]float64, len(open))
	for i, s := range open {
		p[i] = 1
		if s.verdict == "" {
			p[i] = test(s)
		}
	}
	for again := true; again; {
		again = false
		for i, s := range open {
			part := f.alpha / float64(max(1, len(f.rows)-rejected))
			if s.verdict != "" || p[i] > part {
				continue
			}
			if level := f.level(s, part); p[i] <= level {
				s.verdict, s.p, s.level = verdict, p[i], level
				rejected++
				again = true
			}
		}
	}
}
