package bench

import (
	"sync/atomic"
	"time"

	"github.com/unknot/unknot/bench/storm"
)

// A call's tag can be the work that its handler does: its time in units of
// tagUnit, and whether it sleeps.
const (
	tagUnit   = 8 // ns
	tagSleeps = 1 << 31
)

// maxTagged is the longest work that a tag can name.
const maxTagged = (tagSleeps - 1) * tagUnit * time.Nanosecond

// TagWork is the tag of a call whose handler takes t by the wall clock, computing or
// asleep, or the longest that a tag can name, if that is less. Spec.Work.Tagged has engines obey.
func TagWork(t time.Duration, sleeps bool) uint32 {
	tag := uint32(min(max(t, 0), maxTagged) / tagUnit)
	if sleeps {
		tag |= tagSleeps
	}
	return tag
}

func doTag(arg uint64) {
	if arg>>32 != storm.Mark {
		return // a call that only wakes the receiver
	}
	t := int64(uint32(arg)&^tagSleeps) * tagUnit
	if arg&tagSleeps == 0 {
		// Not so much CPU time: a handler that was preempted when it was recorded would be again.
		// And where it is preempted at its end all the same, the next ones give some of theirs
		// for it, so that all together take as long as was recorded.
		give := min(overrun.Load(), t/overrunShare)
		end := now() + t - give
		for now() < end {
		}
		overrun.Add(min(now()-end, overrunMost) - give)
		return
	}
	// A sleep ends late by the thread's timer slack and the way back to a CPU: by
	// oversleep as often less as more.
	end := now() + t
	late := oversleep.Load()
	if t <= late {
		spin(t)
		return
	}
	nap(t - late)
	if now() > end {
		oversleep.Add(oversleepStep)
	} else {
		oversleep.Add(-min(oversleepStep, late))
	}
}

// overrun is by how many ns handlers have computed longer than they were to, and not
// given back yet. A handler gives no more than that share of its time, and none is
// counted for more than overrunMost.
var overrun atomic.Int64

const (
	overrunShare = 16
	overrunMost  = 2e6
)

// oversleep is in ns, as it was lately.
var oversleep atomic.Int64

const oversleepStep = 1000
