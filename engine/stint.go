package engine

import (
	"runtime"
	"time"
)

// The Go runtime's monitor takes a goroutine's P away when it has run for 10 ms, a
// system call included, and then looks again at least 50 times, some 70 µs apart, each
// time on the CPU of the receive thread or of a target (runtime.sysmon, retake). It
// leaves a goroutine alone that yields before. Measured on two CPUs, targets
// on the other: 94 wake-ups of the monitor a second instead of 970, and 1.00, 1.04 and
// 1.18 times the inline throughput at 16, 64 and 256 targets.
const yieldEvery = int64(8 * time.Millisecond)

// A stint is when its goroutine last yielded in the Go scheduler.
type stint int64

// end yields if it is time, at being the time.
func (s *stint) end(at int64) {
	if at-int64(*s) > yieldEvery {
		*s = stint(at)
		runtime.Gosched()
	}
}
