package dist

import (
	"math"
	"math/rand/v2"
	"testing"
)

// FuzzParse: what is read is written and read as the same, and what is drawn is a time.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"0", "50us", "50us~1", "1ms~0.25", "2562047h~10", "1ns~1e-300", "-1s", "5us~NaN", "5us~", "~1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := Parse(s)
		if err != nil {
			return
		}
		if again, err := Parse(d.String()); err != nil || again != d {
			t.Fatalf("%q is %v, which is %v, %v", s, d, again, err)
		}
		r := rand.New(rand.NewPCG(1, 2))
		for range 20 {
			if x := d.Draw(r); !(x >= 0) || math.IsInf(x, 0) {
				t.Fatalf("%v: %v was drawn", d, x)
			}
		}
	})
}
