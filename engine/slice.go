package engine

import (
	"runtime"
	"time"
)

// The Go runtime's monitor takes a goroutine's P away when it has run for 10 ms, a
// system call included, and then looks again at least 50 times, some 70 µs apart, each
// time on the CPU of the receive thread or of a target (runtime.sysmon, retake). It
// leaves a goroutine alone that yields before.
const yieldEvery = int64(8 * time.Millisecond)

// A timeSlice is when its goroutine last yielded in the Go scheduler.
type timeSlice int64

// end yields if it is time, at being the time.
func (s *timeSlice) end(at int64) {
	if at-int64(*s) > yieldEvery {
		*s = timeSlice(at)
		runtime.Gosched()
	}
}
