//go:build cgo

// Package early is what `unknot run` does before the Go runtime begins, and as
// soon as Go code can run. Other subcommands are left alone.
//
// The package imports nothing, so that it is initialized among the first: until
// then, but with glibc, the Go runtime's own handlers take the signals that cannot
// stay blocked.
package early

// #include "early.h"
import "C"

func init() { C.unknot_take_signals() }

// SignalSize is the size of what a read of Pipe returns: struct unknot_signal of early.h.
const SignalSize = C.sizeof_struct_unknot_signal

// Blocked are the signals that are blocked since before the Go runtime began: bit
// n-1 is signal n. 0 says that this process is no run.
func Blocked() uint64 { return uint64(C.unknot_run_blocked) }

// Pipe is the descriptor from which the other signals are read; -1 if there is none.
func Pipe() int { return int(C.unknot_signal_pipe[0]) }

// Files are the descriptors above 2 that this process was started with.
func Files() []int {
	var all []int
	for _, fd := range C.unknot_inherited_files[:C.unknot_inherited_count] {
		all = append(all, int(fd))
	}
	return all
}

// Die ends this process by a signal, without a core file. It returns if the signal
// does not do that, as for PID 1 of a namespace. The caller is locked to its thread.
func Die(sig int) { C.unknot_die(C.int(sig)) }

// BeginStop sends this thread a signal that stops the process, and stays blocked. A
// SIGCONT that comes before EndStop takes it back. The caller is locked to its thread.
func BeginStop(sig int) { C.unknot_stop_begin(C.int(sig)) }

// EndStop, on the same thread, stops the process by that signal until it is
// continued, or takes the signal back.
func EndStop(sig int, stop bool) {
	var n C.int
	if stop {
		n = 1
	}
	C.unknot_stop_end(C.int(sig), n)
}
