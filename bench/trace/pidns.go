package trace

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

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
	const path = "/proc/self/ns/pid"
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return pidns{}, fmt.Errorf("trace: find own PID namespace: stat %s: %w; mount /proc, or trace every process (TGID 0)", path, err)
	}
	// The kernel's own dev_t, which is not the one that stat returns.
	dev := uint64(unix.Major(st.Dev))<<20 | uint64(unix.Minor(st.Dev))
	return pidns{dev: dev, ino: st.Ino, initial: st.Ino == initialPIDNS}, nil
}

// checkProcess reports whether tgid is a process: the filter would silently
// match nothing if it were a thread, or nobody.
func checkProcess(tgid int) error {
	if tgid < 0 {
		return fmt.Errorf("trace: process id %d is negative", tgid)
	}
	if err := unix.Kill(tgid, 0); errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("trace: no process %d in this PID namespace: %w", tgid, err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tgid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // /proc is another namespace's, or not mounted: nothing to check by
	} else if err != nil {
		return nil // hidden from us (hidepid): likewise
	}
	_, rest, _ := bytes.Cut(status, []byte("\nTgid:\t"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	if leader, err := strconv.Atoi(string(line)); err == nil && leader != tgid && ownProc() {
		return fmt.Errorf("trace: %d is a thread of process %d: trace that", tgid, leader)
	}
	return nil
}

// ownProc reports whether /proc shows our own PID namespace.
func ownProc() bool {
	self, err := os.Readlink("/proc/self")
	return err == nil && self == strconv.Itoa(os.Getpid())
}
