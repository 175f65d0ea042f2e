//go:build !fakekernel

// Package futex puts threads to sleep on a word of this process's memory and wakes them: futex(2), private. It is for
// threads that are wired to their goroutine. x/sys has no such call, and packages that import nothing but the standard
// library need it. Targets of storms sleep on words that processes share, which package storm does for itself.
package futex

import (
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// From include/uapi/linux/futex.h.
const (
	waitPrivate = 0 | 128
	wakePrivate = 1 | 128
)

// Wait sleeps in the kernel while *word is old, for at most d, or as long as it takes if d is 0. It may also return
// for no reason: the caller looks again.
func Wait(word *atomic.Uint32, old uint32, d time.Duration) {
	var limit *syscall.Timespec
	if d != 0 {
		ts := syscall.NsecToTimespec(int64(d))
		limit = &ts
	}
	// Syscall, not RawSyscall: the sleep must not keep a processor of the Go
	// scheduler. The word is a field of a heap object that outlives the call.
	syscall.Syscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(word)), waitPrivate, uintptr(old), uintptr(unsafe.Pointer(limit)), 0, 0)
}

// Wake wakes one thread that sleeps on word. It does not block.
func Wake(word *atomic.Uint32) {
	syscall.RawSyscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(word)), wakePrivate, 1, 0, 0, 0)
}
