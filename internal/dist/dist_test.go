package dist

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestMomentsAreThoseAskedFor(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, cv := range []float64{0, .3, 1, 1.7, 3} {
		d := Dist{50 * time.Microsecond, cv}
		const n = 400000
		var sum, squares float64
		for range n {
			x := d.Draw(r)
			if x < 0 {
				t.Fatalf("%v: drew %v", d, x)
			}
			sum += x
			squares += x * x
		}
		mean := sum / n
		got := math.Sqrt(max(squares/n-mean*mean, 0)) / mean
		if math.Abs(mean/float64(d.Mean)-1) > .02 || math.Abs(got-cv) > .03*cv+1e-6 {
			t.Errorf("%v: mean %v, CV %v", d, mean, got)
		}
	}
}

func TestExponentialTail(t *testing.T) {
	d, n, above := Dist{1000, 1}, 200000, 0
	for range n {
		if d.Draw(nil) > 3000 {
			above++
		}
	}
	if got, want := float64(above)/float64(n), math.Exp(-3); math.Abs(got-want) > .003 {
		t.Errorf("%v of an exponential distribution are above three means, want %v", got, want)
	}
}

func TestParse(t *testing.T) {
	for _, s := range []string{"50µs", "1ms~0.5", "0s", "2s~10"} {
		if d, err := Parse(s); err != nil || d.String() != s {
			t.Errorf("Parse(%q) = %v, %v", s, d, err)
		}
	}
	for _, s := range []string{"", "-1us", "5", "1ms~", "1ms~-1", "1ms~11", "1ms~NaN", "~1"} {
		if d, err := Parse(s); err == nil {
			t.Errorf("Parse(%q) = %v", s, d)
		}
	}
}
