package notify

import (
	"unsafe"

	"github.com/unknot/unknot/internal/kernel"
	"golang.org/x/sys/unix"
)

// The structs must be what the kernel copies.
var (
	_ [sizeofNotif]byte = [unsafe.Sizeof(Notif{})]byte{}
	_ [sizeofResp]byte  = [unsafe.Sizeof(Resp{})]byte{}
	_ [sizeofData]byte  = [unsafe.Sizeof(Data{})]byte{}
	_ [24]byte          = [unsafe.Sizeof(AddFD{})]byte{}
)

// Recv, RecvReady and Send call the seam themselves, which is inlined: functions in between would cost what
// docs/decisions/24-fake-kernel.md says.

// Recv waits for the next notification and stores it in n
// (SECCOMP_IOCTL_NOTIF_RECV). It blocks while nothing is pending; EINTR is
// returned so that a signal can end the wait.
func (l *Listener) Recv(n *Notif) error {
	if l.kernel != nil {
		return l.recvSimulated(n)
	}
	*n = Notif{} // the kernel answers EINVAL to a buffer that is not zero
	_, e := kernel.Ioctl(uintptr(l.fd.Load()), IoctlRecv, unsafe.Pointer(n), l.cookies[0], l.cookies[1], l.cookies[2])
	if l.journal != nil && e == 0 {
		l.journal.put(n)
	}
	return opError(OpRecv, e)
}

// RecvReady is Recv for a listener that is known to be readable: it does not
// tell the Go scheduler that it may block. If it does block, it holds up the
// garbage collector.
func (l *Listener) RecvReady(n *Notif) error {
	if l.kernel != nil {
		return l.recvSimulated(n)
	}
	*n = Notif{}
	_, e := kernel.IoctlNow(uintptr(l.fd.Load()), IoctlRecv, unsafe.Pointer(n), l.cookies[0], l.cookies[1], l.cookies[2])
	if l.journal != nil && e == 0 {
		l.journal.put(n)
	}
	return opError(OpRecv, e)
}

// Send answers a notification (SECCOMP_IOCTL_NOTIF_SEND); r.ID names it. It
// returns an error that wraps [ErrBadResp] without asking the kernel for an
// answer that must not be sent, and repeats the call while it is interrupted.
func (l *Listener) Send(r *Resp) error {
	if err := r.Check(); err != nil {
		return err
	}
	if l.kernel != nil {
		return l.sendCarried(*r)
	}
	for {
		_, e := kernel.IoctlNow(uintptr(l.fd.Load()), IoctlSend, unsafe.Pointer(r), l.cookies[0], l.cookies[1], l.cookies[2])
		if e != unix.EINTR {
			if l.journal != nil && (e == 0 || e == unix.ENOENT || e == unix.EINPROGRESS) {
				l.journal.strike(r.ID)
			}
			return opError(OpSend, e)
		}
	}
}

func (l *Listener) idValid(id *uint64) unix.Errno {
	if l.kernel != nil {
		return l.kernel.IDValid(*id)
	}
	_, e := kernel.IoctlNow(uintptr(l.fd.Load()), IoctlIDValid, unsafe.Pointer(id), l.cookies[0], l.cookies[1], l.cookies[2])
	return e
}

func (l *Listener) addFD(a *AddFD) (int, unix.Errno) {
	if l.kernel != nil {
		return l.kernel.AddFD(*a)
	}
	r, e := kernel.Ioctl(uintptr(l.fd.Load()), IoctlAddFD, unsafe.Pointer(a), l.cookies[0], l.cookies[1], l.cookies[2])
	return int(r), e
}

// setFlags passes its argument by value; a pointer would be EINVAL.
func (l *Listener) setFlags(flags uint64) unix.Errno {
	if l.kernel != nil {
		return l.kernel.SetFlags(flags)
	}
	return kernel.IoctlValue(uintptr(l.fd.Load()), IoctlSetFlags, uintptr(flags), l.cookies[0], l.cookies[1], l.cookies[2])
}

// notifSizes is struct seccomp_notif_sizes.
type notifSizes struct{ notif, resp, data uint16 }

func getSizes() (s notifSizes, e unix.Errno) {
	_, _, e = unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_NOTIF_SIZES, 0, uintptr(unsafe.Pointer(&s)))
	return s, e
}

func actionAvail(action uint32) unix.Errno {
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	return e
}

// setModeFilter is seccomp(SECCOMP_SET_MODE_FILTER). A nil program probes the
// flags: the kernel checks them first, so EFAULT means that it knows them.
func setModeFilter(flags InstallFlags, prog []unix.SockFilter) (int, unix.Errno) {
	var p *unix.SockFprog
	if prog != nil {
		p = &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	}
	// Raw: no other goroutine may run on this thread between the call and its
	// return, and the call does not sleep.
	r, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(p)))
	return int(r), e
}
