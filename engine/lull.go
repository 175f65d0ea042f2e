package engine

import (
	"time"

	"github.com/unknot/unknot/engine/osthread"
)

// Lulls are short sleeps of the receive thread, while it receives from a lone listener without
// epoll, for crowds of targets that answers outrun.
//
// An answered call stays in the kernel's list until its target has run. Where the
// targets' CPU is the slower side, hundreds pile up there; RECV and SEND walk past them, and
// the walk holds the lock (notify_lock) that the targets need to go on. A receive thread
// that sleeps now and then gets more done. But where targets may run on its own CPU, or
// are fewer, it gets less. Measured on two CPUs, inline, with a sleep in each
// trialCalls calls, times what is served without: targets on another CPU 0.90 to 1.13 at
// 256, 1.18 to 1.3 at 1,024, by how the machine felt; targets anywhere 0.92 and 0.93; 64
// targets on another CPU 0.94, with which they are not even tried. As nothing told the one from the
// other beforehand, the lulls find out by trial: of storms of half a second and a second,
// trials included, 1.02 to 1.13 times the calls at 256 targets on another CPU, 1.08 to 1.29 at
// 1,024, inline and by the queue; at targets anywhere 0.96 to 1.04, so that what the trials
// cost is not shown.
//
// Not taken, at 1,024 targets on another CPU: half as much sleep for half as many calls
// (the same), as much sleep for half as many calls (1.07), four times as much for four
// times as many (1.01), and spinning instead (1.0).
var lulls = trialKind{
	windows:  6,
	settle:   int64(20 * time.Millisecond), // for the list to get as long as it gets
	measured: int64(20 * time.Millisecond),
	slow:     int64(10 * time.Millisecond),
	idles:    true,
	gain:     1.03,
	stay:     1, // they need only do no harm
	sure:     1.08,
	holdMost: 4 * time.Second,
}

// lullSleep is for how long it sleeps in trialCalls calls.
const lullSleep = 60 * time.Microsecond

// lull sleeps for the length of a lull.
func (rx *receiver) lull() {
	rx.e.lulled.Add(1)
	osthread.FutexWait(&rx.e.never, 0, lullSleep)
}
