package mono

// counter is the kernel's name for the clock source that cycles reads.
const counter = "tsc"

// cycles reads the time-stamp counter (RDTSC).
func cycles() uint64
