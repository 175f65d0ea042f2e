package engine

import (
	"time"

	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

// A worker looks around at most so often; it costs it two system calls.
const spreadEvery = int64(500 * time.Microsecond)

// spread keeps two workers that compute from one CPU. The kernel wakes workers near the
// receive thread and may leave two there for long while another CPU is
// mostly idle: short wake-ups, of the targets and of Go's own threads, keep that one from
// looking for work. So a worker that was preempted and
// finds another one at work on its CPU moves to a CPU without one, if it may. A worker
// without a thread of its own is left to the Go scheduler: it could change threads
// between the calls, and the mask of the first would stay.
func (w *worker) spread(at int64) {
	w.lookedAt = at
	if w.tid.Load() == 0 {
		return
	}
	cpu := osthread.CPU()
	w.cpu.Store(int32(cpu))
	if cpu < 0 || unix.Getrusage(unix.RUSAGE_THREAD, &w.usage) != nil {
		return
	}
	preempted := w.usage.Nivcsw
	if preempted == w.preempted {
		return // also where handlers sleep: they share a CPU without harm
	}
	w.preempted = preempted
	shared := false
	w.busy.Zero()
	for _, o := range w.rx.crew.all()[1:] {
		if o == w || phaseOf(o.req.state.Load()) != running {
			continue
		}
		if c := int(o.cpu.Load()); c >= 0 {
			w.busy.Set(c)
			shared = shared || c == cpu
		}
	}
	if shared {
		osthread.Leave(&w.busy)
	}
}
