// Package mono reads the monotonic clock (CLOCK_MONOTONIC), in ns, as every
// stage of unknot does: the numbers of different processes, and those that BPF
// programs take by bpf_ktime_get_ns, are on one scale. What is read for each call is a [Clock] or
// a [Line], which cost less and follow it.
package mono

import (
	_ "unsafe" // for go:linkname
)

// Now returns the monotonic time in ns. Unlike [time.Since] it is not a point of
// preemption (the runtime's function, which it is, is nosplit), and it costs
// one reading of the vDSO's clock.
//
//go:linkname Now runtime.nanotime
func Now() int64
