package storm

import (
	"fmt"
	"math"
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
	flags := unix.MAP_SHARED
	if !create {
		flags |= unix.MAP_POPULATE // threads shall not fault while they are measured
	}
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return nil, nil, fmt.Errorf("map shared memory: %w", err)
	}
	first := unsafe.Add(unsafe.Pointer(&mem[0]), unsafe.Sizeof(header{}))
	return mem, &shared{head: (*header)(unsafe.Pointer(&mem[0])), threads: unsafe.Slice((*thread)(first), targets)}, nil
}

func unmap(mem []byte) { _ = unix.Munmap(mem) }

// From include/uapi/linux/futex.h; not private, because two processes use it.
const (
	futexWait = 0
	futexWake = 1
)

// awaitStart is how threads wait for start: in the kernel and nowhere else.
func (h *header) awaitStart() {
	h.waiting.Add(1)
	for h.started.Load() == 0 {
		_, _, _ = unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&h.started)), futexWait, 0, 0, 0, 0)
	}
}

// start releases all threads at once.
func (h *header) start() {
	h.started.Store(1)
	_, _, _ = unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&h.started)), futexWake, math.MaxInt32, 0, 0, 0)
}

// nap sleeps without telling the Go scheduler, as a target's calls do.
//
//go:nosplit
func nap(ns int64) {
	ts := unix.Timespec{Sec: ns / 1e9, Nsec: ns % 1e9}
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}
