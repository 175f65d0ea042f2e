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

// MaxTagged is the longest work that a tag can name.
const MaxTagged = (tagSleeps - 1) * tagUnit * time.Nanosecond

// TagWork is the tag of a call whose handler computes for t of CPU time, or sleeps
// for t, or for [MaxTagged] if that is less. Spec.Work.Tagged has engines obey.
func TagWork(t time.Duration, sleeps bool) uint32 {
	tag := uint32(min(max(t, 0), MaxTagged) / tagUnit)
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
		compute(t)
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

// oversleep is in ns, as it was lately.
var oversleep atomic.Int64

const oversleepStep = 1000
