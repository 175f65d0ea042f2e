package machine

// GoTestCPU is the value of the key "cpu" as `go test -bench` prints it, to the last
// blank, since benchstat compares nothing across two values of a key; "" where it
// prints none (arm64). That is what the CPU says now. The kernel's name of it, which is
// among the facts, is of when it booted: a virtual machine may have moved since.
func GoTestCPU() string {
	if b := brand(); b != "" {
		return b
	}
	return KernelCPU()
}

// KernelCPU is the kernel's name of the CPU; "" where it has none (arm64).
func KernelCPU() string { return field(read("/proc/cpuinfo"), "model name") }
