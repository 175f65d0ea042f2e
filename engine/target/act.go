package target

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// A place is what decides which file a path is for a target, and what it may do with it.
type place struct {
	t      Target
	root   int // the target's root directory
	base   int // where relative paths begin; -1: not asked for
	ids    IDs
	caps   uint64 // its capabilities that count in our user namespace
	within bool   // its root is another one than ours
	// jailed says that the thread has the target's root. Without CAP_SYS_CHROOT paths are resolved by openat2's
	// restrictions instead, which cannot do all.
	jailed bool
}

// place finds t's place. The caller closes it.
func (t Target) place(op string, dirfd int, relative bool) (_ *place, err error) {
	p := &place{t: t, root: -1, base: -1}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	const dir = unix.O_PATH
	if p.root, err = t.open(op, "root", dir); err != nil {
		return nil, err
	}
	if relative {
		if dirfd == unix.AT_FDCWD {
			p.base, err = t.open(op, "cwd", dir)
		} else if p.base, err = t.open(op, fmt.Sprintf("fd/%d", dirfd), dir); errors.Is(err, unix.ENOENT) {
			err = &Error{Op: op, TID: t.tid, Where: fmt.Sprintf("directory descriptor %d", dirfd), Err: unix.EBADF}
		}
		if err != nil {
			return nil, err
		}
	}
	s, err := t.status(op)
	if err != nil {
		return nil, err
	}
	p.ids = s.ids
	same, err := t.sameNamespace(op, "user")
	if err != nil {
		return nil, err
	}
	if same {
		p.caps = s.ids.Effective
	}
	if p.within, err = otherRoot(p.root); err != nil {
		return nil, t.ours(op, "compare root directories", err)
	}
	if err := t.alive(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *place) close() {
	for _, fd := range []int{p.root, p.base} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// sameNamespace reports whether the target is in this process's namespace of that name in /proc/TID/ns.
func (t Target) sameNamespace(op, name string) (bool, error) {
	fd, err := t.open(op, "ns/"+name, unix.O_RDONLY)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	same, err := isOurs(fd, name)
	if err != nil {
		return false, t.ours(op, "namespace "+name, err)
	}
	return same, nil
}

// isOurs reports whether fd is of this process's namespace of that name.
func isOurs(fd int, name string) (bool, error) {
	dir, err := procFD()
	if err != nil {
		return false, err
	}
	var theirs, ours unix.Stat_t
	if err := unix.Fstat(fd, &theirs); err != nil {
		return false, err
	}
	if err := unix.Fstatat(dir, "self/ns/"+name, &ours, 0); err != nil {
		return false, err
	}
	return theirs.Dev == ours.Dev && theirs.Ino == ours.Ino, nil
}

// otherRoot reports whether a directory is not this process's root, or not on the same mount. A kernel that does
// not tell mounts (before 5.8) has it be another one.
func otherRoot(fd int) (bool, error) {
	const want = unix.STATX_INO | unix.STATX_MNT_ID
	var theirs, ours unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, want, &theirs); err != nil {
		return false, err
	}
	if err := unix.Statx(unix.AT_FDCWD, "/", 0, want, &ours); err != nil {
		return false, err
	}
	same := theirs.Mask&ours.Mask&unix.STATX_MNT_ID != 0 && theirs.Mnt_id == ours.Mnt_id && theirs.Ino == ours.Ino &&
		theirs.Dev_major == ours.Dev_major && theirs.Dev_minor == ours.Dev_minor
	return !same, nil
}

// enter gives the calling thread, which nobody uses afterwards, the target's root, umask, ids and capabilities.
func (p *place) enter() error {
	// A thread shares these with the process.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return step("unshare(CLONE_FS)", err, "a container's seccomp profile may refuse it: allow the call there")
	}
	p.jailed = true
	if p.within {
		if err := unix.Fchdir(p.root); err != nil {
			return step("enter the target's root directory", err, "")
		}
		switch err := unix.Chroot("."); err {
		case nil:
		case unix.EPERM:
			p.jailed = false
		default:
			return step("chroot", err, "")
		}
	}
	if p.ids.Umask >= 0 {
		unix.Umask(p.ids.Umask)
	}
	return p.become()
}

// become gives the calling thread the target's ids and capabilities, and no more. The real and saved user ids
// stay, so that the target, whose ids the thread now has else, may not signal or trace it.
func (p *place) become() error {
	i := &p.ids
	const setgid, setuid = "needs CAP_SETGID, as the target has other groups than the supervisor", "needs CAP_SETUID, as the target is another user than the supervisor"
	groups, err := unix.Getgroups()
	if err != nil {
		return step("getgroups", err, "")
	}
	if !sameSet(groups, i.Groups) {
		if err := setGroups(i.Groups); err != nil {
			return step("setgroups", err, setgid)
		}
	}
	const keep = ^uintptr(0)
	if i.EGID != unix.Getegid() {
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, keep, uintptr(i.EGID), keep); e != 0 {
			return step("setresgid", e, setgid)
		}
	}
	if i.FSGID != fsgid() {
		_ = unix.Setfsgid(i.FSGID)
		if fsgid() != i.FSGID {
			return step("setfsgid", unix.EPERM, setgid)
		}
	}
	if i.EUID != unix.Geteuid() {
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(i.EUID), keep); e != 0 {
			return step("setresuid", e, setuid)
		}
	}
	c, err := capget()
	if err != nil {
		return step("capget", err, "")
	}
	if i.FSUID != fsuid() {
		c.effective = c.permitted // which root lost with the effective user id
		if err := c.set(); err != nil {
			return step("capset", err, "")
		}
		_ = unix.Setfsuid(i.FSUID)
		if fsuid() != i.FSUID {
			return step("setfsuid", unix.EPERM, setuid)
		}
	}
	// Never more than the supervisor has.
	c.effective = p.caps & c.permitted
	c.permitted, c.inheritable = c.effective, 0
	if err := c.set(); err != nil {
		return step("capset", err, "")
	}
	return nil
}

func sameSet(a, b []int) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// The calls return the ids before; -1 is no id, and changes nothing.
func fsuid() int { id, _ := unix.SetfsuidRetUid(-1); return id }
func fsgid() int { id, _ := unix.SetfsgidRetGid(-1); return id }

type capabilities struct{ effective, permitted, inheritable uint64 }

var capHeader = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}

func capget() (c capabilities, err error) {
	var d [2]unix.CapUserData
	h := capHeader
	if err := unix.Capget(&h, &d[0]); err != nil {
		return c, err
	}
	whole := func(low, high uint32) uint64 { return uint64(high)<<32 | uint64(low) }
	return capabilities{whole(d[0].Effective, d[1].Effective), whole(d[0].Permitted, d[1].Permitted), whole(d[0].Inheritable, d[1].Inheritable)}, nil
}

func (c capabilities) set() error {
	var d [2]unix.CapUserData
	for i := range d {
		shift := 32 * i
		d[i] = unix.CapUserData{Effective: uint32(c.effective >> shift), Permitted: uint32(c.permitted >> shift), Inheritable: uint32(c.inheritable >> shift)}
	}
	h := capHeader
	return unix.Capset(&h, &d[0])
}

// A stepError is a step of the supervisor's own that failed.
type stepError struct {
	call  string
	err   error
	needs string
}

func step(call string, err error, needs string) error { return &stepError{call, err, needs} }

func (e *stepError) Error() string { return e.call + ": " + e.err.Error() }
func (e *stepError) Unwrap() error { return e.err }

func errno(e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}
