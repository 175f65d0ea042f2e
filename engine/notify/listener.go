package notify

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/unknot/unknot/internal/kernel"
	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

// ErrBadResp reports an answer that the kernel would refuse or, worse, pass on
// to a program that cannot understand it.
var ErrBadResp = errors.New("bad answer")

// ErrBadAddFD reports an [AddFD] that the kernel would refuse.
var ErrBadAddFD = errors.New("bad descriptor to add")

// ErrConfined says that the calling thread has confined itself (package confine) and would be killed for
// what it was asked to do: have another thread do it.
var ErrConfined = errors.New("this thread is confined and may not do that: another one must")

// A Listener is the descriptor on which the notifications of one filter arrive.
//
// Its methods may be called from any goroutine, except that there must be only
// one reader (Recv, RecvReady) and that Close must come after everything else.
// The errors of its ioctls are *[OpError] values.
type Listener struct {
	fd      atomic.Int32
	cookies [3]uintptr
	kernel  Carrier // nil: Linux
	journal *Journal
	release func() // of a carried one: it was closed
}

// NewListener takes ownership of fd, which must be a seccomp listener, marks it
// close-on-exec and returns it typed. On error fd stays the caller's.
func NewListener(fd int) (*Listener, error) {
	if err := CheckSizes(); err != nil {
		return nil, err
	}
	l := &Listener{}
	l.fd.Store(int32(fd))
	// An id that cannot be pending tells a listener (ENOENT) from any other
	// file (ENOTTY, EINVAL) and from a closed number (EBADF).
	var none uint64
	switch e := l.idValid(&none); e {
	case 0, unix.ENOENT, unix.EINTR:
	case unix.EPERM, unix.EACCES, unix.ENOSYS: // no file says so
		return nil, fmt.Errorf("use the seccomp listener: ioctl(2): %w", e)
	default:
		return nil, fmt.Errorf("descriptor %d is not a seccomp listener: %w", fd, e)
	}
	unix.CloseOnExec(fd)
	return l, nil
}

// SetCookies sets the three words that the listener's ioctls carry in their
// unused arguments. The kernel ignores them; a seccomp filter on the calling
// thread can demand them, so that code which does not know them cannot answer.
// Call it before the listener is shared.
func (l *Listener) SetCookies(c [3]uintptr) { l.cookies = c }

// FD returns the descriptor, -1 once closed. It remains the listener's.
func (l *Listener) FD() int { return int(l.fd.Load()) }

// IDValid reports (nil or ENOENT) whether the notification still waits for its
// answer (SECCOMP_IOCTL_NOTIF_ID_VALID). Check again after you looked at
// /proc/PID: the thread may have died and its number may be another's.
//
// Supervisors call it when they start on a request, which makes that moment
// visible to bench/trace.
func (l *Listener) IDValid(id uint64) error {
	for {
		if e := l.idValid(&id); e != unix.EINTR {
			if l.journal != nil && e == unix.ENOENT {
				l.journal.strike(id)
			}
			return opError(OpIDValid, e)
		}
	}
}

// AddFD installs a copy of our descriptor a.SrcFD in the target and returns its
// number there (SECCOMP_IOCTL_NOTIF_ADDFD). It waits for the target to take it.
// Without AddFDSend the call remains to be answered by Send: the safe way.
// With AddFDSend the number is also the answer, and signals to the calling thread
// wait meanwhile: kernels before the fix of an interrupted addfd answer the call
// without a descriptor and refuse the repetition with EINPROGRESS, and a handler
// installed with SA_RESTART, as Go's are, repeats it inside the kernel.
//
// On a confined thread that may not, it fails with [ErrConfined].
func (l *Listener) AddFD(a *AddFD) (int, error) {
	if osthread.Refuses(IoctlAddFD) {
		return -1, ErrConfined
	}
	if a.Flags&AddFDSend != 0 {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var old unix.Sigset_t
		if err := unix.PthreadSigmask(unix.SIG_SETMASK, &everySignal, &old); err != nil {
			return -1, fmt.Errorf("block signals: %w", err)
		}
		defer func() { _ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil) }() // it worked above
	}
	for {
		fd, e := l.addFD(a)
		if e == unix.EINTR && a.Flags&AddFDSend == 0 {
			continue
		}
		if e != 0 {
			fd = -1
		}
		if l.journal != nil && (e == 0 && a.Flags&AddFDSend != 0 || e == unix.ENOENT) {
			l.journal.strike(a.ID)
		}
		return fd, opError(OpAddFD, e)
	}
}

// everySignal is a full mask; SIGKILL and SIGSTOP ignore it.
var everySignal = func() (s unix.Sigset_t) {
	for i := range s.Val {
		s.Val[i]--
	}
	return s
}()

// SetFlags sets the listener's flags, [SyncWakeUp] or 0 (SECCOMP_IOCTL_NOTIF_SET_FLAGS). On a confined
// thread that may not, it fails with [ErrConfined].
func (l *Listener) SetFlags(flags uint64) error {
	if osthread.Refuses(IoctlSetFlags) {
		return ErrConfined
	}
	for {
		if e := l.setFlags(flags); e != unix.EINTR {
			return opError(OpSetFlags, e)
		}
	}
}

// Close closes the descriptor. If no other copy of it is open, every pending
// and later trapped call of the targets fails with ENOSYS; a copy in another
// process keeps them blocked. A second Close returns os.ErrClosed.
func (l *Listener) Close() error {
	if l.kernel != nil && l.release == nil {
		return nil // it has no descriptor
	}
	fd := l.fd.Swap(-1)
	if fd < 0 {
		return fmt.Errorf("close listener: %w", os.ErrClosed)
	}
	if l.release != nil {
		l.release()
		return nil
	}
	if l.journal != nil {
		_ = l.journal.Close()
	}
	if err := kernel.Close(int(fd)); err != nil {
		return fmt.Errorf("close listener: %w", err)
	}
	return nil
}

// maxErrno is the kernel's MAX_ERRNO: larger values are not errors.
const maxErrno = 4095

// Check reports whether r may be sent. The kernel does not range-check Error:
// its internal restart codes (512 to 517) would reach the program as errnos
// that nobody knows.
func (r *Resp) Check() error {
	if r.Error == 0 && r.Flags == 0 {
		return nil // inlined
	}
	return r.check()
}

func (r *Resp) check() error {
	switch {
	case r.Error < -maxErrno || r.Error > 0:
		return fmt.Errorf("%w: error %d is not in -%d..0", ErrBadResp, r.Error, maxErrno)
	case r.Error <= -512 && r.Error >= -517:
		return fmt.Errorf("%w: error %d is a kernel-internal restart code", ErrBadResp, r.Error)
	case r.Flags&^RespContinue != 0:
		return fmt.Errorf("%w: unknown flags %#x", ErrBadResp, r.Flags)
	case r.Flags&RespContinue != 0 && (r.Error != 0 || r.Val != 0):
		return fmt.Errorf("%w: continue takes no value and no error", ErrBadResp)
	}
	return nil
}

// Check reports whether a says something that the kernel would refuse.
func (a *AddFD) Check() error {
	switch {
	case int32(a.SrcFD) < 0:
		return fmt.Errorf("%w: descriptor %d is none of ours", ErrBadAddFD, int32(a.SrcFD))
	case a.Flags&^(AddFDSetFD|AddFDSend) != 0:
		return fmt.Errorf("%w: unknown flags %#x", ErrBadAddFD, a.Flags)
	case a.NewFD != 0 && a.Flags&AddFDSetFD == 0:
		return fmt.Errorf("%w: number %d in the target needs AddFDSetFD", ErrBadAddFD, a.NewFD)
	case int32(a.NewFD) < 0:
		return fmt.Errorf("%w: number %d in the target is negative", ErrBadAddFD, int32(a.NewFD))
	case a.NewFDFlags&^unix.O_CLOEXEC != 0:
		return fmt.Errorf("%w: flags %#x of the new descriptor: only O_CLOEXEC is one", ErrBadAddFD, a.NewFDFlags)
	}
	return nil
}

// CheckSizes compares the sizes of our structs with the kernel's
// (SECCOMP_GET_NOTIF_SIZES), once.
func CheckSizes() error { return checkSizes() }

var checkSizes = sync.OnceValue(func() error {
	s, e := getSizes()
	if e != 0 {
		return &UnsupportedError{Feature: "seccomp user notification", Since: "5.0", Err: callError(e)}
	}
	if s != (notifSizes{sizeofNotif, sizeofResp, sizeofData}) {
		return fmt.Errorf("this kernel's seccomp structs are %d, %d and %d bytes, not %d, %d and %d: update unknot",
			s.notif, s.resp, s.data, sizeofNotif, sizeofResp, sizeofData)
	}
	return nil
})
