package enginetest

import (
	"os"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/notify/notifytest"
	"golang.org/x/sys/unix"
)

// kernel is Linux's side of a process's listener.
type kernel process

// waiting is the target whose notification waits.
func (k *kernel) waiting(id uint64) *Target {
	k.e.mu.Lock()
	defer k.e.mu.Unlock()
	for _, t := range k.threads {
		if is, waits := t.th.Waiting(); waits && is == id {
			return t
		}
	}
	return nil
}

// before runs what a test wants done before an operation on the call of t, if not nil.
func (k *kernel) before(op Op, t *Target) {
	if t == nil {
		return
	}
	k.e.mu.Lock()
	var f func()
	if len(t.before[op]) > 0 {
		f = t.before[op][0]
		t.before[op] = t.before[op][1:]
	}
	k.e.mu.Unlock()
	if f != nil {
		f()
	}
}

// Recv is package notifytest's: receive receives.
func (k *kernel) Recv() (notify.Notif, unix.Errno) { return notify.Notif{}, unix.ENOENT }

func (k *kernel) SetFlags(flags uint64) unix.Errno { return k.filter.SetFlags(flags) }

func (k *kernel) IDValid(id uint64) unix.Errno {
	k.before(OpAlive, k.waiting(id))
	return k.filter.IDValid(id)
}

func (k *kernel) Send(r notify.Resp) unix.Errno {
	k.before(OpSend, k.waiting(r.ID))
	return k.took(k.filter.Send(r))
}

func (k *kernel) AddFD(a notify.AddFD) (int, unix.Errno) {
	k.before(OpAddFD, k.waiting(a.ID))
	n, errno := k.filter.AddFD(a)
	if a.Flags&notify.AddFDSend != 0 {
		k.took(errno)
	}
	return n, errno
}

// took counts an answer.
func (k *kernel) took(errno unix.Errno) unix.Errno {
	if errno == 0 {
		k.answers.Add(1)
	}
	return errno
}

// take installs a copy of one of the test's descriptors.
func (p *process) take(th *notifytest.Thread, a notify.AddFD) (int, unix.Errno) {
	dup, err := unix.FcntlInt(uintptr(a.SrcFD), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, unix.EBADF
	}
	p.fdMu.Lock()
	defer p.fdMu.Unlock()
	n := int(a.NewFD)
	if a.Flags&notify.AddFDSetFD == 0 {
		for n = 3; p.fds[n].File != nil; n++ { // 0 to 2 are its own
		}
	} else if old := p.fds[n].File; old != nil {
		_ = old.Close()
	}
	p.fds[n] = FD{os.NewFile(uintptr(dup), "descriptor of a target"), a.NewFDFlags&unix.O_CLOEXEC != 0}
	for _, t := range p.threads {
		if t.th == th {
			t.added = append(t.added, n)
		}
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
	k.e.mu.Lock()
	t := k.threads[tid]
	k.e.mu.Unlock()
	k.before(op, t)
	k.e.mu.Lock()
	defer k.e.mu.Unlock()
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
