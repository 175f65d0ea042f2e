package rules

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// raw makes a system call; strings are passed as the kernel takes them, other bytes as they are.
func raw(nr uintptr, args ...any) (uintptr, unix.Errno) {
	var a [6]uintptr
	var pins runtime.Pinner
	defer pins.Unpin()
	for i, arg := range args {
		switch arg := arg.(type) {
		case int:
			a[i] = uintptr(arg)
		case string:
			b := append([]byte(arg), 0)
			pins.Pin(&b[0])
			a[i] = uintptr(unsafe.Pointer(&b[0]))
		case []byte:
			pins.Pin(&arg[0])
			a[i] = uintptr(unsafe.Pointer(&arg[0]))
		}
	}
	v, _, errno := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	return v, errno
}
