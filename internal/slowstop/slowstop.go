// Package slowstop works around a flaw of Go 1.26: to stop the world may take up to a minute. A thread that enters a
// system call just as a stop begins can keep its processor of the scheduler (reentersyscall looks at sched.gcwaiting
// before it becomes _Gsyscall), and then only the end of that call or the runtime's monitor frees it; the monitor
// sleeps until the next timer is due, for up to a minute. That may be the very call that waits for this process's
// answer. A timer that is running is all it takes. docs/decisions/25-slow-stop.md has the report.
package slowstop

import (
	"math"
	"sync/atomic"
	"time"
)

// Keep has the runtime wait for a timer all the time, so that a stop of the world is held up for about every at most,
// until it is told to stop. A ticker would be no timer while nobody waits for it, and one that has gone off is none
// either, so this one begins anew.
func Keep(every time.Duration) (stop func()) {
	var over atomic.Bool
	var t *time.Timer
	t = time.AfterFunc(time.Hour, func() {
		if !over.Load() {
			t.Reset(every)
		}
	})
	t.Reset(every)
	return func() {
		over.Store(true) // it may be beginning anew now, once
		t.Stop()
	}
}

// A Heart is Keep while threads sleep in the kernel without a limit: it beats while there are sleepers, and once after
// the last has gone. (A limit of each sleep would do too, but wake every sleeper.)
type Heart struct {
	every   time.Duration
	timer   *time.Timer
	asleep  atomic.Int32
	beating atomic.Bool // the timer is set, or beat is running
	beats   atomic.Uint64
}

// NewHeart makes a heart that beats at this interval.
func NewHeart(every time.Duration) *Heart {
	h := &Heart{every: every}
	h.timer = time.AfterFunc(math.MaxInt64, h.beat)
	h.timer.Stop()
	return h
}

// Begin is called before a sleep in the kernel, End after it. They do not allocate.
func (h *Heart) Begin() {
	h.asleep.Add(1)
	if !h.beating.Load() && h.beating.CompareAndSwap(false, true) {
		h.timer.Reset(h.every)
	}
}

// End says that a sleep that was begun is over.
func (h *Heart) End() { h.asleep.Add(-1) }

// Beats is how often it has beaten.
func (h *Heart) Beats() uint64 { return h.beats.Load() }

func (h *Heart) beat() {
	h.beats.Add(1)
	if h.asleep.Load() == 0 {
		h.beating.Store(false)
		// Whoever fell asleep before that has seen it beating.
		if h.asleep.Load() == 0 || !h.beating.CompareAndSwap(false, true) {
			return
		}
	}
	h.timer.Reset(h.every)
}
