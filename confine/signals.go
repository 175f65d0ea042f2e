package confine

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// sigSetxid is the C library's signal for set*id calls and Go's for
// AllThreadsSyscall. It stays open in all modes: such a call on a confined
// thread then kills the process at once, where a blocked signal would hang it.
const sigSetxid = syscall.Signal(33)

// blocked is the signal mask of a confined thread, bit n-1 for signal n.
func (m SignalMode) blocked(extra syscall.Signal) uint64 {
	bit := func(s syscall.Signal) uint64 { return 1 << (s - 1) }
	if m == Open {
		return 0
	}
	open := bit(unix.SIGKILL) | bit(unix.SIGSTOP) | bit(sigSetxid)
	for _, s := range []syscall.Signal{unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGSYS} {
		open |= bit(s)
	}
	if m == Masked {
		open |= bit(unix.SIGURG) | bit(unix.SIGPROF)
	}
	if extra != 0 {
		open |= bit(extra)
	}
	return ^open
}

func setMask(blocked uint64) error {
	var set unix.Sigset_t
	set.Val[0] = blocked // both architectures have 64-bit words
	return unix.PthreadSigmask(unix.SIG_SETMASK, &set, nil)
}
