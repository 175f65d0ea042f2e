package confine

import (
	"github.com/unknot/unknot/internal/callabi"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

var archViolations = []violation{
	{"open", simple(unix.SYS_OPEN, 0, 0, 0), "ENOSYS", ""},
	{"creat", simple(unix.SYS_CREAT, 0, 0), "ENOSYS", ""},
	{"stat", simple(unix.SYS_STAT, 0, 0), "ENOSYS", ""},
	{"lstat", simple(unix.SYS_LSTAT, 0, 0), "ENOSYS", ""},
	{"access", simple(unix.SYS_ACCESS, 0, 0), "ENOSYS", ""},
	{"readlink", simple(unix.SYS_READLINK, 0, 0, 0), "ENOSYS", ""},
	{"fork", func(r *rig) error { return r.onlyConfined(unix.SYS_FORK) }, "killed", ""},
	{"vfork", func(r *rig) error { return r.onlyConfined(unix.SYS_VFORK) }, "killed", ""},
	{"arch_prctl", simple(unix.SYS_ARCH_PRCTL, none), "killed", ""},
	{"int $0x80", func(*rig) error { callabi.Int80(20, 0, 0, 0); return nil }, "killed", ""}, // getpid
	{"x32", simple(0x40000000 | unix.SYS_GETPID), "killed", ""},                              // allowed by its own number
	{"epoll_wait", simple(unix.SYS_EPOLL_WAIT, none, 0, 0, 0), "killed", ""},                 // epoll_pwait is what Go uses
	{"modify_ldt", simple(unix.SYS_MODIFY_LDT, none, 0, 0), "killed", ""},
}

// onlyConfined makes a call that would do harm where it is allowed.
func (r *rig) onlyConfined(nr uintptr) error {
	if v, err := taskStatus(unix.Gettid(), "Seccomp"); err == nil && v == "0" {
		return nil
	}
	return sys(nr)
}

func childInt80(*testchild.Conn, []string) error {
	callabi.Int80(20, 0, 0, 0)
	return nil
}
