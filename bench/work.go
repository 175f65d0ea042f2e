package bench

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Work is what a handler does for each call: compute for some CPU time, or sleep.
type Work struct {
	Time  time.Duration
	Sleep bool
}

// ParseWork reads "50us" (CPU time) or "sleep:1ms" (blocked).
func ParseWork(s string) (Work, error) {
	d, sleep := strings.CutPrefix(s, "sleep:")
	t, err := time.ParseDuration(d)
	if d == "0" {
		t, err = 0, nil
	}
	if err != nil || t < 0 {
		return Work{}, fmt.Errorf("work %q: want a duration such as 50us (CPU time) or sleep:1ms (blocked)", s)
	}
	return Work{t, sleep}, nil
}

func (w Work) String() string {
	if w.Sleep {
		return "sleep:" + w.Time.String()
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
