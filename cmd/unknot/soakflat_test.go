package main

import (
	"slices"
	"time"

	"github.com/unknot/unknot/internal/testgrowth"
)

// soakLimits are of the daemon and its keeper. What Go's runtime keeps of memory and threads depends on the last storm;
// the others are exact at rest.
var soakLimits = []testgrowth.Limit{
	{Figure: "daemon descriptors", Least: 1, Always: true}, {Figure: "keeper descriptors", Least: 1, Always: true},
	{Figure: "daemon goroutines", Least: 2, Always: true},
	{Figure: "daemon threads", Least: 4}, {Figure: "keeper threads", Least: 2},
	{Figure: "daemon heap, KiB", Least: 512, Share: 0.1},
	{Figure: "daemon RSS, KiB", Least: 4096, Share: 0.05}, {Figure: "keeper RSS, KiB", Least: 2048, Share: 0.05},
}

// point notes what the processes have now.
func (s *soak) point() {
	s.t.Helper()
	for range 2 { // what finalizers let go is free after the second
		if _, err := s.get("/debug/pprof/heap?gc=1"); err != nil {
			s.t.Fatal(err)
		}
	}
	p := testgrowth.Point{At: time.Since(s.begun), Figures: map[string]float64{}}
	// What ends with the last container is gone in a moment, on a busy machine in a long one. A keeper looks each second.
	looks := 0
	patiently(func() bool {
		time.Sleep(soakTick)
		looks++
		m, err := s.metrics()
		if err != nil {
			s.t.Fatal(err)
		}
		least := func(name string, v float64) {
			if old, ok := p.Figures[name]; !ok || v < old {
				p.Figures[name] = v
			}
		}
		least("daemon goroutines", m["go_goroutines"])
		least("daemon heap, KiB", m["go_memstats_heap_alloc_bytes"]/1024)
		for name, pid := range map[string]int{"daemon": s.pid(), "keeper": s.cmd.Process.Pid} {
			has, err := testgrowth.Process(pid)
			if err != nil {
				s.t.Fatal(err)
			}
			for figure, v := range has {
				least(name+" "+figure, v)
			}
		}
		if len(s.points) == 0 {
			return looks > 18
		}
		was := s.points[len(s.points)-1].Figures
		return looks > 4 && !slices.ContainsFunc(soakLimits, func(l testgrowth.Limit) bool {
			more := 0.
			if looks > 40 {
				more = l.Least
			}
			return l.Always && p.Figures[l.Figure] > was[l.Figure]+more
		})
	})
	s.points = append(s.points, p)
}
