package storm

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapShared maps the storm's shared memory; its parent sizes it first.
func mapShared(fd, targets int, create bool) ([]byte, *shared, error) {
	size := int(unsafe.Sizeof(header{})) + targets*int(unsafe.Sizeof(thread{}))
	if create {
		if err := unix.Ftruncate(fd, int64(size)); err != nil {
			return nil, nil, fmt.Errorf("shared memory of %d bytes: %w", size, err)
		}
	}
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, fmt.Errorf("map shared memory: %w", err)
	}
	first := unsafe.Add(unsafe.Pointer(&mem[0]), unsafe.Sizeof(header{}))
	return mem, &shared{head: (*header)(unsafe.Pointer(&mem[0])), threads: unsafe.Slice((*thread)(first), targets)}, nil
}

func unmap(mem []byte) { _ = unix.Munmap(mem) }
