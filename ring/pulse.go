package ring

import (
	"math"
	"sync/atomic"
	"time"
)

// pulse keeps a timer of the Go runtime running while wired threads sleep in futexes: one for
// the process, once a second. Go 1.26 needs that: a thread that enters a system call just as the
// world is being stopped can keep its processor of the scheduler, and then nothing
// runs until the call ends or a timer is due, for up to a minute (reentersyscall looks at
// sched.gcwaiting before it becomes _Gsyscall, and sysmon sleeps meanwhile).
//
// A time limit of each sleep would do too, but wake every sleeper.
var pulse = newHeart(time.Second)

// A heart beats while there are sleepers, and once after the last has gone.
type heart struct {
	every   time.Duration
	timer   *time.Timer
	asleep  atomic.Int32
	beating atomic.Bool // the timer is set, or beat is running
	beats   atomic.Uint64
}

func newHeart(every time.Duration) *heart {
	h := &heart{every: every}
	h.timer = time.AfterFunc(math.MaxInt64, h.beat)
	h.timer.Stop()
	return h
}

// begin is called before a sleep in the kernel, end after it. They do not allocate.
func (h *heart) begin() {
	h.asleep.Add(1)
	if !h.beating.Load() && h.beating.CompareAndSwap(false, true) {
		h.timer.Reset(h.every)
	}
}

func (h *heart) end() { h.asleep.Add(-1) }

func (h *heart) beat() {
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
