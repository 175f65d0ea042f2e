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

// pulse is how long a thread sleeps at most before it looks again. Go 1.26 needs that:
// a thread that enters a system call just as the world is being stopped can keep its
// processor of the scheduler, and then nothing runs until the call ends or a timer is
// due, for up to a minute (reentersyscall looks at sched.gcwaiting before it
// becomes _Gsyscall, and sysmon sleeps meanwhile).
var pulse = syscall.NsecToTimespec(1e9)

// sysFutexWait sleeps in the kernel while *word is old, for at most pulse. It may also
// return for no reason; the caller looks again.
func sysFutexWait(word *atomic.Uint32, old uint32) {
	// Syscall, not RawSyscall: the sleep must not keep a processor of the Go
	// scheduler. The word is a field of a heap object that outlives the call.
	syscall.Syscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWaitPrivate, uintptr(old), uintptr(unsafe.Pointer(&pulse)), 0, 0)
}

// sysFutexWake wakes one thread that sleeps on word. It does not block.
func sysFutexWake(word *atomic.Uint32) {
	syscall.RawSyscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWakePrivate, 1, 0, 0, 0)
}
