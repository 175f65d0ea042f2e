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
	err := unix.Stat(path, &st)
	if err != nil && pidnsOfPidfd(&st) != nil {
		return pidns{}, fmt.Errorf("trace: find own PID namespace: stat %s: %w; mount /proc (mount -t proc proc /proc), or trace every process (--all)", path, err)
	}
	// The kernel's own dev_t, which is not the one that stat returns.
	dev := uint64(unix.Major(st.Dev))<<20 | uint64(unix.Minor(st.Dev))
	return pidns{dev: dev, ino: st.Ino, initial: st.Ino == initialPIDNS}, nil
}

// pidnsOfPidfd asks without /proc, from Linux 6.11 on.
func pidnsOfPidfd(st *unix.Stat_t) error {
	fd, err := unix.PidfdOpen(unix.Getpid(), 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ns, err := unix.IoctlRetInt(fd, unix.PIDFD_GET_PID_NAMESPACE)
	if err != nil {
		return err
	}
	defer unix.Close(ns)
	return unix.Fstat(ns, st)
}
