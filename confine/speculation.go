package confine

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// denyStoreBypass turns speculative store bypass off for the thread, for good,
// and says what came of it: CPUs and hypervisors differ in what they offer.
// seccomp itself no longer does it (Linux 5.16).
func denyStoreBypass() string {
	err := unix.Prctl(unix.PR_SET_SPECULATION_CTRL, unix.PR_SPEC_STORE_BYPASS, unix.PR_SPEC_FORCE_DISABLE, 0, 0)
	state, gerr := unix.PrctlRetInt(unix.PR_GET_SPECULATION_CTRL, unix.PR_SPEC_STORE_BYPASS, 0, 0, 0)
	switch {
	case gerr != nil:
		return fmt.Sprintf("unknown (%v)", gerr)
	case state == unix.PR_SPEC_NOT_AFFECTED:
		return "not affected"
	case state&(unix.PR_SPEC_FORCE_DISABLE|unix.PR_SPEC_DISABLE) != 0:
		return "off"
	}
	return fmt.Sprintf("on (%v)", err)
}
