//go:build linux && amd64 && !race && !ringatomic && !ringmodel

package ring

import (
	"fmt"
	"sync"
	"syscall"
	"unsafe"
)

// Asymmetric fences (folly's AsymmetricThreadFence, C++ paper P1202): of two
// threads that each store and then look at what the other stores, both need a
// fence in between, unless one of them has the kernel put a fence into
// the other as well.
//
// sync/atomic has no store that is weaker than sequentially consistent, on
// amd64 an exchange that waits until the processor's store buffer has drained; a
// plain store there has release semantics. The compiler keeps it in its place: it
// moves no store across another or across an atomic operation. Where a sync.Mutex is
// released after the store no other fence is needed: on amd64 that is an atomic addition.

// storeRelease stores x after everything that was stored before.
func storeRelease(w *atomicUint64, x uint64) { *(*uint64)(unsafe.Pointer(w)) = x }

// From include/uapi/linux/membarrier.h and arch/x86/entry/syscalls/syscall_64.tbl.
const (
	sysMembarrier                      = 324
	membarrierPrivateExpedited         = 1 << 3
	membarrierRegisterPrivateExpedited = 1 << 4
)

// haveHeavyFence reports whether the kernel has what heavyFence needs (4.14),
// and makes it ready.
var haveHeavyFence = sync.OnceValue(func() bool {
	_, _, errno := syscall.RawSyscall(sysMembarrier, membarrierRegisterPrivateExpedited, 0, 0)
	return errno == 0
})

// heavyFence is a full fence in every thread of the process.
func heavyFence() {
	if _, _, errno := syscall.RawSyscall(sysMembarrier, membarrierPrivateExpedited, 0, 0); errno != 0 {
		panic(fmt.Sprintf("ring: membarrier: %v: it worked when the ring was made; do not forbid it, or make the ring without AsymmetricFence", errno))
	}
}
