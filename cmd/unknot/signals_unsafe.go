package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"github.com/unknot/unknot/cmd/unknot/internal/early"
	"golang.org/x/sys/unix"
)

// A sent signal is one that this process was sent, with who sent it.
type sent struct {
	sig   syscall.Signal
	code  int32 // si_code: SI_USER, SI_KERNEL, ...
	pid   int   // of the sender
	value uint64
}

// readSignals has each signal that this process is sent given to f: from one
// goroutine, in order, those that are blocked, and from another one the rest.
// Between the kernel and the end of f each signal is under the lock.
func readSignals(f func(sent), taking sync.Locker) error {
	if early.Pipe() < 0 {
		return fmt.Errorf("pipe: %w", unix.EMFILE)
	}
	var set unix.Sigset_t
	set.Val[0] = early.Blocked() // one word holds all 64 signals
	fd, err := unix.Signalfd(-1, &set, unix.SFD_CLOEXEC|unix.SFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("signalfd: %w", err)
	}
	go readRecords(fd, int(unsafe.Sizeof(unix.SignalfdSiginfo{})), taking, func(b []byte) {
		s := (*unix.SignalfdSiginfo)(unsafe.Pointer(&b[0]))
		f(sent{syscall.Signal(s.Signo), s.Code, int(s.Pid), s.Ptr})
	})
	go readRecords(early.Pipe(), int(early.SignalSize), taking, func(b []byte) {
		n := func(at int) int32 { return int32(binary.NativeEndian.Uint32(b[at:])) }
		f(sent{syscall.Signal(n(0)), n(4), int(n(8)), binary.NativeEndian.Uint64(b[16:])})
	})
	return nil
}

// readRecords reads records of size bytes from fd, which does not block, until that fails.
func readRecords(fd, size int, taking sync.Locker, f func([]byte)) {
	file := os.NewFile(uintptr(fd), "signals")
	raw, err := file.SyscallConn()
	if err != nil {
		return
	}
	// Of words, so that it is aligned for what f takes it for.
	words := make([]uint64, (size+7)/8)
	b := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), size)
	_ = raw.Read(func(fd uintptr) bool {
		for {
			taking.Lock()
			n, err := unix.Read(int(fd), b)
			if err == nil && n == size {
				f(b)
			}
			taking.Unlock()
			switch {
			case err == unix.EAGAIN:
				return false // until there is more
			case err != unix.EINTR && n != size:
				return true
			}
		}
	})
	runtime.KeepAlive(file)
}

// waits reports whether sig, which is blocked, was sent to this process and not taken yet.
func waits(sig syscall.Signal) bool {
	var set uint64
	_, _, e := unix.RawSyscall(unix.SYS_RT_SIGPENDING, uintptr(unsafe.Pointer(&set)), unsafe.Sizeof(set), 0)
	return e == 0 && set&(1<<(sig-1)) != 0
}

// dieBy ends this process by sig. It returns if the signal does not do that, as
// for PID 1 of a namespace.
func dieBy(sig syscall.Signal) {
	runtime.LockOSThread()
	early.Die(int(sig))
}

// stopBy stops this process by sig, until it is continued, if still is true. A SIGCONT
// that comes after still has looked takes the stop back.
func stopBy(sig syscall.Signal, still func() bool) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	early.BeginStop(int(sig))
	early.EndStop(int(sig), still())
}
