package engine

import (
	"errors"
	"fmt"

	"github.com/unknot/unknot/engine/osthread"
	"golang.org/x/sys/unix"
)

// The priority of the threads that receive and answer, while many targets call and handlers
// are short.
//
// An answer wakes a target, and the scheduler may run it at once in place of who answered,
// although other targets wait for their answers and another CPU may be idle. With a nice value
// that is lower by raiseBy that does not happen: targets go to other CPUs. With few targets,
// who take turns with the receive thread, it costs.
//
// Measured on two CPUs as root, handlers that do nothing, calls/s relative to none, for
// 10, 15 and 20 levels: inline 0.85, 0.82, 0.81 at 4 targets, 0.95, 0.79, 0.77 at 8, 1.21, 1.36,
// 1.40 at 16, 1.06, 1.14, 1.18 at 64, 1.00, 0.98, 0.91 at 256; by the queue, receive thread and
// lone worker, 0.63 at 4, 0.67 to 0.53 at 8, 1.19, 1.24, 1.26 at 16, 1.13, 1.28, 1.34 at 64, 1.11,
// 1.29, 1.12 at 256; one of the two alone, 0.64 to 1.14. That was while a call took 3.4 µs. The
// same machine has spells in which one takes 6 µs as soon as two CPUs are in it; then 15 levels
// made 0.97 and 1.05 at 16 targets, with 1.3 times the CPU per call inline. Without privilege
// there is nothing like it: a longer or shorter slice of the receive thread (sched_setattr)
// changed nothing.
//
// It is not done unasked: in a storm little is left of the CPU for others. While it was, a storm of
// 8 targets beside raised engines of other processes, on two CPUs, made no call for 250 ms; that
// the one was because of the other is likely, not shown.
const raiseBy = 15

const (
	crowdBelow = 11  // marked bits of a census: no crowd below
	crowdAbove = 13  // a crowd above
	multitude  = 110 // marked bits; 140 threads mark as many on average
	// throngBelow is where a multitude ends, for the lulls.
	throngBelow = 90
)

// crowded follows whether many targets call, and inline handlers are short.
func (rx *receiver) crowded(marks int) {
	e := rx.e
	// By the queue, a multitude is served faster, too; inline it is the same, with a worse p99.
	rx.many.add(marks < crowdBelow || marks > multitude && e.cfg.Inline, marks > crowdAbove)
	is, agreed := rx.many.agree(crowdAgreeOn)
	if !agreed {
		return
	}
	was := e.crowded.Load()
	if e.cfg.Inline {
		t := (*e.workers.Load())[0].typical.Load()
		is = is && (t < nearBelow || was && t < farAbove)
	}
	if is != was {
		e.crowded.Store(is)
		e.ask()
	}
}

// raise is by how many levels a thread with that nice value is raised.
func raise(nice int) int { return min(raiseBy, nice+20) }

// ProbePriority says whether [Config.RaisePriority] has an effect for this user, by raising a
// thread of its own for a moment. The error wraps EPERM if not.
func ProbePriority() error {
	tried := make(chan error)
	osthread.Start(func() {
		tried <- func() error {
			tid := unix.Gettid()
			a, err := unix.SchedGetAttr(tid, 0)
			if err != nil {
				return fmt.Errorf("read scheduling policy: %w", err)
			}
			return osthread.SetNice(tid, int(a.Nice)-raise(int(a.Nice)))
		}()
	})
	return <-tried
}

// setPriority raises the receive thread and the lone worker, or has them as they were. Only
// the keeper calls it.
func (e *Engine) setPriority() {
	if !e.cfg.RaisePriority || e.mayNot {
		return
	}
	want := e.crowded.Load() && (e.cfg.Inline || e.bench.up() == alone)
	var lone *worker
	if want && !e.cfg.Inline {
		lone = (*e.workers.Load())[1]
	}
	if w := e.raised; w != nil && w != lone {
		e.raised = nil
		// First, since it shares the receive thread's CPU. If it has ended, it is 0.
		if tid := int(w.tid.Load()); tid != 0 {
			e.renice(tid, e.nice)
		}
	}
	switch tid, raised := int(e.rxTID.Load()), e.priority.Load() > 0; {
	case want && !raised:
		a, err := unix.SchedGetAttr(tid, 0)
		if err != nil {
			return
		}
		e.nice = int(a.Nice)
		by := raise(e.nice)
		if !e.renice(tid, e.nice-by) {
			return
		}
		e.priority.Store(int32(by))
	case !want && raised:
		if e.renice(tid, e.nice) {
			e.priority.Store(0)
		}
	}
	if lone != nil && e.raised == nil {
		if tid := int(lone.tid.Load()); tid != 0 && e.renice(tid, e.nice-int(e.priority.Load())) {
			e.raised = lone
		}
	}
}

// renice says whether it could. If it may not, it is not tried again; a thread that has ended
// is none to be raised.
func (e *Engine) renice(tid, nice int) bool {
	err := osthread.SetNice(tid, nice)
	if errors.Is(err, unix.EPERM) {
		e.mayNot = true // nobody was raised, then: lowering a priority is always permitted
		e.cfg.Logger.Info("the receive thread keeps its priority; raising it takes CAP_SYS_NICE, or RLIMIT_NICE", "err", err)
	}
	return err == nil
}
