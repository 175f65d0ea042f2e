package notify

import (
	"errors"
	"fmt"
	"slices"

	"github.com/unknot/unknot/internal/cbpf"
	"golang.org/x/sys/unix"
)

// Install sets PR_SET_NO_NEW_PRIVS on the calling thread and installs prog on
// it with a listener, by raw seccomp(2). The caller must be locked to its
// thread, which keeps the filter for life; children and threads cloned from it
// inherit it.
//
// Do not start a command by os/exec on such a thread: if the filter traps what
// lies between fork and execve, this process deadlocks as soon as the garbage
// collector runs while the call waits for its answer. Package engine/launch says
// why, and starts commands.
//
// It asks for no more than flags says. TSync gets TSYNC_ESRCH, without which
// the kernel cannot give it a listener. A flag that the kernel lacks is an
// *[UnsupportedError]; leave it out and try again.
func Install(prog []unix.SockFilter, flags InstallFlags) (*Listener, error) {
	fd, err := InstallFD(prog, flags)
	if err != nil {
		return nil, err
	}
	l, err := NewListener(fd)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return l, nil
}

// InstallFD is Install for a program that traps what Install itself needs: its
// last system call is seccomp(2), and it returns the listener's bare
// descriptor. Another thread, without the filter, makes a Listener of it.
func InstallFD(prog []unix.SockFilter, flags InstallFlags) (int, error) {
	if err := CheckSizes(); err != nil {
		return -1, err
	}
	if len(prog) == 0 || len(prog) > maxInsns {
		return -1, fmt.Errorf("install filter: %d instructions, must be 1 to %d", len(prog), maxInsns)
	}
	if flags&^(WaitKillableRecv|TSync|Log|SpecAllow) != 0 {
		return -1, fmt.Errorf("install filter: unknown flags %#x", uint32(flags))
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return -1, fmt.Errorf("install filter: prctl(PR_SET_NO_NEW_PRIVS): %w", err)
	}
	all := flags | newListener
	if flags&TSync != 0 {
		all |= tsyncESRCH
	}
	fd, e := setModeFilter(all, prog)
	switch {
	case e == unix.EBUSY:
		return -1, fmt.Errorf("install filter: this thread already has a filter with a listener (one per thread and its ancestors): %w", e)
	case e == unix.ESRCH:
		return -1, fmt.Errorf("install filter: another thread's filters differ, so not all threads can share one: %w", e)
	case e == unix.EINVAL:
		if err := flagsKnown(flags); err != nil {
			return -1, err
		}
		return -1, fmt.Errorf("install filter: the kernel refuses the program: %w", e)
	case e != 0:
		return -1, fmt.Errorf("install filter: %w", callError(e))
	}
	return fd, nil
}

// maxInsns is the kernel's BPF_MAXINSNS.
const maxInsns = 4096

func flagsKnown(flags InstallFlags) error {
	for _, f := range []*Feature{FeatureWaitKillable, FeatureTSyncListener} {
		if flags&f.flag != 0 {
			if err := f.Probe(); err != nil {
				return err
			}
		}
	}
	return nil
}

// x32Bit marks the x32 numbers on amd64 (__X32_SYSCALL_BIT), which come under
// the same AUDIT_ARCH as the 64-bit ones.
const x32Bit = 0x40000000

// ErrNoSyscalls reports an empty list of system calls to trap.
var ErrNoSyscalls = errors.New("no system calls to trap")

// TrapProgram makes the least filter that hands the given system calls of the
// native ABI to a listener and allows every other. Calls by another ABI of the
// same machine (i386, x32) get ENOSYS: they are no way around the filter.
// Package engine/filter compiles by name, for all ABIs.
func TrapProgram(nrs ...int) ([]unix.SockFilter, error) {
	if len(nrs) == 0 {
		return nil, ErrNoSyscalls
	}
	nrs = slices.Compact(slices.Sorted(slices.Values(nrs)))
	if len(nrs) > 200 { // jump offsets are 8 bits
		return nil, fmt.Errorf("%d system calls to trap: at most 200", len(nrs))
	}
	n := len(nrs)
	const enosys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	// Layout: arch, nr, x32, then one test per number, then three returns.
	p := []unix.SockFilter{
		{Code: cbpf.Load, K: offArch},
		{Code: cbpf.Equal, K: nativeArch, Jf: uint8(n + 4)},
		{Code: cbpf.Load, K: offNR},
		{Code: cbpf.AboveOrEqual, K: x32Bit, Jt: uint8(n + 2)},
	}
	for i, nr := range nrs {
		if nr < 0 || nr >= x32Bit {
			return nil, fmt.Errorf("no system call number %d", nr)
		}
		p = append(p, unix.SockFilter{Code: cbpf.Equal, K: uint32(nr), Jt: uint8(n - i)})
	}
	return append(p,
		unix.SockFilter{Code: cbpf.Return, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: cbpf.Return, K: unix.SECCOMP_RET_USER_NOTIF},
		unix.SockFilter{Code: cbpf.Return, K: enosys},
	), nil
}

// Offsets in struct seccomp_data.
const (
	offNR   = 0
	offArch = 4
)
