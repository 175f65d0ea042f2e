//go:build cgo

package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// #include "early.h"
import "C"

// A sent signal is one that this process was sent, with who sent it.
type sent struct {
	sig   syscall.Signal
	code  int32 // si_code: unix.SI_USER, SI_KERNEL, ...
	pid   int   // of the sender
	value uint64
}

// As early as Go code can: until then the Go runtime's handlers act.
func init() { C.unknot_take_signals() }

// startedAsRun reports whether the signals of this process are blocked for run
// to read, since before the Go runtime began.
func startedAsRun() bool { return C.unknot_run_blocked != 0 }

// readSignals has each signal that this process is sent given to f, in order,
// from one goroutine for those that are blocked and one for the other kind.
func readSignals(f func(sent)) error {
	var set unix.Sigset_t
	for i := range set.Val {
		if i == 0 {
			set.Val[i] = uint64(C.unknot_run_blocked)
		}
	}
	if C.unknot_signal_pipe[0] < 0 {
		return fmt.Errorf("pipe: %w", unix.EMFILE)
	}
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
		more := os.NewFile(uintptr(C.unknot_signal_pipe[0]), "more signals")
		var b [C.sizeof_struct_unknot_signal]byte
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

// inheritedFiles are the descriptors above 2 that this process was started with.
func inheritedFiles() []int {
	var all []int
	for _, fd := range C.unknot_inherited_files[:C.unknot_inherited_count] {
		all = append(all, int(fd))
	}
	return all
}

// dieBy ends this process by sig. It returns if the signal does not do that, as
// for PID 1 of a namespace.
func dieBy(sig syscall.Signal) {
	runtime.LockOSThread()
	C.unknot_die(C.int(sig))
}

// stopBy stops this process by sig, until it is continued.
func stopBy(sig syscall.Signal) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	C.unknot_stop(C.int(sig))
}
