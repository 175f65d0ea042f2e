package mono

// Counter is the kernel's name for the clock source that a [Line] reads; empty if it reads none on this architecture.
const Counter = "tsc"

// cycles reads the time-stamp counter (RDTSC).
func cycles() uint64
