package machine

import "os"

// GoTestCPU is the value of the key "cpu" as `go test -bench` prints it, to the last
// blank, since benchstat compares nothing across two values of a key; "" where it
// prints none (arm64). That is what the CPU says now. The kernel's name of it, which is
// among the facts, is of when it booted: a virtual machine may have moved since.
func GoTestCPU() string {
	if b := brand(); b != "" {
		return b
	}
	b, _ := os.ReadFile("/proc/cpuinfo")
	return field(string(b), "model name")
}
