package enginetest

import (
	"os"

	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// kernel is Linux's side of a process's listener.
type kernel process

// waiting is the call whose notification waits. The caller holds Engine.mu.
func (k *kernel) waiting(id uint64) *Call {
	for _, t := range k.threads {
		if c := t.call; c != nil && c.id == id {
			return c
		}
	}
	return nil
}

// before runs what a test wants done before an operation on a call. It returns with Engine.mu held.
func (k *kernel) before(op Op, t func() *Target) {
	k.e.mu.Lock()
	if t := t(); t != nil && len(t.before[op]) > 0 {
		f := t.before[op][0]
		t.before[op] = t.before[op][1:]
		k.e.mu.Unlock()
		f()
		k.e.mu.Lock()
	}
}

// call is the call of an id, after what a test wants done before the operation; nil if it does not wait.
// It returns with Engine.mu held.
func (k *kernel) call(op Op, id uint64) *Call {
	k.before(op, func() *Target {
		if c := k.waiting(id); c != nil {
			return c.target
		}
		return nil
	})
	return k.waiting(id)
}

func (k *kernel) Recv() (notify.Notif, unix.Errno) { return notify.Notif{}, unix.ENOENT }

func (k *kernel) SetFlags(uint64) unix.Errno { return 0 }

func (k *kernel) IDValid(id uint64) unix.Errno {
	defer k.e.mu.Unlock()
	if k.call(OpAlive, id) == nil {
		return unix.ENOENT
	}
	return 0
}

func (k *kernel) Send(r notify.Resp) unix.Errno {
	defer k.e.mu.Unlock()
	c := k.call(OpSend, r.ID)
	if c == nil {
		return unix.ENOENT
	}
	switch {
	case r.Flags&notify.RespContinue != 0:
		c.result.Continued = true
	case r.Error != 0:
		c.result.Errno = unix.Errno(-r.Error)
	default:
		c.result.Val = r.Val
	}
	c.end()
	return 0
}

func (k *kernel) AddFD(a notify.AddFD) (int, unix.Errno) {
	defer k.e.mu.Unlock()
	c := k.call(OpAddFD, a.ID)
	if c == nil {
		return -1, unix.ENOENT
	}
	dup, err := unix.FcntlInt(uintptr(a.SrcFD), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, unix.EBADF
	}
	n := int(a.NewFD)
	if a.Flags&notify.AddFDSetFD == 0 {
		for n = 3; k.fds[n].File != nil; n++ { // 0 to 2 are its own
		}
	} else if old := k.fds[n].File; old != nil {
		_ = old.Close()
	}
	k.fds[n] = FD{os.NewFile(uintptr(dup), "descriptor of a target"), a.NewFDFlags&unix.O_CLOEXEC != 0}
	c.result.Added = append(c.result.Added, n)
	if a.Flags&notify.AddFDSend != 0 {
		c.result.Val = int64(n)
		c.end()
	}
	return n, 0
}

func (k *kernel) ReadMem(tid int, addr uint64, p []byte) (int, unix.Errno) {
	return k.access(OpRead, tid, addr, len(p), func(at int, b []byte) { copy(p[at:], b) })
}

func (k *kernel) WriteMem(tid int, addr uint64, p []byte) (int, unix.Errno) {
	return k.access(OpWrite, tid, addr, len(p), func(at int, b []byte) { copy(b, p[at:]) })
}

func (k *kernel) access(op Op, tid int, addr uint64, n int, f func(at int, b []byte)) (int, unix.Errno) {
	defer k.e.mu.Unlock()
	k.before(op, func() *Target { return k.threads[tid] })
	if k.dead || k.threads[tid] == nil {
		return 0, unix.ESRCH
	}
	if op == OpWrite { // all or nothing, as a supervisor should write
		if (*process)(k).access(addr, n, func(int, []byte) {}, true) < n {
			return 0, unix.EFAULT
		}
	}
	if done := (*process)(k).access(addr, n, f, op == OpWrite); done < n {
		return done, unix.EFAULT
	}
	return n, 0
}
