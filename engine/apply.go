package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/unknot/unknot/engine/internal/placement"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/kernel"
	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

// This file alone changes a thread, epoll's watch, a listener's flags or GOMAXPROCS after set-up: one setter for each,
// which compares what is wanted with what was applied. A worker's own part is in crew.go and spread.go.
// All of it is the controller's, but for attach, detach and the first setWakeUp of a listener, whose callers hold registry.mu.

// attach has epoll watch a descriptor.
func (rx *receiver) attach(fd, index int) error {
	return kernel.EpollCtl(rx.epfd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(index)})
}

// detach takes s off epoll.
func (rx *receiver) detach(s *Source) {
	_ = kernel.EpollCtl(rx.epfd, unix.EPOLL_CTL_DEL, s.l.FD(), nil)
}

// setWakeUp gives a listener the wake-up mode of the configuration, whatever it had before.
func (e *Engine) setWakeUp(l *notify.Listener) error {
	if e.cfg.WakeUp == Async {
		_ = l.SetFlags(0) // kernels without the flag have nothing to be taken away
		return nil
	}
	err := l.SetFlags(notify.SyncWakeUp)
	if err != nil && e.cfg.WakeUp == Sync {
		return fmt.Errorf("engine: add listener: %w (use another wake-up mode)", &notify.UnsupportedError{Feature: "SYNC_WAKE_UP", Since: "6.6", Err: err})
	}
	if err != nil {
		e.control.noSync.Store(true)
	}
	return nil
}

// resetWakeUp takes the flag away from a listener that is handed back, if it was set.
func (e *Engine) resetWakeUp(l *notify.Listener) {
	if e.cfg.WakeUp != Async && !e.control.noSync.Load() {
		_ = l.SetFlags(0)
	}
}

// applied is what was made of a receiver's plans, by the controller.
type applied struct {
	tid    int // of the receive thread, which is up
	plan   placement.Plan
	order  order
	cpu    int // of the receive thread, or placement.Anywhere
	batch  bool
	levels int        // nice levels by which the receive thread is raised
	nice   int        // of the threads, when not raised
	lone   *worker    // who is raised, too
	apart  *[]*Source // the listeners that were told to do without SYNC_WAKE_UP; nil: none
	kept   bool       // somebody else has set the receive thread's mask: it is left alone
	mayNot bool       // raise anybody
}

// apply has threads as the plan says.
func (rx *receiver) apply(a *applied, p placement.Plan) {
	if a.tid = rx.thread(); a.tid == 0 {
		return // 0 would be the controller's own
	}
	if p != a.plan {
		if log := rx.e.cfg.Logger; log.Enabled(context.Background(), slog.LevelDebug) { // else it allocates for nothing
			log.Debug("plan", "receiver", rx.index, "plan", p.String())
		}
		a.plan = p
	}
	if !rx.setCPU(a, p.CPU) { // workers stay with it
		if p.WorkerCPU != placement.Anywhere {
			p.WorkerCPU = a.cpu
		}
	}
	rx.setApart(a, p.Apart)
	rx.setOrder(a, order{p.Active, p.WorkerCPU})
	rx.setBatch(a, p.Batch)
	rx.setPriority(a, p.Raise)
}

// setCPU keeps the receive thread to a CPU, or lets it run anywhere, and reports whether it is there.
func (rx *receiver) setCPU(a *applied, cpu int) bool {
	if cpu == a.cpu {
		return true
	}
	if a.kept {
		return false
	}
	mask := func(cpu int) []int {
		if cpu == placement.Anywhere {
			return rx.e.cpus
		}
		return []int{cpu}
	}
	is, err := osthread.AllowedTo(a.tid)
	if err == nil && !slices.Equal(is, mask(a.cpu)) {
		err = fmt.Errorf("it was put on CPUs %v", is)
	}
	if err == nil {
		err = osthread.Allow(a.tid, mask(cpu)...)
	}
	if err != nil {
		rx.e.cfg.Logger.Info("the receive thread is not moved any more", "receiver", rx.index, "err", err)
		a.kept = true
		return false
	}
	a.cpu = cpu
	rx.door.cpu.Store(int32(cpu))
	return true
}

// setApart has the receiver's listeners wake targets wherever the scheduler wants them, or on the CPU of who answers.
func (rx *receiver) setApart(a *applied, apart bool) {
	var want *[]*Source
	if apart {
		want = rx.listeners.Load()
	}
	if want == a.apart {
		return
	}
	a.apart = want
	var flags uint64 = notify.SyncWakeUp
	if apart {
		flags = 0
	}
	for _, s := range *rx.listeners.Load() {
		_ = s.l.SetFlags(flags) // one that was closed meanwhile has none
	}
}

func (rx *receiver) setOrder(a *applied, o order) {
	if o == a.order || rx.rings == nil {
		return
	}
	a.order = o
	rx.crew.set(o)
}

// setBatch makes the receive thread a batch thread, which does not preempt whom it wakes.
func (rx *receiver) setBatch(a *applied, batch bool) {
	if batch == a.batch {
		return
	}
	a.batch = batch
	if err := osthread.Batch(a.tid, batch); err != nil {
		rx.e.cfg.Logger.Debug("receive thread keeps its scheduling policy", "receiver", rx.index, "err", err)
	}
}

// setPriority raises the receive thread and a lone worker, or has them as they were.
func (rx *receiver) setPriority(a *applied, raised bool) {
	if a.mayNot || !raised && a.levels == 0 {
		return
	}
	var lone *worker
	if raised && rx.rings != nil {
		lone = rx.crew.all()[1]
	}
	if w := a.lone; w != nil && w != lone {
		a.lone = nil
		// First, since it shares the receive thread's CPU. If it has ended, it is 0.
		if tid := int(w.tid.Load()); tid != 0 {
			rx.renice(a, tid, a.nice)
		}
	}
	switch {
	case raised && a.levels == 0:
		attr, err := unix.SchedGetAttr(a.tid, 0)
		if err != nil {
			return
		}
		a.nice = int(attr.Nice)
		if by := raiseOf(a.nice); rx.renice(a, a.tid, a.nice-by) {
			a.levels = by
		}
	case !raised && rx.renice(a, a.tid, a.nice):
		a.levels = 0
	}
	if lone != nil && a.lone == nil && a.levels > 0 {
		if tid := int(lone.tid.Load()); tid != 0 && rx.renice(a, tid, a.nice-a.levels) {
			a.lone = lone
		}
	}
}

// renice says whether it could. If it may not, it is not tried again; a thread that has ended
// is none to be raised.
func (rx *receiver) renice(a *applied, tid, nice int) bool {
	err := osthread.SetNice(tid, nice)
	if errors.Is(err, unix.EPERM) {
		a.mayNot = true // nobody was raised, then: lowering a priority is always permitted
		rx.e.cfg.Logger.Info("the receive thread keeps its priority; raising it takes CAP_SYS_NICE, or RLIMIT_NICE", "err", err)
	}
	return err == nil
}

// raiseBy is by how many levels the priority is raised: docs/decisions/20-priority.md.
const raiseBy = 15

// raiseOf is by how many levels a thread with that nice value is raised.
func raiseOf(nice int) int { return min(raiseBy, nice+20) }

// ProbePriority says whether [Config.RaisePriority] has an effect for this user, by raising a
// thread of its own for a moment. The error wraps EPERM if not.
func ProbePriority() error {
	tried := make(chan error)
	osthread.Start(func() {
		tried <- func() error {
			tid := osthread.Self()
			a, err := unix.SchedGetAttr(tid, 0)
			if err != nil {
				return fmt.Errorf("read scheduling policy: %w", err)
			}
			return osthread.SetNice(tid, int(a.Nice)-raiseOf(int(a.Nice)))
		}()
	})
	return <-tried
}

// setProcs sees to it that the engine has added n Ps to GOMAXPROCS.
//
// A thread in a system call keeps its P until the runtime's monitor takes it away. The
// monitor does that at once where no other P is idle, and then goes on looking, some 14,000 times
// a second on the CPU of a target or of a receive thread. So there is one P more than
// threads that are always needed, and as many as there are workers while handlers take long.
func (e *Engine) setProcs(n int) {
	if had := int(e.control.procs.Load()); had != n {
		osthread.AddProcs(n - had)
		e.control.procs.Store(int32(n))
	}
}

// spareProcs is how many Ps the engine lacks while handlers are short, with so many receivers in use.
func (e *Engine) spareProcs(receivers int) int {
	threads := receivers
	if !e.cfg.Inline {
		threads *= 2 // and a lone worker each
	}
	return max(0, threads+1-osthread.OwnProcs())
}
