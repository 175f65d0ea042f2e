package engine

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/unknot/unknot/engine/internal/placement"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/kernel"
	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/ring"
	"golang.org/x/sys/unix"
)

// A worker runs handlers: one goroutine of the queue path, or the receive
// thread itself when inline.
type worker struct {
	rx    *receiver
	index int // among rx's; 0 is the receive thread
	req   slot

	started  atomic.Int64 // when the request was dispatched; written before state says running
	replaced atomic.Bool  // the deadline gave our place to another: end
	tid      atomic.Int32 // of its thread; 0: it has none of its own
	typical  atomic.Int64 // ns that a handler takes, SEND not included; 0: none yet
	orders   uint64       // crew.orders as last followed
	at       int          // the CPU that it is kept to, or placement.Anywhere
	taken    uint32       // calls

	// Of spread, its own but for cpu, which is where it last looked, -1 if it does not know.
	cpu       atomic.Int32
	lookedAt  int64
	preempted int64
	usage     unix.Rusage
	busy      unix.CPUSet
}

func (rx *receiver) newWorker(index int) *worker {
	w := &worker{rx: rx, index: index, at: placement.Anywhere}
	w.req.t, w.req.e = &rx.tallies[index], rx.e
	w.cpu.Store(-1)
	return w
}

// start runs a worker of the queue path. The caller has added it to lifecycle.running.
func (w *worker) start() {
	body := func() {
		defer w.rx.e.life.running.done()
		w.loop()
	}
	if w.rx.e.cfg.Kind == GoroutineWorkers {
		go body()
		return
	}
	osthread.Start(body)
}

func (w *worker) loop() {
	rx, e := w.rx, w.rx.e
	var c *ring.Consumer[uint64]
	if e.cfg.Kind == GoroutineWorkers {
		c = rx.rings.Consumer()
	} else {
		c = rx.rings.ThreadConsumer()
		w.tid.Store(int32(osthread.Self()))
		defer w.tid.Store(0)
	}
	var h [1]uint64
	var slice timeSlice
	var own, ended int64 // the last handler's time before its answer, and when that was out
	for {
		w.follow()
		if c.TryPop(h[:]) == 0 {
			// Calls are held while we have nothing to do: have them told, so
			// that they come again.
			if rx.held.Load() > 0 && rx.door.notified.CompareAndSwap(false, true) {
				rx.notify()
			}
			if ended != 0 {
				w.took(own)
				ended = 0
			}
			if c.Pop(h[:]) == 0 {
				return
			}
		}
		// A source stays in the table for as long as it has calls.
		src := e.registry.at(int(h[0] >> 32))
		if number, on := src.pause.now(); on && src.rx.policy.Resumes(src.ring.Load().Len()) && src.pause.end(number) {
			rx.notify()
		}
		rx.batch.taken(src)
		// The cell goes back before the handler runs, so that a handler that
		// takes long cannot starve the receive thread of cells.
		i := uint32(h[0])
		cell := src.slab.At(i)
		r := &w.req
		r.notif, r.src, r.stats, r.receivedAt = cell.notif, src, cell.stats, cell.receivedAt
		r.ring = src.ring.Load()
		src.slab.Put(i)
		at := now()
		if ended != 0 {
			w.took(own + at - ended) // the handler may have gone on after its answer
			ended = 0
		}
		if e.cfg.MaxAge > 0 && at-r.receivedAt > int64(e.cfg.MaxAge) {
			w.dropExpired()
			continue
		}
		if at-w.lookedAt >= spreadEvery && w.at == placement.Anywhere && len(e.cpus) > 1 {
			w.spread(at)
		}
		w.taken++
		if !w.serve(w.checks(at-r.receivedAt), at) {
			return
		}
		own, ended = r.answeredFrom-at, r.endedAt
		slice.end(at)
	}
}

// took follows the worker's typical request: a running median, which the odd
// request that lost its CPU does not move. At first it moves fast, as the first ones are slow.
//
// The time of SEND is not the handler's: it is the kernel's, and it has in it what
// the woken target does to the scheduler.
func (w *worker) took(d int64) {
	t, step := w.typical.Load(), int64(16)
	if w.taken < 32 {
		step = 4
	}
	switch {
	case t == 0:
		t = d
	case d > t:
		t += t/step + 1
	default:
		t -= t / step
	}
	w.typical.Store(max(t, 1))
}

// checks reports whether to ask if the target of a call that has waited so long still waits.
func (w *worker) checks(waited int64) bool {
	c := &w.rx.e.cfg
	if w.taken%sampleChecks == 0 {
		return true
	}
	return waited > int64(c.CheckAfter) && (!c.checksWorth || w.typical.Load() >= checkWorth)
}

// dropExpired drops the request instead of handling it.
func (w *worker) dropExpired() {
	r := &w.req
	w.rx.held.Add(1)
	r.src.held.Add(1)
	r.t.expired.Add(1)
	r.src.expired.Add(1)
	h := w.rx.e.drops(&r.notif, r.stats, r.receivedAt)
	w.rx.sendDrop(r.t, r.src, &h)
	w.rx.held.Add(-1)
	r.src.held.Add(-1)
	r.giveBack()
}

// serve hands w.req, dispatched at the given time, to the handler and sees to it
// that it is answered. It reports whether the worker still has its place.
func (w *worker) serve(check bool, at int64) bool {
	r := &w.req
	r.dispatchedAt, r.answeredFrom, r.endedAt = at, at, at
	r.seq = (r.state.Load()>>phaseBits+1)<<phaseBits | running
	w.started.Store(r.dispatchedAt)
	if r.limits.Load() != nil {
		r.limits.Store(nil)
	}
	r.state.Store(r.seq)
	r.t.wait.Record(r.dispatchedAt - r.receivedAt)
	if r.stats != nil {
		r.stats.wait.Record(r.dispatchedAt - r.receivedAt)
	}
	if st := r.src.stats; st != nil {
		st.wait.Record(r.dispatchedAt - r.receivedAt)
	}
	if check && notify.OutcomeOf(r.src.l.IDValid(r.notif.ID)) == notify.Stale {
		if r.state.CompareAndSwap(r.seq, r.seq-running+answering) {
			r.t.stale.Add(1)
			if r.stats != nil {
				r.stats.stale.Add(1)
			}
			r.src.ends.stale.Add(1)
			r.src.done()
			r.state.Store(r.seq - running + vanished)
		}
	} else {
		w.call()
	}
	r.answerDefault(false)
	return w.finish()
}

// finish ends the request, which has its answer or is about to get it from
// somebody else, and reports whether the worker still has its place.
func (w *worker) finish() bool {
	r := &w.req
	// Who answers in our stead, the deadline or another goroutine of the
	// handler's, still looks at the slot.
	for phaseOf(r.state.Load()) < answered {
		kernel.Yield()
	}
	r.giveBack()
	r.state.Store(r.seq - running + idle)
	for r.readers.Load() != 0 { // for the time of a copy
		kernel.Yield()
	}
	return !w.replaced.Load()
}

// call runs the handler and survives it.
func (w *worker) call() {
	returned := false
	defer func() {
		if returned {
			return
		}
		p := recover() // nil only when the handler called runtime.Goexit
		goexit := p == nil
		if goexit {
			p = "runtime.Goexit"
		}
		w.req.panicked(p)
		// After Goexit this goroutine ends when we return, whatever we do.
		if goexit && w.finish() {
			w.rx.replace(w)
		}
	}()
	w.req.src.handler.Handle(Request{&w.req, w.req.seq})
	returned = true
}

// expire answers for the handler if it still runs a request whose deadline is over at the
// given time, or any if so said, and reports whether it did: then the request is
// the caller's until leaveLate.
func (w *worker) expire(at int64, all bool) (l lateness, ok bool) {
	r := &w.req
	state := r.state.Load()
	if phaseOf(state) != running {
		return l, false
	}
	// What is read here is this request's, if its state is the same afterwards.
	if !r.overdue(w.started.Load(), at, all) {
		return l, false
	}
	if !r.state.CompareAndSwap(state, state-running+late) {
		return l, false
	}
	r.giveBack() // however long the handler goes on
	return r.late(), true
}

// leaveLate ends the phase that expire began.
func (w *worker) leaveLate(l lateness) { w.req.state.Add(l.then - late) }

// replace gives w's place in the queue path to a fresh worker.
func (rx *receiver) replace(w *worker) {
	w.replaced.Store(true)
	rx.crew.mu.Lock()
	defer rx.crew.mu.Unlock()
	if w.index == 0 || !rx.e.life.running.add() {
		return // the engine is over
	}
	fresh := rx.newWorker(w.index)
	all := slices.Clone(rx.crew.all())
	all[w.index] = fresh
	rx.crew.workers.Store(&all)
	fresh.start()
}

// enforceDeadline enforces the handlers' deadline until ctx ends.
func (e *Engine) enforceDeadline(ctx context.Context) {
	every := func() time.Duration {
		d := time.Duration(e.deadlines.tightest.Load())
		if d == 0 {
			return time.Hour // nothing to look after
		}
		return max(d/8, time.Millisecond)
	}
	tick := time.NewTicker(every())
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.deadlines.asks:
			tick.Reset(every())
		case <-tick.C:
			e.expireAll(now(), false)
		}
	}
}

// expireAll answers for every handler whose deadline is over at the given time, or for
// all if so said, and gives their places to fresh workers.
func (e *Engine) expireAll(at int64, all bool) (n int) {
	var answered []lateness
	for _, rx := range e.receivers.all() {
		for _, w := range rx.crew.all() {
			if l, ok := w.expire(at, all); ok {
				answered = append(answered, l)
				if w.index != 0 {
					rx.replace(w)
				}
				w.leaveLate(l)
			}
		}
	}
	answered = append(answered, e.life.detached.expire(at, all)...)
	e.logLate(answered)
	return len(answered)
}

// sendDrop tells a dropped call.
func (rx *receiver) sendDrop(t *tally, src *Source, h *heldCall) {
	resp := notify.Resp{ID: h.id, Flags: notify.RespContinue}
	if h.errno != DropContinue {
		resp = errnoResp(h.id, h.errno)
	}
	err := src.l.Send(&resp)
	if resp.Flags != 0 && err != nil && notify.OutcomeOf(err) != notify.Stale { // before Linux 5.5
		resp = errnoResp(h.id, rx.e.cfg.DefaultErrno)
		err = src.l.Send(&resp)
		t.refused.Add(1)
	}
	waited := now() - h.receivedAt
	t.drop.Record(waited)
	if src.stats != nil {
		src.stats.drop.Record(waited)
	}
	switch notify.OutcomeOf(err) {
	case notify.Done:
		if resp.Error != 0 {
			t.errnos.add(resp.Error)
			if src.stats != nil {
				src.stats.errnos.add(resp.Error)
			}
		}
		if h.stats != nil {
			h.stats.dropped.Add(1)
		}
		t.dropped.Add(1)
		src.ends.dropped.Add(1)
	case notify.Stale:
		if h.stats != nil {
			h.stats.stale.Add(1)
		}
		t.stale.Add(1)
		src.ends.stale.Add(1)
	default:
		t.failed.Add(1)
		src.ends.failed.Add(1)
		rx.e.cfg.Logger.Log(context.Background(), slog.LevelError, "drop failed", "err", err, "errno", h.errno)
	}
	src.done()
}
