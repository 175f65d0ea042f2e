package storm

import (
	"fmt"
	"strings"
	"time"

	"github.com/unknot/unknot/internal/dist"
)

// MaxTargets bounds the threads of one storm.
const MaxTargets = 8192

// A CPU says where the targets run. The zero value does not pin them.
type CPU int

// onCPU pins all targets to CPU n, counted from 0.
func onCPU(n int) CPU { return CPU(n + 1) }

// Think is what a thread of a closed loop does between two calls: it computes, by
// the wall clock, or sleeps.
type Think struct {
	dist.Dist
	Sleep bool
}

// ParseThink reads "50us" (it computes for 50 µs), "50us~1" (exponentially
// distributed with a mean of 50 µs) or "sleep:50us~1".
func ParseThink(s string) (Think, error) {
	d, sleep := strings.CutPrefix(s, "sleep:")
	t, err := dist.Parse(d)
	if err != nil {
		return Think{}, fmt.Errorf("think %w", err)
	}
	return Think{t, sleep}, nil
}

// String is what ParseThink reads.
func (t Think) String() string {
	if t.Sleep {
		return "sleep:" + t.Dist.String()
	}
	return t.Dist.String()
}

// Config describes a storm.
type Config struct {
	Targets int // threads, at least 1
	CPU     CPU
	Mix     Mix
	Seed    uint64 // of what is drawn: calls and think times

	// Think is of the closed loop.
	Think Think
	// Open makes it an open loop: the calls of Schedule and no others, each by a
	// thread that is idle at its intended start, if there is one.
	Open     bool
	Schedule []Arrival `json:"-"`

	// Hostile is of a closed loop.
	Hostile Hostile

	// Numbered calls of a closed loop each have a number of their own in the low half of their sixth argument, and want
	// [Answer] of it for a value: [Report.Threads] tells what became of them.
	Numbered bool

	// Untimed targets of a closed loop count their calls and do nothing else.
	Untimed bool
}

func (c *Config) check() error {
	switch {
	case c.Targets < 1 || c.Targets > MaxTargets:
		return fmt.Errorf("%d targets: must be 1 to %d", c.Targets, MaxTargets)
	case c.CPU < 0:
		return fmt.Errorf("CPU %d: must not be negative", int(c.CPU)-1)
	case c.Think.Mean < 0 || c.Think.CV < 0 || c.Think.CV > dist.MaxCV:
		return fmt.Errorf("think time %v: must not be negative, its coefficient of variation at most %d", c.Think, dist.MaxCV)
	case c.Open && (c.Think != Think{} || c.Untimed):
		return fmt.Errorf("an open loop has no think time and is always timed")
	case c.Hostile >= numHostile:
		return fmt.Errorf("no kind %d of hostile targets", c.Hostile)
	case c.Hostile != Friendly && (c.Open || c.Untimed):
		return fmt.Errorf("hostile targets are of a closed loop and always timed")
	case c.Numbered && (c.Open || c.Untimed):
		return fmt.Errorf("numbered calls are of a closed loop and always timed")
	case !c.Open && len(c.Schedule) > 0:
		return fmt.Errorf("a schedule is for an open loop")
	}
	return checkSchedule(c.Schedule)
}

// traps are the calls that the filter traps: those of the schedule, or of the mix
// where it leaves the choice open, and getppid for Ring.
func (c *Config) traps() []Call {
	cs := append(c.Mix.calls(), getppid)
	for _, a := range c.Schedule {
		if a.Call != anyCall {
			cs = append(cs, a.Call)
		}
	}
	return cs
}

// thinks are the think times, in ns, of a thread, to be taken in turn. A table, because
// drawing them in the loop would be a point of preemption.
func (c *Config) thinks(draw func() float64) []int64 {
	if c.Think.Mean == 0 {
		return []int64{0}
	}
	if c.Think.CV == 0 {
		return []int64{int64(c.Think.Mean)}
	}
	t := make([]int64, 1<<12)
	for i := range t {
		t[i] = int64(draw())
	}
	return t
}

// lead is the time between Go and the origin of a schedule, in which the threads
// wake up.
const lead = 5 * time.Millisecond
