//go:build !fakekernel

package ring

import (
	"sync/atomic"

	"github.com/unknot/unknot/internal/futex"
)

// sysFutexWait sleeps in the kernel while *word is old. It may also return for no reason; the
// caller looks again.
func sysFutexWait(word *atomic.Uint32, old uint32) {
	pulse.Begin()
	futex.Wait(word, old, 0)
	pulse.End()
}

// sysFutexWake wakes one thread that sleeps on word. It does not block.
func sysFutexWake(word *atomic.Uint32) { futex.Wake(word) }
