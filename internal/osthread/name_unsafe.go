//go:build !fakekernel

package osthread

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

func setName(p *byte) error {
	return unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(p)), 0, 0, 0)
}
