package engine

import (
	"math/bits"
	"time"

	"github.com/unknot/unknot/engine/osthread"
)

// An estimator tells how many targets make calls, from the ids of the last
// ones: a window of calls marks one of 64 bits for each thread id. It costs a
// multiplication and an or for each call.
//
// The wake-up mode follows it. Measured with a bare supervisor in C on two CPUs
// (targets not pinned, supervisor pinned), calls per second with SYNC_WAKE_UP
// relative to without: 1.8 at 1 target, 1.2 at 2 and 4, 0.93 at 16, 0.9 at 64,
// 0.8 at 256. Targets pinned away from the supervisor do not notice the flag.
type estimator struct {
	seen   uint64
	calls  int
	agreed int
}

const (
	window    = 64 // calls
	fewBelow  = 6  // marked bits: Sync below
	manyAbove = 9  // Async above; 10 threads mark 9 of 64 bits on average
	agreement = 4  // windows in a row that must agree
)

// count tells of a call. At the end of each window it returns the wake-up mode
// that the last windows agree on, AutoWakeUp if they do not.
func (s *estimator) count(tid uint32) (mode WakeUp, full bool) {
	s.seen |= 1 << (tid * 0x9e3779b1 >> 26)
	if s.calls++; s.calls < window {
		return AutoWakeUp, false
	}
	n := bits.OnesCount64(s.seen)
	s.seen, s.calls = 0, 0
	switch {
	case n < fewBelow:
		s.agreed = min(s.agreed, 0) - 1
	case n > manyAbove:
		s.agreed = max(s.agreed, 0) + 1
	default:
		s.agreed = 0
	}
	switch {
	case s.agreed <= -agreement:
		return Sync, true
	case s.agreed >= agreement:
		return Async, true
	}
	return AutoWakeUp, true
}

const (
	// Workers are near the receive thread while their typical request takes
	// less than nearBelow, and anywhere once it takes more than farAbove.
	nearBelow = int64(10 * time.Microsecond)
	farAbove  = int64(20 * time.Microsecond)
	// anywhere is Engine.placement for workers that the scheduler places;
	// otherwise it is a CPU.
	anywhere = -1
	// looked bounds the workers that place asks.
	looked = 8
)

// place decides where the workers run. It is called on the receive thread, once
// for each window of calls.
func (e *Engine) place() {
	if e.cfg.Inline || e.cfg.Placement != AutoPlacement || e.rxCPU.Load() < 0 {
		return
	}
	all := (*e.workers.Load())[1:]
	var sum, n int64
	for _, w := range all[:min(len(all), looked)] {
		if t := w.typical.Load(); t > 0 {
			sum, n = sum+t, n+1
		}
	}
	switch {
	case n == 0:
	case sum < n*nearBelow:
		e.placement.Store(e.rxCPU.Load())
	case sum > n*farAbove:
		e.placement.Store(anywhere)
	}
}

// settleIn moves the calling worker's thread to where workers now belong.
func (w *worker) settleIn() {
	at := w.e.placement.Load()
	if at == w.at || w.e.cfg.Kind == GoroutineWorkers {
		return
	}
	w.at = at // also when it fails: the mask was changed from outside, leave it
	if at == anywhere {
		_ = osthread.Unpin(w.e.cpus)
	} else {
		_ = osthread.Pin(int(at))
	}
}

// took follows the worker's typical request: a running median, which the odd
// request that lost its CPU does not move.
func (w *worker) took(d int64) {
	t := w.typical.Load()
	switch {
	case t == 0:
		t = d
	case d > t:
		t += t/16 + 1
	default:
		t -= t / 16
	}
	w.typical.Store(t)
}
