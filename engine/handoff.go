package engine

import (
	"sync/atomic"
	"time"

	"github.com/unknot/unknot/internal/futex"
)

// A handOff is where a receive thread and its lone worker, who share a CPU, take
// turns. After a hand-off batch of calls the receive thread sleeps until the worker has
// taken the last of them, since to receive further would gain nothing: nobody
// could work at them, RECV has to walk past each call that is received and not
// answered, and the ring would overflow although the worker is fast enough. What
// that gains: docs/decisions/20-adaptivity.md.
type handOff struct {
	src  atomic.Pointer[Source] // whose ring shall be emptied; nil: nobody waits
	over atomic.Uint32          // 1: it was
}

const (
	handOffBatch = 32 // calls
	// handOffMost bounds the receive thread's sleep: a handler that is held up
	// must not hold up receiving.
	handOffMost = 500 * time.Microsecond
)

// handOff ends the receive thread's turn if it is over: enough of src's calls
// wait for the lone worker.
func (l *loop) handOff(src *Source, at int64) {
	rx := l.rx
	if !rx.crew.lone() || at < l.handsOff || rx.door.knocks.Load() != l.seen {
		return
	}
	ring := src.ring.Load()
	if ring.Len() < min(handOffBatch, (src.rx.policy.Depth()+1)/2) {
		return
	}
	b := &rx.batch
	b.over.Store(0)
	b.src.Store(src)
	// Announced: whoever takes the last call after this look sees it.
	if ring.Len() > 0 {
		futex.Wait(&b.over, 0, handOffMost)
	}
	b.src.Store(nil)
	if ring.Len() > 0 && b.over.Load() == 0 {
		l.handsOff = at + int64(lookEvery) // until the controller has had a look
	}
}

// taken ends the receive thread's sleep if the caller has taken the last call that
// it waits for.
func (b *handOff) taken(src *Source) {
	if b.src.Load() == src && src.ring.Load().Len() == 0 && b.src.CompareAndSwap(src, nil) {
		b.over.Store(1)
		futex.Wake(&b.over)
	}
}
