// Package dist draws times: how long a handler takes, or how long it is until
// the next call. A storm's handlers and the simulation of cmd/unknot/internal/tune draw from
// the same code, so that what is predicted is what is measured.
package dist

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// A Dist is a distribution of times by its mean and its coefficient of
// variation (standard deviation over mean). It is a gamma distribution: a
// constant at CV 0, exponential at CV 1. Dists are comparable, and safe for
// concurrent use.
type Dist struct {
	Mean time.Duration
	CV   float64
}

// MaxCV bounds CV: beyond it nearly all draws are 0.
const MaxCV = 10

// minCV is the least that is drawn by: below, times vary by less than a ns in a millisecond, and the method of drawing does not
// end where the square of CV is 0.
const minCV = 1e-6

// Parse reads "50us" (always 50 µs) or "50us~1" (a mean of 50 µs and a CV of 1).
func Parse(s string) (Dist, error) {
	mean, cv, varies := strings.Cut(s, "~")
	d, err := time.ParseDuration(mean)
	if mean == "0" {
		d, err = 0, nil
	}
	if err != nil || d < 0 {
		return Dist{}, fmt.Errorf("time %q: want a duration such as 50us, or 50us~1 for one that varies, with its coefficient of variation", s)
	}
	x := 0.0
	if varies {
		if x, err = strconv.ParseFloat(cv, 64); err != nil || !(x >= 0 && x <= MaxCV) {
			return Dist{}, fmt.Errorf("time %q: the coefficient of variation %q: want a number from 0 to %d", s, cv, MaxCV)
		}
	}
	return Dist{d, x}, nil
}

// String is what Parse reads.
func (d Dist) String() string {
	if d.CV == 0 {
		return d.Mean.String()
	}
	return d.Mean.String() + "~" + strconv.FormatFloat(d.CV, 'g', -1, 64)
}

// Draw draws a time in ns from r, or from the process's own source if r is nil.
func (d Dist) Draw(r *rand.Rand) float64 {
	if d.CV < minCV || d.Mean == 0 {
		return float64(d.Mean)
	}
	shape := 1 / (d.CV * d.CV)
	return float64(d.Mean) / shape * gamma(shape, r)
}

// gamma draws from the gamma distribution of scale 1 by the method of Marsaglia
// and Tsang (2000).
func gamma(shape float64, r *rand.Rand) float64 {
	normal, uniform, exp := rand.NormFloat64, rand.Float64, rand.ExpFloat64
	if r != nil {
		normal, uniform, exp = r.NormFloat64, r.Float64, r.ExpFloat64
	}
	if shape == 1 {
		return exp()
	}
	scale := 1.0
	if shape < 1 { // boosted from shape + 1
		scale = math.Pow(1-uniform(), 1/shape)
		shape++
	}
	d := shape - 1./3
	c := 1 / math.Sqrt(9*d)
	for {
		x := normal()
		v := 1 + c*x
		if v <= 0 {
			continue
		}
		v = v * v * v
		if u := 1 - uniform(); math.Log(u) < x*x/2+d-d*v+d*math.Log(v) {
			return scale * d * v
		}
	}
}
