package storm

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// What the calls point to. Package variables do not move.
var (
	path = [...]byte{'/', 'u', 'n', 'k', 'n', 'o', 't', '-', 's', 't', 'o', 'r', 'm', '/', 'n', 'o', '/', 's', 'u', 'c', 'h', '/', 'f', 'i', 'l', 'e', 0}
	buf  unix.Statx_t
	addr = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: 9 << 8, Addr: [4]byte{127, 0, 0, 1}} // the discard port
)

func pathAddr() uintptr { return uintptr(unsafe.Pointer(&path)) }
func bufAddr() uintptr  { return uintptr(unsafe.Pointer(&buf)) }
func sockAddr() uintptr { return uintptr(unsafe.Pointer(&addr)) }
