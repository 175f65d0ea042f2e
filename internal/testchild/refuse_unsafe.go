package testchild

import (
	"fmt"
	"syscall"
	"unsafe"

	"github.com/unknot/unknot/internal/cbpf"
	"golang.org/x/sys/unix"
)

// Refuse answers system calls, by number, with an errno in all threads of this
// process and in its children, for good: it stands for a container's seccomp
// profile. It sets no_new_privs.
func Refuse(answers map[int]syscall.Errno) error {
	prog := []unix.SockFilter{{Code: cbpf.Load, K: 0}} // seccomp_data.nr
	for nr, e := range answers {
		prog = append(prog,
			unix.SockFilter{Code: cbpf.Equal, K: uint32(nr), Jf: 1},
			unix.SockFilter{Code: cbpf.Return, K: unix.SECCOMP_RET_ERRNO | uint32(e)})
	}
	prog = append(prog, unix.SockFilter{Code: cbpf.Return, K: unix.SECCOMP_RET_ALLOW})
	return Filter(prog, unix.SECCOMP_FILTER_FLAG_TSYNC)
}

// Filter installs a filter (SECCOMP_SET_MODE_FILTER) on the calling thread, or by flags on
// all of the process. It sets no_new_privs.
func Filter(prog []unix.SockFilter, flags uintptr) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	p := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	if r, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&p))); e != 0 {
		return fmt.Errorf("filter: %w", e)
	} else if r != 0 {
		return fmt.Errorf("filter: thread %d has one of its own", r)
	}
	return nil
}
