package bench

import (
	"fmt"
	"strings"
	"time"

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
}

// ParseWork reads "50us" (CPU time), "sleep:1ms" (blocked) or "spin:1us".
func ParseWork(s string) (Work, error) {
	d, sleep := strings.CutPrefix(s, "sleep:")
	d, spin := strings.CutPrefix(d, "spin:")
	t, err := time.ParseDuration(d)
	if d == "0" {
		t, err = 0, nil
	}
	if err != nil || t < 0 || sleep && spin {
		return Work{}, fmt.Errorf("work %q: want a duration such as 50us (CPU time), sleep:1ms (blocked) or spin:1us (wall clock)", s)
	}
	return Work{t, sleep, spin}, nil
}

func (w Work) String() string {
	if w.Sleep {
		return "sleep:" + w.Time.String()
	}
	if w.Spin {
		return "spin:" + w.Time.String()
	}
	return w.Time.String()
}

// Do works. CPU time is that of the thread, so that a handler that loses its CPU
// does not get away with less; the goroutine may change threads while it
// computes, so the wall clock bounds it as well, at 100 times the work.
func (w Work) Do() {
	switch {
	case w.Time == 0:
	case w.Sleep:
		time.Sleep(w.Time)
	case w.Spin:
		for end := now() + int64(w.Time); now() < end; {
		}
	default:
		end, limit := threadCPU()+int64(w.Time), now()+100*int64(w.Time)
		for threadCPU() < end && now() < limit {
		}
	}
}

func threadCPU() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return now() // no such clock: the wall clock is next best
	}
	return ts.Nano()
}
