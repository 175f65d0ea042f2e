package trace

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// initialPIDNS is the inode of the machine's first PID namespace
// (PROC_PID_INIT_INO, include/linux/proc_ns.h).
const initialPIDNS = 0xEFFFFFFC

// A pidns names a PID namespace as bpf_get_ns_current_pid_tgid wants it.
type pidns struct {
	dev, ino uint64
	initial  bool
}

// ownPIDNS returns the namespace that our own process ids are of.
func ownPIDNS() (pidns, error) {
	// Any /proc in which we are, also another namespace's, leads to our own.
	const path = "/proc/self/ns/pid"
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		if m := missingMount(); m != nil && m.path == "/proc" {
			err = fmt.Errorf("%w; %s", m.err, m.remedy())
		}
		return pidns{}, fmt.Errorf("trace: find own PID namespace: %w", err)
	}
	// The kernel's own dev_t, which is not the one that stat returns.
	dev := uint64(unix.Major(st.Dev))<<20 | uint64(unix.Minor(st.Dev))
	return pidns{dev: dev, ino: st.Ino, initial: st.Ino == initialPIDNS}, nil
}
