package osthread

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

func setName(p *byte) error {
	return unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(p)), 0, 0, 0)
}

func getcpu(cpu *uint32) bool {
	_, _, e := unix.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(cpu)), 0, 0)
	return e == 0
}
