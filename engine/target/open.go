package target

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

var (
	// ErrMagicLink says that a path goes through a link of /proc that means whoever follows it: self,
	// thread-self, and what leads through them (mounts, net, /dev/fd), or a magic link (cwd, root, exe, fd/N,
	// ns/…). Followed by the supervisor it would be the supervisor's.
	ErrMagicLink = errors.New("the path goes through a link of /proc that means the process that follows it")
	// ErrOpener says that what a file is, or who may have it, depends on the process that opens it: a file in a
	// process's directory of /proc, /proc/sys, /dev/tty, a device that the target's cgroup may forbid, a cgroup's file to write.
	ErrOpener = errors.New("what the file is depends on the process that opens it")
)

// openSignal takes a thread out of an open that hangs although the target is gone.
const openSignal = osthread.DefaultInterrupt

// How makes openat2(2)'s struct open_how of the arguments of open(2) or openat(2), forgiving what these
// forgive: unknown flags, a mode where nothing is created.
func How(flags, mode uint64) unix.OpenHow {
	const known = unix.O_ACCMODE | unix.O_CREAT | unix.O_EXCL | unix.O_NOCTTY | unix.O_TRUNC | unix.O_APPEND | unix.O_NONBLOCK |
		unix.O_SYNC | unix.O_DSYNC | unix.O_ASYNC | unix.O_DIRECT | unix.O_LARGEFILE | unix.O_DIRECTORY | unix.O_NOFOLLOW |
		unix.O_NOATIME | unix.O_CLOEXEC | unix.O_PATH | unix.O_TMPFILE
	h := unix.OpenHow{Flags: flags & known}
	if h.Flags&unix.O_PATH != 0 {
		h.Flags &= unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_PATH | unix.O_CLOEXEC
	}
	if creates(h.Flags) {
		h.Mode = mode & 0o7777
	}
	return h
}

func creates(flags uint64) bool {
	return flags&unix.O_CREAT != 0 || flags&unix.O_TMPFILE == unix.O_TMPFILE
}

// OpenAt opens a file in the target's place, and returns a descriptor of ours, close-on-exec, that the caller closes:
// for Request.ReturnFD, with the call's O_CLOEXEC. dirfd, path and how are those of the target's call (openat2(2),
// Linux 5.6), copied; see [How] for open(2) and openat(2).
//
// The path is resolved from the target's root, working directory and descriptors, in its mount namespace, `..`
// above a descriptor too. The file is opened, or created, with the target's fsuid and fsgid, groups, capabilities and
// umask, on a thread that has nothing else and ends. So what the target may not open stays closed, and the error is
// the one that it would have got: [Errno] tells.
//
// Not the target's are its Landlock rules and its security module's domain (SELinux, AppArmor), its resource limits,
// and whatever is asked of the process that opens. Of these last OpenAt refuses those that it knows:
// [ErrMagicLink] and [ErrOpener]. The thread keeps the supervisor's real and saved user id, since whose are the target's may be
// killed by it: so FUSE mounts that are for one user only stay closed. Capabilities of a target in another user namespace than ours do not count,
// and none counts that the supervisor lacks.
//
// It takes CAP_SETUID and CAP_SETGID where the target is somebody else, CAP_SYS_CHROOT where its root is another. Without
// the last, absolute paths still work, and relative ones that do not leave their directory. The supervisor's
// process can then no longer be dumped or traced by its own user (PR_SET_DUMPABLE), as after any change of ids.
//
// An open may hang, on a FIFO or a file system that the target serves. OpenAt gives up when the target is gone, which
// it is also when Config.HandlerDeadline has answered for the handler.
func (t Target) OpenAt(dirfd int, path string, how unix.OpenHow) (int, error) {
	const op = "open for the target"
	fd := -1
	err := t.inPlace(op, dirfd, path, func(p *place) (err error) {
		fd, err = p.open(path, how)
		return err
	}, func() { _ = unix.Close(fd) })
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// ActAt has f do in the target's place what makes, removes or changes the directory entry that a path names: mkdir,
// mknod, symlink, unlink. f is given a descriptor of the directory in which the entry lies, and its name there, for
// mkdirat(2) and its like. dirfd and path are those of the target's call, copied.
//
//	err := t.ActAt(unix.AT_FDCWD, path, func(dir int, name string) error { return unix.Mkdirat(dir, name, mode) })
//
// The directory is found as [Target.OpenAt] finds one, and f runs on such a thread: with the target's fsuid and fsgid, groups,
// capabilities and umask, its root and its mounts. An errno that f returns is the target's to be told ([Errno]). The descriptor is
// ActAt's. As in OpenAt, the directory of a process in /proc is refused.
//
// f must do with system calls what it does, on its thread, and must not follow the name where it is a symbolic link
// (AT_SYMLINK_NOFOLLOW): one of /proc would be the supervisor's. What it did is done when the target is gone meanwhile, too.
func (t Target) ActAt(dirfd int, path string, f func(dir int, name string) error) error {
	const op = "act for the target"
	parent, name := splitLast(path)
	return t.inPlace(op, dirfd, path, func(p *place) error {
		dir, err := p.open(parent, unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY})
		if err != nil {
			return err
		}
		defer unix.Close(dir)
		return f(dir, name)
	}, func() {})
}

// splitLast splits a path into where its last entry lies and the entry's name, with the slashes after it: they say that it is
// a directory.
func splitLast(path string) (parent, name string) {
	end := len(strings.TrimRight(path, "/"))
	i := strings.LastIndexByte(path[:end], '/') + 1
	if end == 0 {
		return path, "." // the root directory
	}
	if i == 0 {
		return ".", path
	}
	return path[:i], path[i:]
}

// inPlace does something about a path on a thread that has entered the target's place. If it was given up, undo is called when
// it is done all the same.
func (t Target) inPlace(op string, dirfd int, path string, do func(*place) error, undo func()) error {
	if err := t.check(op); err != nil {
		return err
	}
	theirs := func(err error) error {
		return &Error{Op: op, TID: t.tid, Where: fmt.Sprintf("path %q", path), Err: err}
	}
	switch {
	case len(path) >= PathMax:
		return theirs(unix.ENAMETOOLONG)
	case strings.IndexByte(path, 0) >= 0:
		return theirs(unix.EINVAL) // no string of the target's
	case path == "":
		return theirs(unix.ENOENT)
	}
	p, err := t.place(op, int(int32(dirfd)), path[0] != '/')
	if err != nil {
		return err
	}
	job := startJob(unix.Gettid, func() error {
		defer p.close()
		osthread.Unblock(openSignal)
		if err := p.enter(); err != nil {
			return err
		}
		return do(p)
	})
	if err := t.await(job); err != nil {
		go func() { // it ends some time
			interrupt(job)
			if job.err == nil && job.panicked == nil {
				undo()
			}
		}()
		return err
	}
	err = job.wait()
	if gone := t.alive(); gone != nil {
		if err == nil {
			undo()
		}
		return gone
	}
	var s *stepError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &s):
		return &Error{Op: op, TID: t.tid, Where: fmt.Sprintf("path %q", path), Ours: true, Err: err, Needs: s.needs}
	case errors.Is(err, ErrMagicLink), errors.Is(err, ErrOpener):
		return &Error{Op: op, TID: t.tid, Where: fmt.Sprintf("path %q", path), Ours: true, Err: err,
			Needs: "refuse the call, or continue it if no decision hangs on the path"}
	}
	return theirs(err)
}

// await waits for the job, or until the target is gone.
func (t Target) await(j *job) error {
	select {
	case <-j.done:
		return nil
	default:
	}
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-j.done:
			return nil
		case <-look.C:
			if err := t.alive(); err != nil {
				return err
			}
		}
	}
}

// interrupt signals the job's thread until it has ended.
func interrupt(j *job) {
	tid := <-j.tid
	_ = osthread.AllowInterrupt(openSignal)
	for pause := time.Millisecond; ; pause = min(2*pause, time.Second) {
		select {
		case <-j.done:
			return
		case <-time.After(pause):
			_ = osthread.Interrupt(tid, openSignal)
		}
	}
}

// open opens the path on a thread that has entered the place.
func (p *place) open(path string, how unix.OpenHow) (int, error) {
	base := p.base
	how.Resolve |= unix.RESOLVE_NO_MAGICLINKS
	how.Flags |= unix.O_CLOEXEC | unix.O_NOCTTY // the terminal would be the supervisor's
	if how.Flags&unix.O_PATH != 0 {
		how.Flags &^= unix.O_NOCTTY // which O_PATH does not take
	}
	if !p.jailed {
		if path[0] == '/' {
			base = p.root
			how.Resolve |= unix.RESOLVE_IN_ROOT
		} else {
			how.Resolve |= unix.RESOLVE_BENEATH
		}
	}
	fd, err := p.openHow(base, path, how)
	switch err {
	case unix.ELOOP, unix.ENOENT:
		// Magic links are refused by the former. self is the latter in a pid namespace that we are not in.
		if p.jailed && throughProc(base, path) {
			return -1, ErrMagicLink
		}
	case unix.EXDEV:
		if !p.jailed && path[0] != '/' {
			return -1, step("chroot", unix.EPERM, "needs CAP_SYS_CHROOT, as the target's root directory is another one and the path leaves its directory")
		}
	case unix.ENOSYS:
		return -1, step("openat2", &notify.UnsupportedError{Feature: "openat2", Since: "5.6", Err: err}, "")
	case errOther:
		if p.jailed && throughProc(base, path) {
			return -1, ErrMagicLink
		}
		return -1, ErrOpener
	}
	return fd, err
}

// errOther is of a file that depends on who opens it.
var errOther = errors.New("opener")

// openHow finds the file first and opens it only if that does no harm. What it opens then is that file,
// whatever the target makes of the path meanwhile.
func (p *place) openHow(base int, path string, how unix.OpenHow) (int, error) {
	const links = 40 // as the kernel has it
	for range links {
		if how.Flags&(unix.O_CREAT|unix.O_EXCL) == unix.O_CREAT|unix.O_EXCL {
			return openat2(base, path, how)
		}
		found, err := openat2(base, path, unix.OpenHow{Resolve: how.Resolve,
			Flags: unix.O_PATH | unix.O_CLOEXEC | how.Flags&(unix.O_NOFOLLOW|unix.O_DIRECTORY)})
		if err == unix.ENOENT && how.Flags&unix.O_CREAT != 0 {
			fresh := how
			fresh.Flags |= unix.O_EXCL
			fd, err := openat2(base, path, fresh)
			if err != unix.EEXIST {
				return fd, err
			}
			// A link to nowhere, where the file is to be made; or somebody made one just now.
			to, next, err := danglingLink(base, path, how)
			if err != nil {
				return -1, err
			}
			if next != "" {
				defer unix.Close(to)
				base, path = to, next
			}
			continue
		}
		if err != nil {
			return -1, err
		}
		fd, err := p.reopen(found, how)
		if fd != found {
			_ = unix.Close(found)
		}
		return fd, err
	}
	return -1, unix.ELOOP
}

// reopen opens what is found, a descriptor by O_PATH, which may also be the result.
func (p *place) reopen(found int, how unix.OpenHow) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(found, &st); err != nil {
		return -1, err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(found, &fs); err != nil {
		return -1, err
	}
	if fs.Type == unix.PROC_SUPER_MAGIC && st.Mode&unix.S_IFMT != unix.S_IFLNK && !global(found, &st) {
		return -1, errOther
	}
	if how.Flags&unix.O_PATH != 0 {
		return found, nil
	}
	if (fs.Type == unix.CGROUP2_SUPER_MAGIC || fs.Type == unix.CGROUP_SUPER_MAGIC) && how.Flags&unix.O_ACCMODE != unix.O_RDONLY {
		return -1, errOther // who may be moved where is judged by the opener's cgroup namespace
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK: // O_NOFOLLOW
		return -1, unix.ELOOP
	case unix.S_IFDIR:
		if how.Flags&unix.O_CREAT != 0 {
			return -1, unix.EISDIR
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		if !p.mayHave(&st) {
			return -1, errOther
		}
	}
	dir, err := procFD()
	if err != nil {
		return -1, step("open what was found", err, "")
	}
	how.Flags &^= unix.O_CREAT | unix.O_NOFOLLOW
	how.Resolve = 0
	if !creates(how.Flags) {
		how.Flags &^= unix.O_EXCL // which means something with O_TMPFILE
		how.Mode = 0
	}
	return openat2(dir, fmt.Sprintf("thread-self/fd/%d", found), how)
}

func openat2(dir int, path string, how unix.OpenHow) (int, error) {
	tries := 0
	for {
		fd, err := unix.Openat2(dir, path, &how)
		switch {
		case err == nil:
			return fd, nil
		case err == unix.EAGAIN && tries < 64 && how.Resolve&(unix.RESOLVE_IN_ROOT|unix.RESOLVE_BENEATH) != 0:
			tries++ // somebody renames, and the kernel is not sure of ..
		default:
			return -1, err // EINTR too: somebody wants us to give up
		}
	}
}

// danglingLink returns where the symbolic link at path leads: a directory, which the caller closes, and a path from
// there. The path is "" if it is no link.
func danglingLink(base int, path string, how unix.OpenHow) (int, string, error) {
	if how.Flags&unix.O_NOFOLLOW != 0 || how.Resolve&^unix.RESOLVE_NO_MAGICLINKS != 0 {
		return -1, "", unix.ELOOP
	}
	link, err := openat2(base, path, unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: how.Resolve})
	if err == unix.ENOENT {
		return -1, "", nil // and gone again
	}
	if err != nil {
		return -1, "", err
	}
	defer unix.Close(link)
	text, is, err := readLink(link)
	if !is || err != nil {
		return -1, "", err
	}
	parent := "."
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		parent = path[:i+1]
	}
	dir, err := openat2(base, parent, unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: how.Resolve})
	return dir, text, err
}

// readLink reads the symbolic link that fd is, if it is one.
func readLink(fd int) (text string, is bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", false, err
	}
	buf := make([]byte, PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	return string(buf[:max(0, n)]), true, err
}

// throughProc reports whether the path leads through a symbolic link on a proc file system. It is for messages: the target
// may change what it walks through.
func throughProc(base int, path string) bool {
	at := -1 // ours to close, if not -1
	defer func() { _ = unix.Close(at) }()
	here := func() int {
		if at >= 0 {
			return at
		}
		return base
	}
	step := func(name string, flags int) bool {
		fd, err := unix.Openat(here(), name, unix.O_PATH|unix.O_CLOEXEC|flags, 0)
		if err != nil {
			return false
		}
		_ = unix.Close(at)
		at = fd
		return true
	}
	for links := 0; path != ""; {
		if path[0] == '/' {
			if !step("/", 0) {
				return false
			}
			path = strings.TrimLeft(path, "/")
			continue
		}
		name, rest, _ := strings.Cut(path, "/")
		fd, err := unix.Openat(here(), name, unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			return false
		}
		text, is, err := readLink(fd)
		if !is && err == nil {
			_ = unix.Close(at)
			at, path = fd, strings.TrimLeft(rest, "/")
			continue
		}
		var fs unix.Statfs_t
		_ = unix.Fstatfs(fd, &fs)
		_ = unix.Close(fd)
		if fs.Type == unix.PROC_SUPER_MAGIC {
			return true
		}
		if links++; err != nil || links > 40 {
			return false
		}
		path = text + "/" + rest
		if rest == "" {
			path = text
		}
	}
	return false
}

// global reports whether a file on a proc file system is the same for whoever opens it: its root directory, or one such as
// /proc/meminfo. Others are a process's, or a namespace's, and one of our own process would give the target our
// memory.
//
// The path of a descriptor is a hint only, since the target may have mounted anything anywhere. What
// counts is that our own /proc has a file of that name and inode number; these numbers are the same in all
// proc file systems, and their processes' files have others (PROC_DYNAMIC_FIRST, fs/proc/generic.c).
func global(fd int, st *unix.Stat_t) bool {
	const rootIno, firstIno = 1, 0xf0000000
	if st.Ino == rootIno {
		var self unix.Stat_t
		err := unix.Fstatat(fd, "self", &self, unix.AT_SYMLINK_NOFOLLOW) // a process's directory has no such
		return err == nil && self.Mode&unix.S_IFMT == unix.S_IFLNK
	}
	dir, err := procFD()
	if err != nil || st.Ino < firstIno {
		return false
	}
	buf := make([]byte, PathMax)
	n, err := unix.Readlinkat(dir, fmt.Sprintf("thread-self/fd/%d", fd), buf)
	if err != nil {
		return false
	}
	for rest := strings.TrimPrefix(string(buf[:n]), "/"); rest != ""; {
		first, after, _ := strings.Cut(rest, "/")
		var ours unix.Stat_t
		switch {
		case first == "self", first == "thread-self", first == "net", first == "mounts", first == "sys", first == "sysvipc", first[0] >= '0' && first[0] <= '9':
		case unix.Fstatat(dir, rest, &ours, unix.AT_SYMLINK_NOFOLLOW) == nil && ours.Ino == st.Ino && ours.Mode&unix.S_IFMT == st.Mode&unix.S_IFMT:
			return true
		}
		rest = after
	}
	return false
}

// mayHave reports whether the target may have a device. Its cgroup may forbid it, and the kernel asks the opener's: so
// it gets those that everybody has, and others if it is in the supervisor's cgroup. /dev/tty is the opener's terminal.
func (p *place) mayHave(st *unix.Stat_t) bool {
	major, minor := unix.Major(st.Rdev), unix.Minor(st.Rdev)
	if st.Mode&unix.S_IFMT == unix.S_IFCHR {
		const mem, tty, ptsFirst, ptsLast = 1, 5, 136, 143
		switch {
		case major == mem && (minor == 3 || minor == 5 || minor == 7 || minor == 8 || minor == 9): // null, zero, full, random, urandom
			return true
		case major >= ptsFirst && major <= ptsLast, major == tty && minor == 2: // of a devpts that the target sees
			return true
		case major == tty && minor == 0:
			return false
		}
	}
	theirs, err := p.t.file("read cgroup", "cgroup")
	if err != nil {
		return false
	}
	ours, err := readSelf("cgroup")
	return err == nil && ours == theirs
}

// readSelf reads a file of this process's directory in /proc.
func readSelf(name string) (string, error) {
	dir, err := procFD()
	if err != nil {
		return "", err
	}
	fd, err := unix.Openat(dir, "self/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return readAll(fd)
}
