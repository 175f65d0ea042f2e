package engine

import (
	"runtime"
	"sync"
	"time"
)

// Processors of the Go scheduler (Ps) for handlers that take long.
//
// A thread in a system call keeps its P until the runtime's monitor takes it away. The
// monitor does that only where one system call lasts from one of its looks to the next
// (runtime.retake), and with nothing to do it looks every 10 ms. Handlers that block for
// less, and the receive thread in RECV, so have the GOMAXPROCS Ps to themselves, while
// other workers wait for one beside idle CPUs, for seconds. Where handlers compute,
// whoever comes back from RECV or SEND waits for a P of one that does.
//
// Measured on two CPUs, served with Workers+1 more Ps relative to none: 2 workers that
// compute for 20, 50 and 200 µs 1.5, 1.7 and 1.15 at 16 targets, 1.45, 1.7 and 1.9 at 64,
// where one P more gains nearly as much; 4 workers that sleep for 500 µs under bursts of
// 4000 calls/s: all, where without half of the calls found all 464 threads waiting. While calls
// take turns with a lone worker more Ps cost: 0.95 at 16 targets.

const (
	// slowHandlers is what a typical handler takes, from where on they get Ps of their own: for
	// slowWindows windows of calls in a row, as a short one looks slow where it loses its CPU to
	// the target that it woke; or surelySlow for one.
	slowHandlers = farAbove
	slowWindows  = agreement
	surelySlow   = int64(200 * time.Microsecond)
)

// added is what all engines have added to GOMAXPROCS.
var added struct {
	mu  sync.Mutex
	n   int
	set int // what GOMAXPROCS was last set to
}

// addProcs adds n to GOMAXPROCS, takes them back if n is negative. If somebody else has set it
// meanwhile, what they set is right, and what was added is forgotten.
func addProcs(n int) {
	added.mu.Lock()
	defer added.mu.Unlock()
	now := runtime.GOMAXPROCS(0)
	if now != added.set {
		added.n = 0
	}
	n = max(n, -added.n)
	added.n += n
	added.set = now + n
	if n != 0 {
		// It stops the world, which may take until the next timer; see pulse. A ticker is none
		// while nobody waits for it.
		t := time.AfterFunc(time.Millisecond, func() {})
		defer t.Stop()
		runtime.GOMAXPROCS(added.set)
	}
}

// ownProcs is GOMAXPROCS without what engines have added.
func ownProcs() int {
	added.mu.Lock()
	defer added.mu.Unlock()
	n := runtime.GOMAXPROCS(0)
	if n == added.set {
		n -= added.n
	}
	return n
}

// wantsProcs reports whether workers should have Ps of their own at that time.
func (e *Engine) wantsProcs(at int64) bool {
	switch {
	case e.cfg.Inline || e.cfg.KeepProcs || e.bench.closed.Load():
		return false
	case e.slow.Load() >= slowWindows, e.bench.openUntil.Load() > at:
		return true
	}
	return e.procs.Load() > 0 // as it is, until there is a sign
}

// setProcs sees to it that they have.
func (e *Engine) setProcs(want bool) {
	n := int32(0)
	if want {
		n = int32(e.cfg.Workers) + 1 // and the receive thread
	}
	if had := e.procs.Load(); had != n {
		addProcs(int(n - had))
		e.procs.Store(n)
	}
}
