// Package testgrowth is for tests that go on for long and look whether anything grows meanwhile.
package testgrowth

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// A Point is what there is at some time, taken where all is at rest.
type Point struct {
	At      time.Duration
	Figures map[string]float64
}

// Process is what a process has: "descriptors", "threads" and "RSS, KiB".
func Process(pid int) (map[string]float64, error) {
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, err
	}
	has := map[string]float64{"descriptors": float64(len(fds))}
	for line := range strings.Lines(string(text)) {
		var n float64
		if k, _ := fmt.Sscanf(line, "VmRSS: %g kB", &n); k == 1 {
			has["RSS, KiB"] = n
		}
		if k, _ := fmt.Sscanf(line, "Threads: %g", &n); k == 1 {
			has["threads"] = n
		}
	}
	return has, nil
}

// A Limit is by how much a figure may grow from one end to the other, where its course is a line.
type Limit struct {
	Figure       string
	Least, Share float64 // the greater of the two: in its unit, of what it is
	Always       bool    // also in a short test
}

// Flat checks that nothing grows. The first third of a long test is for warming up. Of the rest it takes the median of all
// slopes between two points (Theil and Sen), which single storms do not move.
func Flat(t testing.TB, points []Point, limits []Limit, long bool) {
	t.Helper()
	if long {
		points = points[len(points)/3:]
	}
	for _, limit := range limits {
		growth, middle := grown(points, limit.Figure)
		most := max(limit.Least, limit.Share*middle)
		t.Logf("%s: %g, median %g, grew by %.4g (at most %.4g) in %v and %d points", limit.Figure, points[len(points)-1].Figures[limit.Figure], middle, growth,
			most, (points[len(points)-1].At - points[0].At).Round(time.Second), len(points))
		if (long || limit.Always) && growth > most {
			t.Errorf("%s grows by %g", limit.Figure, growth)
		}
	}
}

// grown is by how much a figure grows between the first and the last point, and its median.
func grown(points []Point, figure string) (growth, middle float64) {
	var slopes, all []float64
	for i, p := range points {
		all = append(all, p.Figures[figure])
		for _, q := range points[:i] {
			slopes = append(slopes, (p.Figures[figure]-q.Figures[figure])/float64(p.At-q.At))
		}
	}
	if len(slopes) == 0 {
		return 0, median(all)
	}
	return median(slopes) * float64(points[len(points)-1].At-points[0].At), median(all)
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}
