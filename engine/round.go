package engine

import (
	"sync/atomic"
	"time"

	"github.com/unknot/unknot/engine/osthread"
)

// A round is where the receive thread and the lone worker, who share a CPU, take
// turns. After roundCalls calls the receive thread sleeps until the worker has
// taken the last of them, since to receive further would gain nothing: nobody
// could work at them, RECV has to walk past each call that is received and not
// answered, and the ring would overflow although the worker is fast enough.
//
// Measured on two CPUs with a handler that does nothing, in interleaved rounds, on
// two days: 1.46 and 1.19 times what is served without at 256 targets (8 calls a
// round: 1.06, 16: 1.15), 1.05 and 1.04 at 64; at 16 and fewer the receive thread
// runs out of calls before.
type round struct {
	src  atomic.Pointer[Source] // whose ring shall be emptied; nil: nobody waits
	over atomic.Uint32          // 1: it was
}

const (
	roundCalls = 32
	// roundMost bounds the receive thread's sleep: a handler that is held up
	// must not hold up receiving.
	roundMost = 500 * time.Microsecond
)

// handOver ends the receive thread's turn if it is over: enough of src's calls
// wait for the lone worker.
func (rx *receiver) handOver(src *Source, at int64) {
	e := rx.e
	if e.bench.up() != alone || src.ring.Len() < min(roundCalls, (e.cfg.Queue+1)/2) || at < rx.handsOff || e.pokes.Load() != rx.seen {
		return
	}
	r := &e.round
	r.over.Store(0)
	r.src.Store(src)
	// Announced: whoever takes the last call after this look sees it.
	if src.ring.Len() > 0 {
		osthread.FutexWait(&r.over, 0, roundMost)
	}
	r.src.Store(nil)
	if src.ring.Len() > 0 && r.over.Load() == 0 {
		rx.handsOff = at + int64(lookEvery) // until the keeper has had a look
	}
}

// taken ends the receive thread's sleep if the caller has taken the last call that
// it waits for.
func (r *round) taken(src *Source) {
	if r.src.Load() == src && src.ring.Len() == 0 && r.src.CompareAndSwap(src, nil) {
		r.over.Store(1)
		osthread.FutexWake(&r.over)
	}
}
