package trace

import "github.com/unknot/unknot/bench/internal/bpf"

// stagesKernel is the first whose sched_switch tells why a task left the CPU.
const stagesKernel = "5.18"

// An UnavailableError says why tracing cannot be done here, and what would help.
// errors.Is holds for fs.ErrPermission where privileges are missing, and for
// errors.ErrUnsupported where the kernel is.
type UnavailableError = bpf.UnavailableError

// Probe returns nil if this user can trace on this kernel. It finds out by
// loading the programs and attaching them for a moment; any other answer is an
// *[UnavailableError].
func Probe() error {
	t, err := Start(Config{MaxInFlight: 1})
	if err != nil {
		return err
	}
	return t.Close()
}
