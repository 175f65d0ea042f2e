package confine

import (
	"maps"

	"golang.org/x/sys/unix"
)

// numbers are the system calls of the table by name. What an architecture does
// not have is not in it, and neither are rules for it in the program.
var numbers = func() map[string]uint32 {
	m := map[string]uint32{
		"openat": unix.SYS_OPENAT, "openat2": unix.SYS_OPENAT2, "fstat": unix.SYS_FSTAT, "newfstatat": unix.SYS_NEWFSTATAT,
		"statx": unix.SYS_STATX, "faccessat": unix.SYS_FACCESSAT, "faccessat2": unix.SYS_FACCESSAT2, "readlinkat": unix.SYS_READLINKAT,
		"ioctl": unix.SYS_IOCTL, "epoll_pwait": unix.SYS_EPOLL_PWAIT, "ppoll": unix.SYS_PPOLL, "write": unix.SYS_WRITE, "read": unix.SYS_READ, "close": unix.SYS_CLOSE,
		"futex": unix.SYS_FUTEX, "sched_yield": unix.SYS_SCHED_YIELD, "nanosleep": unix.SYS_NANOSLEEP, "getpid": unix.SYS_GETPID, "gettid": unix.SYS_GETTID,
		"tgkill": unix.SYS_TGKILL, "rt_sigreturn": unix.SYS_RT_SIGRETURN, "rt_sigprocmask": unix.SYS_RT_SIGPROCMASK, "sigaltstack": unix.SYS_SIGALTSTACK,
		"mmap": unix.SYS_MMAP, "munmap": unix.SYS_MUNMAP, "madvise": unix.SYS_MADVISE, "prctl": unix.SYS_PRCTL,
		"timer_create": unix.SYS_TIMER_CREATE, "timer_settime": unix.SYS_TIMER_SETTIME, "timer_delete": unix.SYS_TIMER_DELETE,
		"clock_gettime": unix.SYS_CLOCK_GETTIME, "gettimeofday": unix.SYS_GETTIMEOFDAY, "getrandom": unix.SYS_GETRANDOM,
		"restart_syscall": unix.SYS_RESTART_SYSCALL, "exit": unix.SYS_EXIT, "exit_group": unix.SYS_EXIT_GROUP,
		"setuid": unix.SYS_SETUID, "setreuid": unix.SYS_SETREUID, "setresuid": unix.SYS_SETRESUID,
		"setgid": unix.SYS_SETGID, "setregid": unix.SYS_SETREGID, "setresgid": unix.SYS_SETRESGID,
	}
	maps.Copy(m, legacyNumbers)
	return m
}()
