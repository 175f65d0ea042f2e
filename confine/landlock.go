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

// A rulesetAttr is struct landlock_ruleset_attr of include/uapi/linux/landlock.h. It is our own, as the newest rights
// below are, because x/sys renamed its fields, and whoever imports this package chooses the version of x/sys.
type rulesetAttr struct {
	fs, net, scoped uint64
}

const (
	fsResolveUnix     = 1 << 16 // LANDLOCK_ACCESS_FS_RESOLVE_UNIX
	netBindUDP        = 1 << 2  // LANDLOCK_ACCESS_NET_BIND_UDP
	netConnectSendUDP = 1 << 3  // LANDLOCK_ACCESS_NET_CONNECT_SEND_UDP
)

// landlockRights are the rights and scopes by the ABI that introduced them.
var landlockRights = []struct {
	version int
	rulesetAttr
}{
	{1, rulesetAttr{fs: unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1}}, // all up to this one
	{2, rulesetAttr{fs: unix.LANDLOCK_ACCESS_FS_REFER}},
	{3, rulesetAttr{fs: unix.LANDLOCK_ACCESS_FS_TRUNCATE}},
	{4, rulesetAttr{net: unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP}},
	{5, rulesetAttr{fs: unix.LANDLOCK_ACCESS_FS_IOCTL_DEV}},
	{6, rulesetAttr{scoped: unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL}},
	{9, rulesetAttr{fs: fsResolveUnix}},
	{10, rulesetAttr{net: netBindUDP | netConnectSendUDP}},
}

// denied is everything that the kernel can deny: a ruleset without a rule.
func (a landlockABI) denied() (r rulesetAttr) {
	for _, l := range landlockRights {
		if l.version <= a.version {
			r.fs |= l.fs
			r.net |= l.net
			r.scoped |= l.scoped
		}
	}
	if a.errata&erratumSignal == 0 {
		r.scoped &^= unix.LANDLOCK_SCOPE_SIGNAL
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
	if r.net != 0 {
		what = append(what, "net")
	}
	if r.scoped&unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET != 0 {
		what = append(what, "abstract sockets")
	}
	if r.scoped&unix.LANDLOCK_SCOPE_SIGNAL != 0 {
		what = append(what, "signals")
	}
	return fmt.Sprintf("ABI %d (%s)", a.version, strings.Join(what, ", "))
}
