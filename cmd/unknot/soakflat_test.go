package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// A soakPoint is what the processes have between two cycles, when there are no containers.
type soakPoint struct {
	at      time.Duration
	figures map[string]float64
}

// A soakLimit is by how much a figure may grow from one end of the soak to the other, where its course is a line.
type soakLimit struct {
	figure       string
	least, share float64 // the greater of the two: in its unit, of what it is
	always       bool    // also in a short soak
}

// soakLimits are of the daemon and its keeper. What Go's runtime keeps of memory and threads depends on the last storm;
// the others are exact at rest.
var soakLimits = []soakLimit{
	{"daemon descriptors", 1, 0, true}, {"keeper descriptors", 1, 0, true},
	{"daemon goroutines", 2, 0, true},
	{"daemon threads", 4, 0, false}, {"keeper threads", 2, 0, false},
	{"daemon heap, KiB", 512, 0.1, false},
	{"daemon RSS, KiB", 4096, 0.05, false}, {"keeper RSS, KiB", 2048, 0.05, false},
}

// point notes what the processes have now.
func (s *soak) point() {
	s.t.Helper()
	for range 2 { // what finalizers let go is free after the second
		if _, err := s.get("/debug/pprof/heap?gc=1"); err != nil {
			s.t.Fatal(err)
		}
	}
	p := soakPoint{at: time.Since(s.begun), figures: map[string]float64{}}
	// What ends with the last container is gone in a moment. A keeper looks each second.
	for i := range 60 {
		m, err := s.metrics()
		if err != nil {
			s.t.Fatal(err)
		}
		least := func(name string, v float64) {
			if old, ok := p.figures[name]; !ok || v < old {
				p.figures[name] = v
			}
		}
		least("daemon goroutines", m["go_goroutines"])
		least("daemon heap, KiB", m["go_memstats_heap_alloc_bytes"]/1024)
		for name, pid := range map[string]int{"daemon": s.pid(), "keeper": s.cmd.Process.Pid} {
			fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
			if err != nil {
				s.t.Fatal(err)
			}
			least(name+" descriptors", float64(len(fds)))
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			if err != nil {
				s.t.Fatal(err)
			}
			for line := range strings.Lines(string(text)) {
				var n float64
				if k, _ := fmt.Sscanf(line, "VmRSS: %g kB", &n); k == 1 {
					least(name+" RSS, KiB", n)
				}
				if k, _ := fmt.Sscanf(line, "Threads: %g", &n); k == 1 {
					least(name+" threads", n)
				}
			}
		}
		settled := i >= 5 && len(s.points) > 0
		for _, limit := range soakLimits {
			settled = settled && (!limit.always || p.figures[limit.figure] <= s.points[len(s.points)-1].figures[limit.figure])
		}
		if settled || i == 25 && len(s.points) == 0 {
			break
		}
		time.Sleep(soakTick)
	}
	s.points = append(s.points, p)
}

// flat checks that nothing grows. The first third of a long soak is for warming up. Of the rest it takes the median of all
// slopes between two points (Theil and Sen), which single storms do not move.
func (s *soak) flat() {
	s.t.Helper()
	points := s.points
	if *soakFor > 0 {
		points = points[len(points)/3:]
	}
	for _, limit := range soakLimits {
		growth, middle := grown(points, limit.figure)
		most := max(limit.least, limit.share*middle)
		s.t.Logf("%s: %g, median %g, grew by %.4g (at most %.4g) in %v and %d points", limit.figure, points[len(points)-1].figures[limit.figure], middle, growth,
			most, (points[len(points)-1].at - points[0].at).Round(time.Second), len(points))
		if (*soakFor > 0 || limit.always) && growth > most {
			s.t.Errorf("%s grows by %g", limit.figure, growth)
		}
	}
}

// grown is by how much a figure grows between the first and the last point, and its median.
func grown(points []soakPoint, figure string) (growth, middle float64) {
	var slopes, all []float64
	for i, p := range points {
		all = append(all, p.figures[figure])
		for _, q := range points[:i] {
			slopes = append(slopes, (p.figures[figure]-q.figures[figure])/float64(p.at-q.at))
		}
	}
	return median(slopes) * float64(points[len(points)-1].at-points[0].at), median(all)
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

// A leak is found beside storms, and storms are no leak.
func TestSoakGrowth(t *testing.T) {
	course := func(f func(i int) float64) (points []soakPoint) {
		for i := range 100 {
			points = append(points, soakPoint{time.Duration(i) * time.Minute, map[string]float64{"x": f(i)}})
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
