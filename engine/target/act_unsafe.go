package target

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// setGroups is setgroups(2) of the calling thread alone; package syscall's is of all threads.
func setGroups(groups []int) error {
	ids := make([]uint32, len(groups)+1) // never empty
	for i, g := range groups {
		ids[i] = uint32(g)
	}
	_, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&ids[0])), 0)
	runtime.KeepAlive(ids)
	return errno(e)
}
