package bpf

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// initialPIDNS is the inode of the machine's first PID namespace
// (PROC_PID_INIT_INO, include/linux/proc_ns.h).
const initialPIDNS = 0xEFFFFFFC

// A Namespace is how a program tells a process by its id: by the PID namespace
// that the id is of, if that is not the machine's first.
type Namespace struct {
	Inside   bool   // it is not the first
	Dev, Ino uint64 // as bpf_get_ns_current_pid_tgid wants them
}

// OwnNamespace returns that of our own process ids.
func OwnNamespace() (Namespace, error) {
	// Any /proc in which we are, also another namespace's, leads to our own.
	const path = "/proc/self/ns/pid"
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		if m := missingMount(); m != nil && m.path == "/proc" {
			err = fmt.Errorf("%w; %s", m.err, m.remedy())
		}
		return Namespace{Inside: true}, fmt.Errorf("trace: find own PID namespace: %w", err)
	}
	// The kernel's own dev_t, which is not the one that stat returns.
	dev := uint64(unix.Major(st.Dev))<<20 | uint64(unix.Minor(st.Dev))
	return Namespace{Inside: st.Ino != initialPIDNS, Dev: dev, Ino: st.Ino}, nil
}
