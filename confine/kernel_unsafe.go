package confine

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// loadFilter is seccomp(SECCOMP_SET_MODE_FILTER) for the calling thread alone.
// Raw: the thread's next system call is under the filter.
func loadFilter(prog []unix.SockFilter, flags uintptr) unix.Errno {
	p := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&p)))
	return e
}

// actionAvail is seccomp(SECCOMP_GET_ACTION_AVAIL).
func actionAvail(action uint32) unix.Errno {
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	return e
}

// createRuleset is landlock_create_ruleset(2).
func createRuleset(a *rulesetAttr) (int, unix.Errno) {
	fd, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(a)), unsafe.Sizeof(*a), 0)
	return int(fd), e
}

// writeCookies is write(2) with three more words, which the kernel ignores.
func writeCookies(fd int, p []byte, c [3]uintptr) (int, unix.Errno) {
	if len(p) == 0 {
		return 0, 0
	}
	n, _, e := unix.Syscall6(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), c[0], c[1], c[2])
	return int(n), e
}
