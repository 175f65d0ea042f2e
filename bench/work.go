package bench

import (
	"fmt"
	"strings"
	"time"

	"github.com/unknot/unknot/internal/dist"
	"golang.org/x/sys/unix"
)

// Work is what a handler does for each call: compute for some CPU time, sleep, or
// spin for some time by the wall clock.
type Work struct {
	Time  time.Duration
	Sleep bool
	// Spin is for works of few microseconds: reading the thread's CPU clock is a
	// system call, and so the least work by it is about 2 µs.
	Spin bool
	// CV is the coefficient of variation of the times, whose mean is Time; 0:
	// every call takes as long. See dist.Dist.
	CV float64
	// Script, if not nil, has it change as a storm goes on; the other fields are of its beginning.
	Script *Script
	// Tagged leaves it to each call: its tag is the work, as TagWork makes it.
	Tagged bool
}

// ParseWork reads "50us" (CPU time), "sleep:1ms" (blocked) or "spin:1us"; a ~ and
// the coefficient of variation may follow: "50us~1". Steps may follow, see parseScript.
func ParseWork(s string) (Work, error) {
	if strings.Contains(s, "+") {
		return parseScript(s)
	}
	d, sleep := strings.CutPrefix(s, "sleep:")
	d, spin := strings.CutPrefix(d, "spin:")
	t, err := dist.Parse(d)
	if err != nil || sleep && spin {
		return Work{}, fmt.Errorf("work %q: want a duration such as 50us (CPU time), sleep:1ms (blocked) or spin:1us (wall clock), or 50us~1 for times that vary, with their coefficient of variation", s)
	}
	return Work{Time: t.Mean, Sleep: sleep, Spin: spin, CV: t.CV}, nil
}

func (w Work) String() string {
	if w.Tagged {
		return "tagged"
	}
	if w.Script != nil {
		return w.Script.String()
	}
	t := w.Dist().String()
	if w.Sleep {
		return "sleep:" + t
	}
	if w.Spin {
		return "spin:" + t
	}
	return t
}

// Dist is the distribution of the times.
func (w Work) Dist() dist.Dist { return dist.Dist{Mean: w.Time, CV: w.CV} }

// Longest is the mean time, of the step that takes longest.
func (w Work) Longest() time.Duration {
	t := w.Time
	if w.Script != nil {
		for _, step := range w.Script.steps {
			t = max(t, step.work.Time)
		}
	}
	return t
}

// Do works. CPU time is that of the thread, so that a handler that loses its CPU
// does not get away with less; the goroutine may change threads while it
// computes, so the wall clock bounds it as well, at 100 times the work.
//
// Sleep blocks the thread, as a handler does that waits for a file or for another
// program. (time.Sleep would not do: in an otherwise idle process it returns
// after 1.1 ms, asked for 200 µs.)
func (w Work) Do() {
	t := int64(w.Dist().Draw(nil))
	switch {
	case t == 0:
	case w.Sleep:
		nap(t)
	case w.Spin:
		spin(t)
	default:
		compute(t)
	}
}

func compute(t int64) {
	end, limit := threadCPU()+t, now()+100*t
	for threadCPU() < end && now() < limit {
	}
}

func nap(t int64) {
	ts := unix.NsecToTimespec(t)
	for unix.Nanosleep(&ts, &ts) == unix.EINTR {
	}
}

func spin(t int64) {
	for end := now() + t; now() < end; {
	}
}

func threadCPU() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return now() // no such clock: the wall clock is next best
	}
	return ts.Nano()
}
