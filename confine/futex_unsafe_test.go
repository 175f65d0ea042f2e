package confine

import (
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A muslLock is a lock as musl has it for its list of threads: a futex, not a private one.
type muslLock struct{ held, waits atomic.Uint32 }

// wait waits until somebody has given the lock up.
func (l *muslLock) wait() error {
	l.held.Store(1)
	l.waits.Store(1)
	for l.held.Load() != 0 {
		if e := l.futex(futexWait, 1); e != 0 && e != unix.EAGAIN && e != unix.EINTR {
			return fmt.Errorf("futex wait: %w", e)
		}
	}
	return nil
}

// wake gives the lock up once somebody waits.
func (l *muslLock) wake() error {
	for l.waits.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(10 * time.Millisecond) // for the wait to begin
	l.held.Store(0)
	if e := l.futex(1, 1); e != 0 { // FUTEX_WAKE, not private
		return fmt.Errorf("futex wake: %w", e)
	}
	return nil
}

func (l *muslLock) futex(op, val uintptr) unix.Errno {
	_, _, e := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&l.held)), op, val, 0, 0, 0)
	return e
}
