//go:build fakekernel

package ring

import (
	"sync/atomic"

	"github.com/unknot/unknot/internal/futex"
)

// Under the tag fakekernel, which is the engine's, there is no stop of the world to be hastened in real time.

func sysFutexWait(word *atomic.Uint32, old uint32) { futex.Wait(word, old, 0) }

func sysFutexWake(word *atomic.Uint32) { futex.Wake(word) }
