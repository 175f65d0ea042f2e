//go:build !fakekernel

package osthread

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigaction is struct kernel_sigaction (include/linux/signal_types.h) of amd64
// and arm64; its mask is 64 bits on both.
type sigaction struct {
	handler  uintptr
	flags    uintptr
	restorer uintptr
	mask     uint64
}

const saRestart = 0x10000000 // include/uapi/asm-generic/signal-defs.h

func getAction(sig syscall.Signal) (a sigaction, e unix.Errno) {
	_, _, e = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), 0, uintptr(unsafe.Pointer(&a)), unsafe.Sizeof(a.mask), 0, 0)
	return a, e
}

func setAction(sig syscall.Signal, a sigaction) unix.Errno {
	_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&a)), 0, unsafe.Sizeof(a.mask), 0, 0)
	return e
}
