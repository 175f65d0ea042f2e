package target

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// procmapQuery is struct procmap_query (linux/fs.h, Linux 6.11).
type procmapQuery struct {
	size, flags, addr                         uint64 // in
	start, end, is, pageSize, offset, inode   uint64 // out
	devMajor, devMinor, nameSize, buildIDSize uint32
	nameAddr, buildIDAddr                     uint64
}

// queryIoctl is PROCMAP_QUERY, which holds the struct's size.
const queryIoctl = 0xc0686611

var _ [0x68]byte = [unsafe.Sizeof(procmapQuery{})]byte{}

// queryMapping returns the end of the mapping at addr and what it may be used for.
func queryMapping(fd int, addr uint64) (end uint64, is access, err error) {
	q := procmapQuery{addr: addr}
	q.size = uint64(unsafe.Sizeof(q))
	for {
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), queryIoctl, uintptr(unsafe.Pointer(&q)))
		switch e {
		case 0:
			return q.end, access(q.is), nil
		case unix.EINTR:
			continue
		}
		return 0, 0, e
	}
}
