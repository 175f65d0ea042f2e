package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
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
func readSignals(f func(sent)) error {
	if early.Pipe() < 0 {
		return fmt.Errorf("pipe: %w", unix.EMFILE)
	}
	var set unix.Sigset_t
	set.Val[0] = early.Blocked() // one word holds all 64 signals
	fd, err := unix.Signalfd(-1, &set, unix.SFD_CLOEXEC|unix.SFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("signalfd: %w", err)
	}
	go func() {
		signals := os.NewFile(uintptr(fd), "signals")
		var s unix.SignalfdSiginfo
		b := unsafe.Slice((*byte)(unsafe.Pointer(&s)), unsafe.Sizeof(s))
		for {
			if _, err := signals.Read(b); err != nil {
				return
			}
			f(sent{syscall.Signal(s.Signo), s.Code, int(s.Pid), s.Ptr})
		}
	}()
	go func() {
		more := os.NewFile(uintptr(early.Pipe()), "more signals")
		var b [early.SignalSize]byte
		for {
			if _, err := more.Read(b[:]); err != nil {
				return
			}
			n := func(at int) int32 { return int32(binary.NativeEndian.Uint32(b[at:])) }
			f(sent{syscall.Signal(n(0)), n(4), int(n(8)), binary.NativeEndian.Uint64(b[16:])})
		}
	}()
	return nil
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
