package engine

import (
	"errors"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// A Handler decides about notifications. It answers by one of the Request's
// methods and returns; the workers call it concurrently.
type Handler interface{ Handle(*Request) }

// HandlerFunc makes a Handler of a function.
type HandlerFunc func(*Request)

// Handle calls f.
func (f HandlerFunc) Handle(r *Request) { f(r) }

var (
	// ErrAnswered says that the notification has had its answer, from the
	// handler itself or, past its deadline, from the engine.
	ErrAnswered = errors.New("answered already")
	// ErrGone says that the target died, or was interrupted and will notify again.
	ErrGone = errors.New("target gone")
)

// The phases of a worker's state word, whose other bits number the request. The
// handler and the deadline race to answer by a compare-and-swap from running.
const (
	idle      = iota // no request
	running          // the handler has it
	answering        // somebody won the right to answer and is in SEND
	late             // the deadline won the right to answer and is in SEND
	answered         // the answer is out, the handler has not returned yet

	phaseBits = 3
)

func phaseOf(state uint64) uint64 { return state & (1<<phaseBits - 1) }

// A Request is one notification in its handler's hands. It is the handler's
// until Handle returns and must not be kept longer.
type Request struct {
	notif notify.Notif
	src   *Source
	stats *syscallEntry

	receivedAt, dispatchedAt int64
	answeredFrom, endedAt    int64 // begin and end of SEND
	state                    *atomic.Uint64
	seq                      uint64 // the state word of this request, phase running
	t                        *tally
}

// ID is the kernel's number of the notification.
func (r *Request) ID() uint64 { return r.notif.ID }

// PID is the trapped thread's id in our pid namespace; 0 if it is not visible.
// Its /proc files are the target's only while Alive says so afterwards.
func (r *Request) PID() int { return int(r.notif.PID) }

// Data is the trapped system call.
func (r *Request) Data() *notify.Data { return &r.notif.Data }

// Source is where the notification came from.
func (r *Request) Source() *Source { return r.src }

// Waited is the time from receive to dispatch.
func (r *Request) Waited() time.Duration {
	return max(0, time.Duration(r.dispatchedAt-r.receivedAt)) // the clock may jump back a little
}

// Alive reports whether the target still waits for the answer.
func (r *Request) Alive() bool { return r.src.l.IDValid(r.notif.ID) == nil }

// Return answers with the call's result.
func (r *Request) Return(val int64) error {
	return r.answer(&notify.Resp{ID: r.notif.ID, Val: val})
}

// Fail answers with an errno.
func (r *Request) Fail(errno syscall.Errno) error {
	resp := errnoResp(r.notif.ID, errno)
	return r.answer(&resp)
}

// Continue has the kernel run the call. Not a security decision: see the package's traps.
func (r *Request) Continue() error {
	return r.answer(&notify.Resp{ID: r.notif.ID, Flags: notify.RespContinue})
}

// AddFD installs a copy of our descriptor fd in the target, close-on-exec if
// asked, and returns its number there. The notification still waits for its answer.
func (r *Request) AddFD(fd int, cloexec bool) (int, error) {
	a := notify.AddFD{ID: r.notif.ID, SrcFD: uint32(fd)}
	if cloexec {
		a.NewFDFlags = unix.O_CLOEXEC
	}
	n, err := r.src.l.AddFD(&a)
	if notify.OutcomeOf(err) == notify.Stale {
		err = ErrGone
	}
	return n, err
}

// ReturnFD installs a copy of fd in the target and answers with its number, in
// two steps, which is safe on every kernel that has ADDFD.
func (r *Request) ReturnFD(fd int, cloexec bool) error {
	n, err := r.AddFD(fd, cloexec)
	if err != nil {
		return err
	}
	return r.Return(int64(n))
}

func errnoResp(id uint64, errno syscall.Errno) notify.Resp {
	if errno > 1<<30 {
		errno = 1 << 30 // refused by Check, as it should be, not wrapped around
	}
	return notify.Resp{ID: id, Error: -int32(errno)}
}

// answer sends resp unless there is an answer already.
func (r *Request) answer(resp *notify.Resp) error {
	if err := resp.Check(); err != nil {
		return err
	}
	if !r.state.CompareAndSwap(r.seq, r.seq-running+answering) {
		r.t.twice.Add(1)
		return ErrAnswered
	}
	start := now()
	err := r.src.l.Send(resp) // here, not in a function of its own: see notify.Listener.Recv
	err = r.sent(resp, err, start)
	r.state.Store(r.seq - running + answered)
	return err
}

// sent counts an answer by what SEND, begun at the given time, made of it.
func (r *Request) sent(resp *notify.Resp, err error, start int64) error {
	end := now()
	r.answeredFrom, r.endedAt = start, end
	r.t.answer.Record(end - start)
	r.t.service.Record(end - r.dispatchedAt)
	switch notify.OutcomeOf(err) {
	case notify.Done:
		if resp.Flags&notify.RespContinue != 0 {
			r.t.continued.Add(1)
		}
		if s := r.stats; s != nil {
			s.answered.Add(1)
			s.total.Record(end - r.receivedAt)
		}
		r.t.answered.Add(1)
	case notify.Stale:
		if s := r.stats; s != nil {
			s.stale.Add(1)
		}
		r.t.stale.Add(1)
		err = ErrGone
	default:
		r.t.failed.Add(1)
	}
	r.src.done()
	return err
}

// sendDefault answers for the handler. The caller has won the right to.
func (r *Request) sendDefault(errno syscall.Errno) {
	resp := errnoResp(r.notif.ID, errno)
	start := now()
	if r.sent(&resp, r.src.l.Send(&resp), start) == nil {
		r.t.defaulted.Add(1)
	}
}
