//go:build !fakekernel

package osthread

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// AllowInterrupt makes sig interrupt blocking system calls: they return EINTR
// instead of going on (siginterrupt(3)). The Go runtime installs its handlers
// with SA_RESTART, which restarts most calls in the kernel, so that no signal
// would ever be seen by who blocks there. Only that flag is changed; a signal
// that the program ignores or leaves to its default action is refused.
//
// The action is the whole process's. It is meant for a real-time signal that
// nothing else uses; a later signal.Ignore or signal.Reset of it undoes it, so
// callers repeat AllowInterrupt when an Interrupt has no effect.
func AllowInterrupt(sig syscall.Signal) error {
	const sigDfl, sigIgn = 0, 1
	act, e := getAction(sig)
	if e != 0 {
		return fmt.Errorf("%w: read action of signal %d: %w", ErrNoInterrupt, int(sig), e)
	}
	if act.handler == sigDfl || act.handler == sigIgn {
		return fmt.Errorf("%w: signal %d has no handler of the Go runtime", ErrNoInterrupt, int(sig))
	}
	if act.flags&saRestart == 0 {
		return nil
	}
	act.flags &^= saRestart
	if e := setAction(sig, act); e != 0 {
		return fmt.Errorf("%w: set action of signal %d: %w", ErrNoInterrupt, int(sig), e)
	}
	return nil
}

// Interrupt sends sig to the thread tid of this process (tgkill). One that
// comes just before the thread enters a system call is lost on it: send until
// the thread has acknowledged by other means.
func Interrupt(tid int, sig syscall.Signal) error { return unix.Tgkill(unix.Getpid(), tid, sig) }

// Unblock has the calling thread take sig, which the process may have been
// started with blocked. The caller must be locked to its thread.
func Unblock(sig syscall.Signal) {
	var set unix.Sigset_t
	set.Val[0] = 1 << (uint(sig) - 1) // one word holds all 64 signals
	_ = unix.PthreadSigmask(unix.SIG_UNBLOCK, &set, nil)
}
