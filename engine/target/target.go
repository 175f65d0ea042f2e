package target

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

var (
	// ErrGone says that the target died, or was interrupted and will notify again, or has its answer.
	// Nothing of what was read is true then. It is engine.ErrGone.
	ErrGone = errors.New("target gone")
	// ErrConfined says that the calling thread has confined itself and may not do that.
	ErrConfined = notify.ErrConfined
)

// A Target is the thread that made a trapped call, for as long as the call waits for its answer; later its
// methods fail with [ErrGone]. It is a value that may be copied, and its methods called from any goroutine. The
// zero Target is gone.
type Target struct {
	l    *notify.Listener
	id   uint64
	tid  int
	nr   int32
	arch uint32
}

// New returns the target of a notification that l received and that has no answer yet.
func New(l *notify.Listener, n *notify.Notif) Target {
	return Target{l: l, id: n.ID, tid: int(n.PID), nr: n.Data.NR, arch: n.Data.Arch}
}

// TID is the thread's id in our pid namespace; 0 if it is not visible there.
func (t Target) TID() int { return t.tid }

// An Error says what could not be done with a target.
type Error struct {
	Op    string // what was to be done: "read memory"
	TID   int
	Where string // an address, a path, a descriptor; "" if Op says it all
	// Ours says that the target's arguments are not at fault: the supervisor lacks a right, a feature or
	// a descriptor. The target should not be told of Err then.
	Ours  bool
	Needs string // what would help; "" if nothing is known
	Err   error  // wraps a syscall.Errno, nearly always
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "target: %s of thread %d", e.Op, e.TID)
	if e.Where != "" {
		fmt.Fprintf(&b, ", %s", e.Where)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	if e.Needs != "" {
		fmt.Fprintf(&b, " (%s)", e.Needs)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// Errno is what to answer the target with after err: the errno that the kernel would have given it for its
// arguments (EFAULT, ENAMETOOLONG, and what OpenAt met), or ours if they are not at fault.
func Errno(err error, ours syscall.Errno) syscall.Errno {
	var e *Error
	var errno syscall.Errno
	if errors.As(err, &e) && !e.Ours && errors.As(e.Err, &errno) {
		return errno
	}
	return ours
}

// check reports whether anything may be done here and with t at all.
func (t Target) check(op string) error {
	switch {
	case osthread.Confined():
		return ErrConfined
	case t.l == nil:
		return ErrGone
	case t.tid <= 0:
		return &Error{Op: op, TID: t.tid, Ours: true, Err: unix.ESRCH,
			Needs: "the target is in a pid namespace that this process does not see: run the supervisor in it or in one above it"}
	}
	return nil
}

// alive reports, by nil or ErrGone, whether the notification still waits. It is asked after the look.
func (t Target) alive() error {
	if t.l.IDValid(t.id) != nil {
		return ErrGone
	}
	return nil
}

// fail is the error of a failed look: ErrGone if that is why.
func (t Target) fail(op, where string, err error) error {
	if gone := t.alive(); gone != nil {
		return gone
	}
	return t.ours(op, where, err)
}

// ours is an error for which the target's arguments are not to blame.
func (t Target) ours(op, where string, err error) error {
	return &Error{Op: op, TID: t.tid, Where: where, Ours: true, Err: err, Needs: needs(err)}
}

// needs is what a look that failed with err lacks.
func needs(err error) string {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		s := "needs ptrace access: the same user and a target that may be dumped (PR_SET_DUMPABLE), or CAP_SYS_PTRACE in the target's user namespace"
		if b, e := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope"); e == nil {
			switch scope := strings.TrimSpace(string(b)); scope {
			case "0":
			case "1":
				s += "; kernel.yama.ptrace_scope is 1: also an ancestor of the target, or PR_SET_PTRACER by it"
			default:
				s += "; kernel.yama.ptrace_scope is " + scope + ": CAP_SYS_PTRACE in any case, and with 3 nothing helps"
			}
		}
		return s
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return "the supervisor has too many open files: raise RLIMIT_NOFILE, or have fewer handlers at once"
	}
	return ""
}
