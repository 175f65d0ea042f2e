package notify

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// An Op is one of a listener's ioctls.
type Op uint8

const (
	OpRecv Op = iota
	OpSend
	OpIDValid
	OpAddFD
	OpSetFlags
	ops
)

var opNames = [ops]string{"receive notification", "answer notification", "check notification id", "add descriptor to target", "set listener flags"}

func (o Op) String() string { return opNames[o] }

// An Outcome is what the errno of an ioctl means for whoever made it.
type Outcome uint8

const (
	// Bug: we passed something wrong. Unlisted errnos are bugs too.
	Bug Outcome = iota
	// Done: it worked.
	Done
	// Retry: our thread was signalled and nothing was done. Call again.
	Retry
	// Stale: the target died, or was interrupted and will notify again under a
	// new id. Forget this notification.
	Stale
	// Over: the descriptor is not a listener any more: we closed it too early.
	Over
	// Refused: it can't be done for this target or on this kernel, and the
	// notification still waits for its answer.
	Refused
)

func (o Outcome) String() string {
	return [...]string{"bug", "done", "retry", "stale", "over", "refused"}[o]
}

// outcomes is the one table of what errnos mean, read off kernel/seccomp.c. An
// errno that is not listed is a Bug.
var outcomes = [ops]map[unix.Errno]Outcome{
	OpRecv: {
		0:           Done,
		unix.EINTR:  Retry, // wait_event_interruptible or the list lock
		unix.ENOENT: Stale, // gone before it was received; since 6.11 also: no target left
		unix.EBADF:  Over,
		unix.EINVAL: Bug, // the buffer was not zero
		unix.EFAULT: Bug,
	},
	OpSend: {
		0:                Done,
		unix.EINTR:       Retry, // the list lock was contended: nothing was sent
		unix.ENOENT:      Stale,
		unix.EINPROGRESS: Bug, // answered already, or never received
		unix.EINVAL:      Bug, // unknown flag, or CONTINUE with a value
		unix.EBADF:       Over,
		unix.EFAULT:      Bug,
	},
	OpIDValid: {
		0:           Done,
		unix.EINTR:  Retry,
		unix.ENOENT: Stale,
		unix.EBADF:  Over,
		unix.EFAULT: Bug,
	},
	OpAddFD: {
		0:                Done,
		unix.EINTR:       Retry,
		unix.ENOENT:      Stale,
		unix.EINPROGRESS: Bug,     // answered already
		unix.EBADF:       Refused, // our source descriptor, or the listener
		unix.EBUSY:       Refused, // another AddFDSend is under way
		unix.EMFILE:      Refused, // the target's RLIMIT_NOFILE
		unix.ENOMEM:      Refused,
		unix.EPERM:       Refused, // an LSM of the target
		unix.EACCES:      Refused,
		unix.EINVAL:      Bug, // unknown flag, or NewFD without AddFDSetFD
		unix.EFAULT:      Bug,
	},
	OpSetFlags: {
		0:           Done,
		unix.EINTR:  Retry,
		unix.EINVAL: Refused, // a kernel without the flag, or without the ioctl
		unix.ENOTTY: Refused,
		unix.EBADF:  Over,
	},
}

// Classify says what errno e of ioctl op means; e is 0 for success.
func Classify(op Op, e unix.Errno) Outcome {
	return outcomes[op][e]
}

// An OpError is the failure of one ioctl. It is comparable, so that returning
// it allocates nothing: each (op, errno) has one value.
type OpError struct {
	Op  Op
	Err unix.Errno
}

func (e *OpError) Error() string { return fmt.Sprintf("%v: %v", e.Op, e.Err) }

// Unwrap returns the errno, so errors.Is(err, unix.ENOENT) works.
func (e *OpError) Unwrap() error { return e.Err }

// Outcome is Classify of the error.
func (e *OpError) Outcome() Outcome { return Classify(e.Op, e.Err) }

// opErrors holds an error value for every small errno, so that the paths that
// meet ENOENT all the time allocate nothing.
var opErrors = func() (t [ops][134]OpError) {
	for op := range ops {
		for e := range t[op] {
			t[op][e] = OpError{op, unix.Errno(e)}
		}
	}
	return t
}()

func opError(op Op, e unix.Errno) error {
	if e == 0 {
		return nil
	}
	if int(e) < len(opErrors[op]) {
		return &opErrors[op][e]
	}
	return &OpError{op, e}
}

// OutcomeOf returns the outcome of an error that a [Listener] method returned;
// Done for nil, Bug for errors of other origin.
func OutcomeOf(err error) Outcome {
	switch e := err.(type) {
	case nil:
		return Done
	case *OpError:
		return e.Outcome()
	}
	return Bug
}
