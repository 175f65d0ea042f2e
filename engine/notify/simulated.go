package notify

import "golang.org/x/sys/unix"

// A Carrier stands between a [Listener] and the kernel: it does what the listener's ioctls do in another way, for instance by the
// messages of a process that has the listener itself. Its methods may be called from any goroutine, Recv by one at a time. An errno is 0 or what
// the ioctl would set; Recv returns EBADF when nothing will come any more.
type Carrier interface {
	Recv() (Notif, unix.Errno)
	Send(Resp) unix.Errno
	IDValid(id uint64) unix.Errno
	AddFD(AddFD) (int, unix.Errno)
	SetFlags(flags uint64) unix.Errno
}

// A Kernel stands in for Linux under a [Listener], in tests: it is a Carrier, and does what
// supervisors do to targets beside the ioctls.
//
// Package [github.com/unknot/unknot/engine/enginetest] has one.
type Kernel interface {
	Carrier

	// ReadMem and WriteMem are to the memory of a thread that made a call what process_vm_readv(2) and writing to
	// /proc/TID/mem are. They return how much was there; less than p has room for is EFAULT, and no such thread ESRCH.
	ReadMem(tid int, addr uint64, p []byte) (int, unix.Errno)
	WriteMem(tid int, addr uint64, p []byte) (int, unix.Errno)
}

// Carried returns a listener whose notifications c carries. FD is fd, a descriptor that is readable whenever Recv would not
// block; it remains c's, which gets told by release, once, that the listener was closed. The targets are real ones.
func Carried(fd int, c Carrier, release func()) *Listener {
	l := &Listener{kernel: c, release: release}
	l.fd.Store(int32(fd))
	return l
}

// Carried reports whether something else than Linux is under l: its FD takes no ioctl.
func (l *Listener) Carried() bool { return l.kernel != nil }

// Simulated returns a listener whose kernel is k. It has no descriptor: FD is -1.
func Simulated(k Kernel) *Listener {
	l := &Listener{kernel: k}
	l.fd.Store(-1)
	return l
}

// Kernel is what stands in for Linux under l; nil for a real listener. Whoever looks at a target by other means than
// l's methods asks this first.
func (l *Listener) Kernel() Kernel {
	if l.kernel == nil {
		return nil
	}
	k, _ := l.kernel.(Kernel)
	return k
}

// recvSimulated gives n a copy, so that it need not be on the heap for a real listener's sake.
func (l *Listener) recvSimulated(n *Notif) error {
	got, e := l.kernel.Recv()
	*n = got
	return opError(OpRecv, e)
}

// sendCarried repeats what was interrupted, as Send does.
func (l *Listener) sendCarried(r Resp) error {
	for {
		if e := l.kernel.Send(r); e != unix.EINTR {
			return opError(OpSend, e)
		}
	}
}
