package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/unknot/unknot/engine/filter"
)

// interruptible are calls that may fail with EINTR without a supervisor too, so
// that programs know what to do then (signal(7)). connect is not among them: to
// programs its EINTR says that the connection is under way.
var interruptible = []string{
	"accept", "accept4", "clock_nanosleep", "creat", "epoll_pwait", "epoll_pwait2", "epoll_wait", "fallocate", "fcntl", "flock", "ftruncate", "futex",
	"getrandom", "io_getevents", "io_uring_enter", "ioctl", "mq_timedreceive", "mq_timedsend", "msgrcv", "msgsnd", "nanosleep", "open", "openat", "openat2",
	"pause", "poll", "ppoll", "pread64", "preadv", "preadv2", "pselect6", "pwrite64", "pwritev", "pwritev2", "read", "readv", "recvfrom", "recvmmsg", "recvmsg",
	"rt_sigsuspend", "rt_sigtimedwait", "select", "semop", "semtimedop", "sendfile", "sendmmsg", "sendmsg", "sendto", "splice", "statfs", "fstatfs", "truncate",
	"wait4", "waitid", "write", "writev",
	// Made by a program that replaces itself: with no handler of its own left to run
	// but between fork and execve.
	"execve", "execveat",
}

// unsafeWarning says which of the calls to trap are unsafe to interrupt; "" if none is.
func (s *runSettings) unsafeWarning() string {
	unsafe := unsafeCalls(s.Trap)
	if len(unsafe) == 0 {
		return ""
	}
	return fmt.Sprintf("%s %s: programs do not expect that a signal interrupts such a call, which can happen before it is received (see unknot run --help)",
		s.where("trap"), strings.Join(unsafe, ","))
}

// unsafeCalls returns those of the calls that programs do not expect to be
// interrupted, in order.
func unsafeCalls(trap []string) []string {
	var unsafe []string
	for _, name := range slices.Compact(slices.Sorted(slices.Values(trap))) {
		if _, err := filter.Number(name); err == nil && !slices.Contains(interruptible, strings.TrimSpace(name)) {
			unsafe = append(unsafe, name)
		}
	}
	return unsafe
}
