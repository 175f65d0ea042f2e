package storm

import (
	"fmt"
	"math"
	"sync/atomic"
	"unsafe"

	"github.com/unknot/unknot/internal/mono"
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
	futexWait       = 0
	futexWake       = 1
	futexWaitBitset = 9 // with a deadline by the monotonic clock
	futexAny        = 1<<32 - 1
)

// awaitStart is how threads wait for start: in the kernel and nowhere else. Where there is a garbage collector it must be
// able to stop them there, or it waits for the start, and the start for it.
func (h *header) awaitStart(collected bool) {
	h.waiting.Add(1)
	wait := unix.RawSyscall6
	if collected {
		wait = unix.Syscall6
	}
	for h.started.Load() == 0 {
		_, _, _ = wait(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&h.started)), futexWait, 0, 0, 0, 0)
	}
}

// start releases all threads at once.
func (h *header) start() {
	h.started.Store(1)
	_, _, _ = unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&h.started)), futexWake, math.MaxInt32, 0, 0, 0)
}

// sleepUntil sleeps until at (ns, monotonic), but not the last µs, which the caller
// spins away, or until the storm is halted. On a futex, so that a thread whose
// turn is far off need not wake up in between to see whether the storm still goes on:
// an open loop may need many hundred of them.
//
//go:nosplit
func (h *header) sleepUntil(at int64) {
	const spin = 1000
	if at-mono.Now() <= spin {
		return
	}
	at -= spin
	ts := unix.Timespec{Sec: at / 1e9, Nsec: at % 1e9}
	_, _, _ = unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&h.halted)), futexWaitBitset, 0, uintptr(unsafe.Pointer(&ts)), 0, futexAny)
}

// permit waits until the thread may take a call.
//
//go:nosplit
func (h *header) permit() {
	for {
		switch p := h.permits.Load(); {
		case p > 0:
			if h.permits.CompareAndSwap(p, p-1) {
				return
			}
		default:
			h.resting.Add(1)
			_, _, _ = unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&h.permits)), futexWait, 0, 0, 0, 0)
			h.resting.Add(-1)
		}
	}
}

// pass gives the permit on, to whoever is done with a call first if the reserve lasts.
//
//go:nosplit
func (h *header) pass() {
	if h.permits.Add(1) > reserve && h.resting.Load() > 0 {
		_, _, _ = unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&h.permits)), futexWake, 1, 0, 0, 0)
	}
}

// halt ends the storm at a time, and all rest and sleep of its threads.
func (h *header) halt(now int64) {
	h.stopAt.CompareAndSwap(0, now)
	h.halted.Store(1)
	h.permits.Add(MaxTargets)
	for _, word := range []unsafe.Pointer{unsafe.Pointer(&h.halted), unsafe.Pointer(&h.permits)} {
		_, _, _ = unix.RawSyscall6(unix.SYS_FUTEX, uintptr(word), futexWake, math.MaxInt32, 0, 0, 0)
	}
}

// A tally is counted up by one thread, and read by other processes.
type tally struct{ n atomic.Uint64 }

// add locks no cache line, as nobody else writes.
//
//go:nosplit
func (t *tally) add() { *(*uint64)(unsafe.Pointer(&t.n))++ }

func (t *tally) Load() uint64 { return t.n.Load() }
