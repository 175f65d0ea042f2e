package engine

import (
	"context"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/osthread"
	"github.com/unknot/unknot/ring"
)

// A worker runs handlers: one goroutine of the queue path, or the receive
// thread itself when inline.
type worker struct {
	e     *Engine
	index int
	req   Request

	state    atomic.Uint64 // request number and phase
	started  atomic.Int64  // when the request was dispatched; written before state says running
	replaced atomic.Bool   // the deadline gave our place to another: end
}

func (e *Engine) newWorker(index int) *worker {
	w := &worker{e: e, index: index}
	w.req.t = &e.tallies[index]
	w.req.state = &w.state
	return w
}

// start runs a worker of the queue path. The caller has added it to e.running.
func (w *worker) start() {
	body := func() {
		defer w.e.running.done()
		w.loop()
	}
	if w.e.cfg.Kind == GoroutineWorkers {
		go body()
		return
	}
	osthread.Start(body)
}

func (w *worker) loop() {
	var c *ring.Consumer[uint32]
	if w.e.cfg.Kind == GoroutineWorkers {
		c = w.e.ring.Consumer()
	} else {
		c = w.e.ring.ThreadConsumer()
	}
	var h [1]uint32
	for c.Pop(h[:]) == 1 {
		// The cell goes back before the handler runs, so that a handler that
		// takes long cannot starve the receive thread of cells.
		cell := w.e.slab.At(h[0])
		r := &w.req
		r.notif, r.src, r.stats, r.receivedAt = cell.notif, cell.src, cell.stats, cell.receivedAt
		w.e.slab.Put(h[0])
		if !w.serve(true) {
			return
		}
	}
}

// serve hands w.req to the handler and sees to it that it is answered. It
// reports whether the worker still has its place.
func (w *worker) serve(check bool) bool {
	r := &w.req
	r.dispatchedAt = now()
	r.seq = (w.state.Load()>>phaseBits+1)<<phaseBits | running
	w.started.Store(r.dispatchedAt)
	w.state.Store(r.seq)
	r.t.wait.Record(r.dispatchedAt - r.receivedAt)
	if r.stats != nil {
		r.stats.wait.Record(r.dispatchedAt - r.receivedAt)
	}
	if check && notify.OutcomeOf(r.src.l.IDValid(r.notif.ID)) == notify.Stale {
		if w.state.CompareAndSwap(r.seq, r.seq-running+answering) {
			r.t.stale.Add(1)
			if r.stats != nil {
				r.stats.stale.Add(1)
			}
			r.src.done()
		}
	} else {
		w.call()
	}
	w.settle(false)
	return w.finish()
}

// finish ends the request and reports whether the worker still has its place.
func (w *worker) finish() bool {
	for phaseOf(w.state.Load()) == late {
		runtime.Gosched() // who answered in our stead still looks at the request
	}
	w.state.Store(w.req.seq - running + idle)
	return !w.replaced.Load()
}

// call runs the handler and survives it.
func (w *worker) call() {
	returned := false
	defer func() {
		if returned {
			return
		}
		w.req.t.panicked.Add(1)
		p := recover() // nil only when the handler called runtime.Goexit
		goexit := p == nil
		if goexit {
			p = "runtime.Goexit"
		}
		w.e.cfg.Logger.Error("handler panicked", "panic", p, "pid", w.req.PID(), "syscall", w.req.notif.Data.NR, "stack", string(debug.Stack()))
		w.settle(true)
		// After Goexit this goroutine ends when we return, whatever we do.
		if goexit && w.finish() {
			w.e.replace(w)
		}
	}()
	w.e.cfg.Handler.Handle(&w.req)
	returned = true
}

// settle gives the default answer if there is none.
func (w *worker) settle(panicked bool) {
	r := &w.req
	if !w.state.CompareAndSwap(r.seq, r.seq-running+answering) {
		return
	}
	if !panicked {
		r.t.unanswered.Add(1)
	}
	r.sendDefault(w.e.cfg.DefaultErrno)
	w.state.Store(r.seq - running + answered)
}

// expire answers for the handler if it still runs a request that was
// dispatched before the given time, and reports whether it did.
func (w *worker) expire(before int64) bool {
	state := w.state.Load()
	if phaseOf(state) != running || w.started.Load() > before || !w.state.CompareAndSwap(state, state-running+late) {
		return false
	}
	// The request is ours until the phase moves on from late.
	w.req.t.late.Add(1)
	w.e.cfg.Logger.Warn("handler is late, answered for it", "pid", w.req.PID(), "syscall", w.req.notif.Data.NR, "errno", w.e.cfg.DefaultErrno)
	w.req.sendDefault(w.e.cfg.DefaultErrno)
	return true
}

// leaveLate ends the phase that expire began.
func (w *worker) leaveLate() { w.state.Store(w.state.Load() - late + answered) }

// replace gives w's place in the queue path to a fresh worker.
func (e *Engine) replace(w *worker) {
	w.replaced.Store(true)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cfg.Inline || !e.running.add() {
		return // the engine is over
	}
	fresh := e.newWorker(w.index)
	all := append([]*worker(nil), *e.workers.Load()...)
	all[w.index] = fresh
	e.workers.Store(&all)
	fresh.start()
}

// watch enforces the handlers' deadline until ctx ends.
func (e *Engine) watch(ctx context.Context) {
	tick := time.NewTicker(max(e.cfg.HandlerDeadline/8, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			e.expireAll(now() - int64(e.cfg.HandlerDeadline))
		}
	}
}

// expireAll answers for every handler whose request was dispatched before the
// given time and gives their places to fresh workers.
func (e *Engine) expireAll(before int64) (n int) {
	for _, w := range *e.workers.Load() {
		if w.expire(before) {
			n++
			if !e.cfg.Inline {
				e.replace(w)
			}
			w.leaveLate()
		}
	}
	return n
}

// drop answers the call in a cell with the drop errno.
func (e *Engine) drop(t *tally, c *cell) {
	resp := errnoResp(c.notif.ID, e.cfg.DropErrno)
	err := c.src.l.Send(&resp)
	t.drop.Record(now() - c.receivedAt)
	switch notify.OutcomeOf(err) {
	case notify.Done:
		if c.stats != nil {
			c.stats.dropped.Add(1)
		}
		t.dropped.Add(1)
	case notify.Stale:
		if c.stats != nil {
			c.stats.stale.Add(1)
		}
		t.stale.Add(1)
	default:
		t.failed.Add(1)
		e.cfg.Logger.Log(context.Background(), slog.LevelError, "drop failed", "err", err, "errno", syscall.Errno(e.cfg.DropErrno))
	}
	c.src.done()
}
