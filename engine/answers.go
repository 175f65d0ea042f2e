package engine

import (
	"errors"

	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// Answer answers with resp as it is; its ID is filled in. What must not be sent is
// refused with an error that wraps [notify.ErrBadResp], and leaves the call without an answer.
func (r Request) Answer(resp notify.Resp) error { return r.answer(resp) }

// AddFD installs a copy of our descriptor fd in the target, close-on-exec if
// asked, and returns its number there. The notification still waits for its answer: if the
// target is interrupted before, it keeps the descriptor and calls again. See [Request.SendFD].
func (r Request) AddFD(fd int, cloexec bool) (int, error) { return r.Install(addFD(fd, cloexec)) }

// ReturnFD installs a copy of fd in the target and answers with its number, in
// two steps, which every kernel that has ADDFD can do. If the target is interrupted between them
// it keeps a descriptor of which it does not know.
func (r Request) ReturnFD(fd int, cloexec bool) error {
	n, err := r.AddFD(fd, cloexec)
	if err != nil {
		return err
	}
	return r.Return(int64(n))
}

// SendFD installs a copy of fd in the target and answers with its number, in one step
// (SECCOMP_ADDFD_FLAG_SEND), so that an interrupted target has no descriptor that it does not
// know of. Before Linux 5.14 it is [Request.ReturnFD].
func (r Request) SendFD(fd int, cloexec bool) error {
	a := addFD(fd, cloexec)
	a.Flags = notify.AddFDSend
	_, err := r.Install(a)
	if err == errNoAddFDSend {
		return r.ReturnFD(fd, cloexec)
	}
	return err
}

func addFD(fd int, cloexec bool) notify.AddFD {
	a := notify.AddFD{SrcFD: uint32(fd)}
	if cloexec {
		a.NewFDFlags = unix.O_CLOEXEC
	}
	return a
}

// Install installs a descriptor in the target as a says (SECCOMP_IOCTL_NOTIF_ADDFD), and
// returns its number there; a.ID is filled in. With [notify.AddFDSetFD] it has the number a.NewFD,
// and what the target had there is closed. With [notify.AddFDSend] (Linux 5.14) the
// number is the answer, too; with both flags, both.
//
// If the kernel refuses (EMFILE: the target has too many, EBADF: a.SrcFD is none of ours, EPERM: a
// security module), nothing is installed or answered, and the call still waits for its answer.
// What it would refuse in any case is an error that wraps [notify.ErrBadAddFD].
func (r Request) Install(a notify.AddFD) (int, error) {
	if r.spent() {
		return -1, ErrSpent
	}
	if err := a.Check(); err != nil {
		return -1, err
	}
	if a.Flags&notify.AddFDSend != 0 {
		return r.installSend(a)
	}
	src, id, ok := r.target()
	if !ok {
		return -1, ErrSpent
	}
	if state := r.s.state.Load(); state != r.seq && state>>phaseBits == r.seq>>phaseBits {
		return -1, r.tooLate()
	}
	a.ID = id
	n, err := src.l.AddFD(&a)
	if notify.OutcomeOf(err) == notify.Stale {
		err = ErrGone
	}
	return n, err
}

// installSend installs and answers, or leaves the call as it was.
func (r Request) installSend(a notify.AddFD) (int, error) {
	s := r.s
	if !s.state.CompareAndSwap(r.seq, r.seq-running+answering) {
		return -1, r.tooLate()
	}
	a.ID = s.notif.ID
	start := now()
	n, err := s.src.l.AddFD(&a)
	switch o := notify.OutcomeOf(err); {
	case o == notify.Done, o == notify.Stale, errors.Is(err, unix.EINPROGRESS):
		resp := notify.Resp{ID: a.ID, Val: int64(n)}
		err = s.sent(&resp, err, start)
		s.state.Store(r.seq - running + after(err))
	default:
		s.state.Store(r.seq)
		if errors.Is(err, unix.EINVAL) { // Check has seen to all other reasons
			err = errNoAddFDSend
		}
	}
	if err != nil {
		n = -1
	}
	return n, err
}

// errNoAddFDSend is what Install with AddFDSend returns before Linux 5.14.
var errNoAddFDSend error = &notify.UnsupportedError{Feature: notify.FeatureAddFDSend.Name, Since: notify.FeatureAddFDSend.Since, Err: unix.EINVAL}
