//go:build !fakekernel

package ring

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

// From include/uapi/linux/futex.h.
const (
	futexWaitPrivate = 0 | 128
	futexWakePrivate = 1 | 128
)

// sysFutexWait sleeps in the kernel while *word is old. It may also return for no reason; the
// caller looks again.
func sysFutexWait(word *atomic.Uint32, old uint32) {
	pulse.begin()
	// Syscall, not RawSyscall: the sleep must not keep a processor of the Go
	// scheduler. The word is a field of a heap object that outlives the call.
	syscall.Syscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWaitPrivate, uintptr(old), 0, 0, 0)
	pulse.end()
}

// sysFutexWake wakes one thread that sleeps on word. It does not block.
func sysFutexWake(word *atomic.Uint32) {
	syscall.RawSyscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWakePrivate, 1, 0, 0, 0)
}
