//go:build !race && !ringchaos && !ringmodel

package ring

import (
	"sync"
	"sync/atomic"
)

// The seam: everything through which goroutines meet in this package. Here it
// is the standard library, and costs nothing. Under the race detector, or the
// tag ringchaos, seam_chaos.go puts a hook into each access so that tests can
// preempt there; under the tag ringmodel, seam_model.go makes each access one step of
// an exhaustive model checker that runs this same source.
type (
	mutex        = sync.Mutex
	atomicUint32 = atomic.Uint32
	atomicUint64 = atomic.Uint64
)

// calm is how many pushes of a ring with an AsymmetricFence cost together, by their exchanges,
// what the heavy fence of one sleeper costs: so many in a row have to meet no sleeper until they go
// without, and so many have to go without for the next to do so at once.
const calm = 256

// mark and rewind tell the model checker that a loop starts over with nothing
// remembered from the failed attempt.
const hooked = false

func mark() uint64    { return 0 }
func rewind(m uint64) {}

// at names a window in which a goroutine may be descheduled.
func at(point) {}

// futex sleeps and wakes threads.
func futexWait(word *atomicUint32, old uint32) { sysFutexWait(word, old) }
func futexWake(word *atomicUint32)             { sysFutexWake(word) }

// A token wakes one goroutine once; released at most once per acquire.
type token struct{ c chan struct{} }

func (t *token) init()    { t.c = make(chan struct{}, 1) }
func (t *token) acquire() { <-t.c }
func (t *token) release() { t.c <- struct{}{} }
