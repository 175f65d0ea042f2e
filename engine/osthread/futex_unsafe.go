//go:build !fakekernel

package osthread

import (
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// From include/uapi/linux/futex.h. Package ring has the same for itself, since it
// imports nothing but the standard library.
const (
	futexWaitPrivate = 0 | 128
	futexWakePrivate = 1 | 128
)

// FutexWait sleeps in the kernel while *word is old, for at most d (futex(2),
// FUTEX_WAIT). It may also return for no reason: the caller looks again.
func FutexWait(word *atomic.Uint32, old uint32, d time.Duration) {
	ts := syscall.NsecToTimespec(int64(d))
	// Syscall, not RawSyscall: the sleep must not keep a processor of the Go scheduler.
	syscall.Syscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWaitPrivate, uintptr(old), uintptr(unsafe.Pointer(&ts)), 0, 0)
}

// FutexWake wakes one thread of this process that sleeps on word.
func FutexWake(word *atomic.Uint32) {
	syscall.RawSyscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWakePrivate, 1, 0, 0, 0)
}
