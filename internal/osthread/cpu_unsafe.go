//go:build !fakekernel

package osthread

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// CPU is where the calling thread runs, or -1 if the kernel does not say (getcpu(2)).
func CPU() int {
	var cpu uint32
	if _, _, e := unix.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&cpu)), 0, 0); e != 0 {
		return -1
	}
	return int(cpu)
}
