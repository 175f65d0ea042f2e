package engine

import (
	"time"

	"github.com/unknot/unknot/engine/osthread"
)

// Processors of the Go scheduler (Ps) for threads that are in system calls, or handlers that
// take long.
//
// A thread in a system call keeps its P until the runtime's monitor takes it away. The
// monitor does that at once where no other P is idle, and then goes on looking, some 14,000 times
// a second on the CPU of a target or of the receive thread; else only where one system call lasts
// from one of its looks to the next (runtime.retake), and with nothing to do it looks every 10 ms.
//
// So there is one P more than threads that the engine needs: the receive thread and, by the
// queue, a lone worker. Measured on two CPUs by the queue, with a third P relative to two: CPU
// per call 0.25 at 2000 calls/s (28 and 110 µs), 0.4 at 500, 0.5 at 10,000; calls/s 0.99 at 1
// and 4 targets, 0.96 at 16, 1.08 at 64, 1.08 to 1.13 at 256, which with two are half as many
// for seconds. The pair, three threads that rarely sleep, did as well with three as with five.
//
// Handlers that block for less than those 10 ms, and the receive thread in RECV, otherwise have the
// GOMAXPROCS Ps to themselves, while other workers wait for one beside idle CPUs, for seconds.
// Where handlers compute, whoever comes back from RECV or SEND waits for a P of one that does.
//
// Measured on two CPUs, served with Workers+1 more Ps relative to none: 2 workers that
// compute for 20, 50 and 200 µs 1.5, 1.7 and 1.15 at 16 targets, 1.45, 1.7 and 1.9 at 64,
// where one P more gains nearly as much; 4 workers that sleep for 500 µs under bursts of
// 4000 calls/s: all, where without half of the calls found all 464 threads waiting.

const (
	// slowHandlers is what a typical handler takes, from where on they get Ps of their own: for
	// slowWindows windows of calls in a row, as a short one looks slow where it loses its CPU to
	// the target that it woke; or surelySlow for one.
	slowHandlers = farAbove
	slowWindows  = agreement
	surelySlow   = int64(200 * time.Microsecond)
)

// spareProcs is how many Ps the engine lacks while handlers are short.
func (e *Engine) spareProcs() int32 {
	threads := 1 // the receive thread
	if !e.cfg.Inline {
		threads++ // and a lone worker
	}
	return int32(max(0, threads+1-osthread.OwnProcs()))
}

// wantsProcs is how many Ps more than GOMAXPROCS there should be at that time.
func (e *Engine) wantsProcs(at int64) int32 {
	switch {
	case e.cfg.KeepProcs:
		return 0
	case e.cfg.Inline || e.bench.up() != everybody:
		return e.spare
	case e.slow.Load() >= slowWindows, e.bench.openUntil.Load() > at:
		return int32(e.cfg.Workers) + 1 // and the receive thread
	}
	return max(e.procs.Load(), e.spare) // as it is, until there is a sign
}

// setProcs sees to it that there are n.
func (e *Engine) setProcs(n int32) {
	if had := e.procs.Load(); had != n {
		osthread.AddProcs(int(n - had))
		e.procs.Store(n)
	}
}
