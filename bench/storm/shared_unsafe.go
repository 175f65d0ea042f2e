package storm

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/unknot/unknot/engine/mono"
	"golang.org/x/sys/unix"
)

// mapShared maps the storm's shared memory; its parent sizes it first.
func mapShared(fd, threads, calls int, create bool) ([]byte, *shared, error) {
	size := int(unsafe.Sizeof(header{})) + threads*int(unsafe.Sizeof(thread{})) + calls*int(unsafe.Sizeof(entry{}))
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
	sh := &shared{head: (*header)(unsafe.Pointer(&mem[0])), threads: unsafe.Slice((*thread)(first), threads)}
	if calls > 0 {
		sh.calls = unsafe.Slice((*entry)(unsafe.Add(first, uintptr(threads)*unsafe.Sizeof(thread{}))), calls)
	}
	return mem, sh, nil
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

// sleepUntil sleeps until at (ns, monotonic), but not the last µs, which the caller
// spins away, nor long enough to miss the end of the storm.
//
//go:nosplit
func (h *header) sleepUntil(at int64) {
	const spin, most = 1000, 50e6
	now := mono.Now()
	if at-now <= spin {
		return
	}
	wake := min(at-spin, now+most)
	ts := unix.Timespec{Sec: wake / 1e9, Nsec: wake % 1e9}
	_, _, _ = unix.RawSyscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_MONOTONIC, timerAbstime, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
}

// timerAbstime is TIMER_ABSTIME of include/uapi/linux/time.h.
const timerAbstime = 1
