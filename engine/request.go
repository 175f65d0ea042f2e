package engine

import (
	"errors"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/target"
	"github.com/unknot/unknot/ring"
	"golang.org/x/sys/unix"
)

// A Handler decides about notifications. It answers by one of the Request's
// methods and returns; the workers call it concurrently.
type Handler interface{ Handle(Request) }

// HandlerFunc makes a Handler of a function.
type HandlerFunc func(Request)

// Handle calls f.
func (f HandlerFunc) Handle(r Request) { f(r) }

var (
	// ErrAnswered says that the notification has had its answer, from the
	// handler itself or, past its deadline, from the engine; or that the handler
	// detached it, and its [Pending] answers.
	ErrAnswered = errors.New("answered already")
	// ErrGone says that the target died, or was interrupted and will notify again. It
	// needs no answer then: a handler may return.
	ErrGone = target.ErrGone
	// ErrSpent says that the handler of the request has returned: the request
	// is nobody's any more, and was answered.
	ErrSpent = errors.New("request spent: its handler has returned")
	// ErrConfined says that an inline handler asked for what its receive thread, which
	// has confined itself (package confine), would be killed for: the target's memory, a
	// descriptor added. The queue path's workers are not confined.
	ErrConfined = notify.ErrConfined
)

// The phases of a slot's state word, whose other bits number the request. The
// handler and the deadline race to answer by a compare-and-swap from running.
const (
	idle      = iota // no request
	running          // the handler has it
	answering        // somebody won the right to answer and is in SEND
	late             // the deadline won the right to answer and is in SEND
	answered         // the answer is out, the handler has not returned yet
	vanished         // there is nobody to answer any more, the handler has not returned yet
	detached         // it went to a slot of its own, the handler has not returned yet

	phaseBits = 3
)

func phaseOf(state uint64) uint64 { return state & (1<<phaseBits - 1) }

// A slot is where a worker keeps the request that it has in hand, one after the other.
//
// What is not atomic is written by the worker, while the slot is idle and nobody
// reads. It is read by whoever won the right to answer, or is among the readers.
type slot struct {
	state   atomic.Uint64 // request number and phase
	readers atomic.Int32  // who copies from the slot; the worker waits for them before it writes

	notif notify.Notif
	src   *Source
	stats *syscallEntry

	receivedAt, dispatchedAt int64
	answeredFrom, endedAt    int64  // begin and end of SEND
	seq                      uint64 // the state word of this request, phase running

	limits atomic.Pointer[Limits] // of the request, or nil

	// The same for all requests.
	t *tally
	e *Engine

	ring    *ring.Ring[uint64] // of whose ration the request has a part, or nil; whose the right to answer is gives it back
	pending *pending           // of a detached request, whose slot is its own for ever; nil in a worker's
}

// A Request is one notification in its handler's hands, until Handle returns. It
// may be copied, and its methods called from any goroutine. Once Handle has
// returned it is spent, for ever: what answers or adds a descriptor fails with
// [ErrSpent], the rest returns zero values. Neither reaches another call, although the
// engine uses its memory again. The zero Request is spent.
//
// An answer that the kernel refuses is an error, and the target has the default answer
// (Config.DefaultErrno) instead.
//
// Take what shall outlive Handle out of the Request before it returns: Data, PID
// and ID are copies.
type Request struct {
	s   *slot
	seq uint64 // the slot's state word of this request, phase running
}

// hold keeps the slot from its next request until release, and reports whether
// it still has this one.
//
// Not taken: a copy of the notification in each Request, which would be small no
// more; a look before and after the copy, which the race detector rightly calls a race.
func (r Request) hold() bool {
	if r.spent() {
		return false
	}
	r.s.readers.Add(1)
	if r.spent() { // between the two looks
		r.s.readers.Add(-1)
		return false
	}
	return true
}

func (r Request) release() { r.s.readers.Add(-1) }

// spent reports whether the slot has moved on from this request.
func (r Request) spent() bool {
	if r.s == nil {
		return true
	}
	state := r.s.state.Load()
	return state>>phaseBits != r.seq>>phaseBits || phaseOf(state) == idle
}

// notif is the notification; all zero once spent.
func (r Request) notif() (n notify.Notif) {
	if r.hold() {
		n = r.s.notif
		r.release()
	}
	return n
}

// ID is the kernel's number of the notification; 0 once spent.
func (r Request) ID() uint64 { return r.notif().ID }

// PID is the trapped thread's id in our pid namespace; 0 if it is not visible,
// or once spent. Its /proc files are the target's only while Alive says so afterwards.
func (r Request) PID() int { return int(r.notif().PID) }

// Data is a copy of the trapped system call; all zero once spent, and then of no
// architecture (its Arch is 0, which no call has).
func (r Request) Data() (d notify.Data) {
	if r.hold() {
		d = r.s.notif.Data
		r.release()
	}
	return d
}

// Source is where the notification came from; nil once spent.
func (r Request) Source() (src *Source) {
	if r.hold() {
		src = r.s.src
		r.release()
	}
	return src
}

// Waited is the time from receive to dispatch; 0 once spent.
func (r Request) Waited() (d time.Duration) {
	if r.hold() {
		d = max(0, time.Duration(r.s.dispatchedAt-r.s.receivedAt)) // the clock may jump back a little
		r.release()
	}
	return d
}

// Alive reports whether the target still waits for the answer; never once spent.
func (r Request) Alive() bool {
	src, id, ok := r.target()
	return ok && src.l.IDValid(id) == nil
}

// Answered reports whether the call has its answer, from this handler or, past its deadline, from the engine. Methods of the
// target fail with ErrGone then, too, as if it had died. Never once spent.
func (r Request) Answered() bool {
	for r.hold() {
		phase := phaseOf(r.s.state.Load())
		r.release()
		if phase != answering && phase != late {
			return phase == answered
		}
		runtime.Gosched() // SEND is short, and says whether the target was there
	}
	return false
}

// Target is the thread that waits for the answer: its memory, its descriptors, who it is, and opening files
// in its place; see package [github.com/unknot/unknot/engine/target]. Once the request is spent it is gone.
// On a receive thread that has confined itself all of it fails with [ErrConfined].
func (r Request) Target() (t target.Target) {
	if r.hold() {
		t = target.New(r.s.src.l, &r.s.notif)
		r.release()
	}
	return t
}

// target is what ioctls of this request name, and whether it is not spent.
func (r Request) target() (src *Source, id uint64, ok bool) {
	if r.hold() {
		src, id, ok = r.s.src, r.s.notif.ID, true
		r.release()
	}
	return src, id, ok
}

// Return answers with the call's result.
func (r Request) Return(val int64) error { return r.answer(notify.Resp{Val: val}) }

// Fail answers with an errno.
func (r Request) Fail(errno syscall.Errno) error { return r.answer(errnoResp(0, errno)) }

// Continue has the kernel run the call. Not a security decision: see the package's traps.
// Before Linux 5.5 the kernel refuses; notify.FeatureContinue tells beforehand.
func (r Request) Continue() error { return r.answer(notify.Resp{Flags: notify.RespContinue}) }

func errnoResp(id uint64, errno syscall.Errno) notify.Resp {
	if errno > 1<<30 {
		errno = 1 << 30 // refused by Check, as it should be, not wrapped around
	}
	return notify.Resp{ID: id, Error: -int32(errno)}
}

// answer sends resp unless there is an answer already. The right to is won by
// one step on the state word, which holds the request's number: the slot cannot
// move on before the answer is out, so it is this request's notification.
func (r Request) answer(resp notify.Resp) error {
	if err := resp.Check(); err != nil {
		if r.spent() {
			return r.tooLate()
		}
		return err
	}
	s := r.s
	if s == nil || !s.state.CompareAndSwap(r.seq, r.seq-running+answering) {
		return r.tooLate()
	}
	resp.ID = s.notif.ID
	start := now()
	err := s.src.l.Send(&resp) // here, not in a function of its own: see notify.Listener.Recv
	err = s.sent(&resp, err, start)
	s.state.Store(r.seq - running + after(err))
	return err
}

// giveBack says that the request is in its handler no more, as far as its listener's share of the workers goes.
func (s *slot) giveBack() {
	if s.ring != nil {
		s.ring.Done()
		s.ring = nil
	}
}

// after is the phase after an answer that came to err.
func after(err error) uint64 {
	if err == ErrGone {
		return vanished
	}
	return answered
}

// tooLate counts an answer for which there is no place any more.
func (r Request) tooLate() error {
	if r.s == nil {
		return ErrSpent
	}
	if r.spent() {
		r.s.t.spent.Add(1)
		return ErrSpent
	}
	switch r.s.state.Load() - (r.seq - running) {
	case vanished:
		return ErrGone // whoever tried another answer did no harm
	case detached:
		r.s.t.duplicate.Add(1)
		return errDetached
	}
	r.s.t.duplicate.Add(1)
	return ErrAnswered
}

// sent counts an answer by what SEND, begun at the given time, made of it.
func (s *slot) sent(resp *notify.Resp, err error, start int64) error {
	end := now()
	s.answeredFrom, s.endedAt = start, end
	s.t.answer.Record(end - start)
	s.t.service.Record(end - s.dispatchedAt)
	if st := s.src.stats; st != nil {
		st.answer.Record(end - start)
		st.service.Record(end - s.dispatchedAt)
	}
	err = s.count(resp, err)
	if s.pending != nil {
		s.pending.end(s)
	}
	s.src.done()
	return err
}

// count counts an answer by what SEND made of it. One that the kernel refuses is followed by
// the default answer, so that the target does not wait for ever.
func (s *slot) count(resp *notify.Resp, err error) error {
	switch notify.OutcomeOf(err) {
	case notify.Done:
		if resp.Flags&notify.RespContinue != 0 {
			s.t.continued.Add(1)
		}
		if st := s.stats; st != nil {
			st.answered.Add(1)
			st.total.Record(s.endedAt - s.receivedAt)
			st.service.Record(s.endedAt - s.dispatchedAt)
		}
		if resp.Error != 0 {
			s.t.errnos.add(resp.Error)
			if st := s.src.stats; st != nil {
				st.errnos.add(resp.Error)
			}
		}
		s.t.answered.Add(1)
		s.src.ends.answered.Add(1)
	case notify.Stale:
		if st := s.stats; st != nil {
			st.stale.Add(1)
		}
		s.t.stale.Add(1)
		s.src.ends.stale.Add(1)
		err = ErrGone
	case notify.Over:
		s.t.failed.Add(1)
		s.src.ends.failed.Add(1)
	default:
		err = s.refused(resp, err)
	}
	return err
}

// refused follows an answer that the kernel refused with the default one, unless it was that.
func (s *slot) refused(resp *notify.Resp, err error) error {
	e := s.e
	def := errnoResp(resp.ID, e.cfg.DefaultErrno)
	if *resp == def {
		s.t.failed.Add(1)
		s.src.ends.failed.Add(1)
		return err
	}
	s.t.refused.Add(1)
	sent := s.count(&def, s.src.l.Send(&def))
	e.cfg.Logger.Error("the kernel refused an answer, the default one followed", "err", err, "pid", s.notif.PID, "syscall", s.notif.Data.NR, "errno", e.cfg.DefaultErrno)
	switch sent {
	case nil:
		s.t.defaulted.Add(1)
	case ErrGone:
		return ErrGone
	}
	if resp.Flags&notify.RespContinue != 0 && errors.Is(err, unix.EINVAL) {
		return errNoContinue
	}
	return err
}

// errNoContinue is what Continue returns before Linux 5.5.
var errNoContinue error = &notify.UnsupportedError{Feature: notify.FeatureContinue.Name, Since: notify.FeatureContinue.Since, Err: unix.EINVAL}

// answerDefault gives the default answer if there is none.
func (s *slot) answerDefault(panicked bool) {
	// The look first, as it is cheaper: nearly always there is an answer.
	if s.state.Load() != s.seq || !s.state.CompareAndSwap(s.seq, s.seq-running+answering) {
		return
	}
	err := s.sendDefault()
	if !panicked && err != ErrGone { // a handler may return because its target is gone
		s.t.unanswered.Add(1)
	}
	s.state.Store(s.seq - running + after(err))
}

// panicked counts a handler that did, p being what it panicked with, and answers for it, before it logs: a log may stall.
func (s *slot) panicked(p any) {
	s.t.panicked.Add(1)
	s.answerDefault(true)
	s.e.cfg.Logger.Error("handler panicked", "panic", p, "pid", s.notif.PID, "syscall", s.notif.Data.NR, "stack", string(debug.Stack()))
}

// A lateness is a request that was answered for its handler: the phase that it is in then, and what to log, once nobody waits for that.
type lateness struct {
	then uint64
	pid  uint32
	nr   int32
}

// late counts a handler that is, and answers for it. The caller has won the right to.
func (s *slot) late() lateness {
	s.t.late.Add(1)
	return lateness{after(s.sendDefault()), s.notif.PID, s.notif.Data.NR}
}

func (e *Engine) logLate(all []lateness) {
	for _, l := range all {
		if l.then == vanished {
			e.cfg.Logger.Warn("handler is late, its target is gone", "pid", l.pid, "syscall", l.nr)
		} else {
			e.cfg.Logger.Warn("handler is late, answered for it", "pid", l.pid, "syscall", l.nr, "errno", e.cfg.DefaultErrno)
		}
	}
}

// sendDefault answers for the handler. The caller has won the right to.
func (s *slot) sendDefault() error {
	resp := s.defaultResp()
	start := now()
	err := s.sent(&resp, s.src.l.Send(&resp), start)
	if err == nil {
		s.t.defaulted.Add(1)
	}
	return err
}
