package compare

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"testing"
)

// bruteSignedRank flips all signs: what signedRank must equal.
func bruteSignedRank(s []float64) float64 {
	ranks, plus := doubledRanks(s)
	n, hit := 1<<len(s), 0
	for m := range n {
		w := 0
		for i, r := range ranks {
			if m>>i&1 == 1 {
				w += r
			}
		}
		if w >= plus {
			hit++
		}
	}
	return float64(hit) / float64(n)
}

// bruteU takes all ways to draw len(a) of the values: what uTest must equal.
func bruteU(a, b []float64) float64 {
	all := append(append([]float64(nil), a...), b...)
	u := func(pick uint) (u float64) {
		for i, x := range all {
			for j, y := range all {
				if pick>>i&1 == 1 && pick>>j&1 == 0 {
					switch {
					case x > y:
						u++
					case x == y:
						u += .5
					}
				}
			}
		}
		return u
	}
	seen := u(1<<len(a) - 1)
	n, hit := 0, 0
	for pick := range uint(1) << len(all) {
		if bits.OnesCount(pick) == len(a) {
			n++
			if u(pick) <= seen {
				hit++
			}
		}
	}
	return float64(hit) / float64(n)
}

func TestRankTestsEqualEnumeration(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 300 {
		n := 1 + rnd.IntN(9)
		s, a, b := make([]float64, n), make([]float64, 1+rnd.IntN(5)), make([]float64, 1+rnd.IntN(5))
		draw := func(v []float64) {
			for j := range v {
				if v[j] = rnd.NormFloat64() + .3; i%2 == 0 {
					v[j] = math.Round(2 * v[j]) // ties and zeros
				}
			}
		}
		draw(s)
		draw(a)
		draw(b)
		if got, want := signedRank(s), bruteSignedRank(s); math.Abs(got-want) > 1e-12 {
			t.Fatalf("signedRank(%v) = %v, want %v", s, got, want)
		}
		want := bruteU(a, b)
		if equal(append(append([]float64(nil), a...), b...)) {
			want = 1
		}
		if got := uTest(a, b); math.Abs(got-want) > 1e-9 {
			t.Fatalf("uTest(%v, %v) = %v, want %v", a, b, got, want)
		}
	}
}

func equal(v []float64) bool {
	for _, x := range v {
		if x != v[0] {
			return false
		}
	}
	return true
}

func TestSignedRankOfManyIsNearTheExactOne(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		s := make([]float64, 201)
		for i := range s {
			s[i] = rnd.NormFloat64() + .1
		}
		ranks, plus := doubledRanks(s)
		sum := 0
		for _, r := range ranks {
			sum += r
		}
		exact := 0.0
		for _, q := range signDistribution(ranks, sum)[plus:] {
			exact += q
		}
		if got := signedRank(s); math.Abs(got-exact) > .002 {
			t.Errorf("p %v, exact %v", got, exact)
		}
	}
}

// TestBoundsAreWhatTheTestsReject: the interval that is printed and the verdict
// come from the same distribution.
func TestBoundsAreWhatTheTestsReject(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 100 {
		for _, paired := range []bool{true, false} {
			p := pair{x: make([]float64, 12), y: make([]float64, 12), paired: paired}
			for i := range p.x {
				p.x[i], p.y[i] = math.Exp(.1*rnd.NormFloat64()), 1.05*math.Exp(.1*rnd.NormFloat64())
			}
			center, lo, hi := p.effect(.05)
			if !(lo < center && center < hi) {
				t.Fatalf("%v %v %v", lo, center, hi)
			}
			const eps = 1e-9
			if a, b := p.exceeds(lo*(1-eps)), p.exceeds(lo*(1+eps)); a > .05 || b <= .05 {
				t.Errorf("paired %v: lower bound: p %v and %v", paired, a, b)
			}
			if a, b := p.below(hi*(1+eps)), p.below(hi*(1-eps)); a > .05 || b <= .05 {
				t.Errorf("paired %v: upper bound: p %v and %v", paired, a, b)
			}
		}
	}
}

func TestTheThresholdLiesInsideTheTest(t *testing.T) {
	// The contract's example: with little noise, 5.1% more is no evidence for
	// more than 5%, and 6% is.
	rnd := rand.New(rand.NewPCG(7, 8))
	var x, y51, y6 []float64
	for range 10 {
		noise := 1 + .003*rnd.NormFloat64()
		x = append(x, 1+.003*rnd.NormFloat64())
		y51, y6 = append(y51, 1.051*noise), append(y6, 1.06*noise)
	}
	if p := (pair{x: x, y: y51}).exceeds(1.05); p < .05 {
		t.Errorf("5.1%%: p %v", p)
	}
	if p := (pair{x: x, y: y6}).exceeds(1.05); p > .01 {
		t.Errorf("6%%: p %v", p)
	}
}

func TestZerosAndEmptySamples(t *testing.T) {
	for _, paired := range []bool{true, false} {
		zero := pair{x: make([]float64, 8), y: make([]float64, 8), paired: paired}
		if p := zero.exceeds(1.05); p != 1 {
			t.Errorf("0 exceeds 0: p %v", p)
		}
		if c, _, _ := zero.effect(.05); !math.IsNaN(c) {
			t.Errorf("0/0 = %v", c)
		}
		some := zero
		some.y = []float64{1, 2, 3, 4, 5, 6, 7, 8}
		if p := some.exceeds(1.05); p > .01 {
			t.Errorf("some exceeds 0: p %v", p)
		}
		if p := (pair{paired: paired}).exceeds(1.05); p != 1 {
			t.Errorf("nothing exceeds nothing: p %v", p)
		}
		(pair{paired: paired}).effect(.05)
	}
	if p := (pair{x: make([]float64, 5), y: make([]float64, 5)}).least(); math.Abs(p-1./252) > 1e-9 {
		t.Errorf("least p of 5+5: %v", p)
	}
}
