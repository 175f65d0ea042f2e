package testgrowth

import (
	"testing"
	"time"
)

// A leak is found beside storms, and storms are no leak.
func TestGrowth(t *testing.T) {
	course := func(f func(i int) float64) (points []Point) {
		for i := range 100 {
			points = append(points, Point{time.Duration(i) * time.Minute, map[string]float64{"x": f(i)}})
		}
		return points
	}
	storm := func(i int) float64 { // each fifth point is another one's
		if i%5 == 0 {
			return 50
		}
		return 0
	}
	for _, c := range []struct {
		f    func(i int) float64
		want float64
	}{
		{func(int) float64 { return 24 }, 0},
		{storm, 0},
		{func(i int) float64 { return float64(i/10) + storm(i) }, 9},
		{func(i int) float64 { return float64(-i) }, -99},
	} {
		if got, _ := grown(course(c.f), "x"); got < c.want-1.5 || got > c.want+1.5 {
			t.Errorf("grows by %g, want some %g", got, c.want)
		}
	}
}
