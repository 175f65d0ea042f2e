package notify

import "golang.org/x/sys/unix"

// A Kernel stands in for Linux under a [Listener], in tests: it does what the listener's ioctls do, and what
// supervisors do to targets beside them. Its methods may be called from any goroutine. An errno is 0 or what
// the ioctl would set.
//
// Package [github.com/unknot/unknot/engine/enginetest] has one.
type Kernel interface {
	Recv() (Notif, unix.Errno)
	Send(Resp) unix.Errno
	IDValid(id uint64) unix.Errno
	AddFD(AddFD) (int, unix.Errno)
	SetFlags(flags uint64) unix.Errno

	// ReadMem and WriteMem are to the memory of a thread that made a call what process_vm_readv(2) and writing to
	// /proc/TID/mem are. They return how much was there; less than p has room for is EFAULT, and no such thread ESRCH.
	ReadMem(tid int, addr uint64, p []byte) (int, unix.Errno)
	WriteMem(tid int, addr uint64, p []byte) (int, unix.Errno)
}

// Simulated returns a listener whose kernel is k. It has no descriptor: FD is -1.
func Simulated(k Kernel) *Listener {
	l := &Listener{kernel: k}
	l.fd.Store(-1)
	return l
}

// Kernel is what stands in for Linux under l; nil for a real listener. Whoever looks at a target by other means than
// l's methods asks this first.
func (l *Listener) Kernel() Kernel { return l.kernel }

// recvSimulated gives n a copy, so that it need not be on the heap for a real listener's sake.
func (l *Listener) recvSimulated(n *Notif) error {
	got, e := l.kernel.Recv()
	*n = got
	return opError(OpRecv, e)
}
