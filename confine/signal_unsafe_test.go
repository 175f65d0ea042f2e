package confine

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigaction is struct kernel_sigaction of amd64 and, with a restorer that is
// not used, of arm64.
type sigaction struct {
	handler, flags, restorer, mask uintptr
}

// interruptible has a signal end system calls rather than restart them, as
// siginterrupt(3) does. The handler is the Go runtime's.
func interruptible(s syscall.Signal) error {
	var a sigaction
	if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), 0, uintptr(unsafe.Pointer(&a)), 8, 0, 0); e != 0 {
		return e
	}
	a.flags &^= 0x10000000 // SA_RESTART
	if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&a)), 0, 8, 0, 0); e != 0 {
		return e
	}
	return nil
}
