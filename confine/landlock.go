package confine

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// landlockABI is what the kernel has: version 0 is none.
type landlockABI struct {
	version int
	errata  uint64
	missing unix.Errno // why version is 0
}

// erratumSignal says that SCOPE_SIGNAL leaves threads of one process alone.
// Without the fix Go's preemption signals to its own threads would fail.
const erratumSignal = 1 << 1

// probeLandlock asks what there is; its error says that it must not even ask.
func probeLandlock() (landlockABI, error) {
	v, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	switch e {
	case 0:
	case unix.ENOSYS, unix.EOPNOTSUPP:
		return landlockABI{missing: e}, nil
	default:
		return landlockABI{}, fmt.Errorf("%s: %w", callRuleset, e)
	}
	a := landlockABI{version: int(v)}
	// Linux before 6.15 does not know the question and has none of the fixes.
	if fixed, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_ERRATA); e == 0 {
		a.errata = uint64(fixed)
	}
	return a, nil
}

// landlockRights are the rights and scopes by the ABI that introduced them.
var landlockRights = []struct {
	version         int
	fs, net, scoped uint64
}{
	{version: 1, fs: unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1}, // all up to this one
	{version: 2, fs: unix.LANDLOCK_ACCESS_FS_REFER},
	{version: 3, fs: unix.LANDLOCK_ACCESS_FS_TRUNCATE},
	{version: 4, net: unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP},
	{version: 5, fs: unix.LANDLOCK_ACCESS_FS_IOCTL_DEV},
	{version: 6, scoped: unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL},
	{version: 9, fs: unix.LANDLOCK_ACCESS_FS_RESOLVE_UNIX},
	{version: 10, net: unix.LANDLOCK_ACCESS_NET_BIND_UDP | unix.LANDLOCK_ACCESS_NET_CONNECT_SEND_UDP},
}

// denied is everything that the kernel can deny: a ruleset without a rule.
func (a landlockABI) denied() (r unix.LandlockRulesetAttr) {
	for _, l := range landlockRights {
		if l.version <= a.version {
			r.Handled_access_fs |= l.fs
			r.Handled_access_net |= l.net
			r.Scoped |= l.scoped
		}
	}
	if a.errata&erratumSignal == 0 {
		r.Scoped &^= unix.LANDLOCK_SCOPE_SIGNAL
	}
	return r
}

// restrictSelf denies the calling thread all that landlock knows. It needs
// no_new_privs.
func (a landlockABI) restrictSelf() error {
	attr := a.denied()
	fd, e := createRuleset(&attr)
	if e != 0 {
		return fmt.Errorf("%s: %w", callRuleset, e)
	}
	_, _, e = unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(fd), 0, 0)
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("close the landlock ruleset: %w", err)
	}
	if e != 0 {
		return fmt.Errorf("%s: %w", callRestrict, e)
	}
	return nil
}

// String says what is denied, where there is a landlock.
func (a landlockABI) String() string {
	r := a.denied()
	what := []string{"files"}
	if r.Handled_access_net != 0 {
		what = append(what, "net")
	}
	if r.Scoped&unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET != 0 {
		what = append(what, "abstract sockets")
	}
	if r.Scoped&unix.LANDLOCK_SCOPE_SIGNAL != 0 {
		what = append(what, "signals")
	}
	return fmt.Sprintf("ABI %d (%s)", a.version, strings.Join(what, ", "))
}
