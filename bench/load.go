package bench

import (
	"fmt"
	"time"

	"github.com/unknot/unknot/bench/storm"
)

// A Load is what the targets do. The zero value is a closed loop of getppid
// without think time. Loads are comparable.
type Load struct {
	Think storm.Think // of the closed loop
	// Arrivals makes it an open loop: calls are made when it is their time,
	// whatever the answers.
	Arrivals storm.Arrivals
	Mix      storm.Mix
	Hostile  storm.Hostile // of the closed loop
}

// The loops; every result says which.
const (
	loopClosed = "closed" // each target calls again once it has its answer
	LoopOpen   = "open"   // calls have intended starts
)

// Loop is loopClosed or LoopOpen.
func (l Load) Loop() string {
	if l.Arrivals != nil {
		return LoopOpen
	}
	return loopClosed
}

// Config is the storm of l, with a schedule for d of it.
func (l Load) Config(targets int, cpu storm.CPU, d time.Duration, seed uint64) (storm.Config, error) {
	c := storm.Config{Targets: targets, CPU: cpu, Mix: l.Mix, Think: l.Think, Hostile: l.Hostile, Seed: seed}
	if l.Arrivals == nil {
		return c, nil
	}
	var err error
	c.Open = true
	if c.Schedule, err = l.Arrivals.Schedule(d, seed); err == nil && len(c.Schedule) == 0 {
		err = fmt.Errorf("no call in %v: storm for longer or raise the rate", d)
	}
	return c, err
}

// name is the part of a benchmark's name that says what is not the default.
func (l Load) name() (s string) {
	if l.Arrivals != nil {
		s += "/loop=" + LoopOpen + "/arrivals=" + l.Arrivals.String()
	}
	if l.Think.Mean > 0 {
		s += "/think=" + l.Think.String()
	}
	if l.Mix != (storm.Mix{}) {
		s += "/calls=" + l.Mix.String()
	}
	if l.Hostile != storm.Friendly {
		s += "/hostile=" + l.Hostile.String()
	}
	return s
}
