package target

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// PIDFD returns a descriptor of the target's process (pidfd_open(2), Linux 5.3), close-on-exec, which the caller
// closes. Unlike an id it remains that process's.
func (t Target) PIDFD() (int, error) {
	const op = "open pidfd"
	s, err := t.status(op)
	if err != nil {
		return -1, err
	}
	return t.pidfd(op, s.tgid, 0)
}

func (t Target) pidfd(op string, id, flags int) (int, error) {
	fd, err := unix.PidfdOpen(id, flags)
	if err == unix.ENOSYS {
		err = &notify.UnsupportedError{Feature: "pidfd_open", Since: "5.3", Err: err}
	}
	if err != nil {
		return -1, t.fail(op, "", err)
	}
	if err := t.alive(); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// pidfdThread is PIDFD_THREAD (Linux 6.9), which only newer versions of x/sys have.
const pidfdThread = unix.O_EXCL

// GetFD returns a copy of the target's descriptor number n (pidfd_getfd(2), Linux 5.6), close-on-exec, which the
// caller closes. It is the same open file: offset and flags as O_NONBLOCK are shared, so do not make an os.File
// of a socket or pipe with it. The error for a number that is not open wraps unix.EBADF.
func (t Target) GetFD(n int) (int, error) {
	const op = "get descriptor"
	where := "descriptor " + strconv.Itoa(n)
	s, err := t.status(op)
	if err != nil {
		return -1, err
	}
	// A thread may have a file table of its own, so it is the thread's that is wanted, where the kernel has that (6.9).
	pidfd, err := t.pidfd(op, t.tid, pidfdThread)
	if errors.Is(err, unix.EINVAL) {
		if err := t.leaderHasFiles(op, s.tgid); err != nil {
			return -1, err
		}
		pidfd, err = t.pidfd(op, s.tgid, 0)
	}
	if err != nil {
		return -1, err
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, n, 0)
	if gone := t.alive(); gone != nil {
		if err == nil {
			_ = unix.Close(fd)
		}
		return -1, gone
	}
	switch err {
	case nil:
		return fd, nil
	case unix.EBADF:
		return -1, &Error{Op: op, TID: t.tid, Where: where, Err: err}
	case unix.ENOSYS:
		err = &notify.UnsupportedError{Feature: "pidfd_getfd", Since: "5.6", Err: err}
	}
	return -1, t.ours(op, where, err)
}

// leaderHasFiles makes sure that the target's thread has the file table of its process's first thread.
func (t Target) leaderHasFiles(op string, tgid int) error {
	if t.tid == tgid {
		return nil
	}
	switch differ, err := kcmpFiles(t.tid, tgid); {
	case err != nil:
		return t.fail(op, "", fmt.Errorf("compare file tables (kcmp): %w", err))
	case differ:
		return t.ours(op, "", &notify.UnsupportedError{Feature: "a descriptor of a thread that has a file table of its own", Since: "6.9", Err: unix.EINVAL})
	}
	return nil
}

// kcmpFiles reports whether two threads have different file tables (kcmp(2), KCMP_FILES).
func kcmpFiles(a, b int) (differ bool, err error) {
	const files = 2
	r, _, e := unix.Syscall6(unix.SYS_KCMP, uintptr(a), uintptr(b), files, 0, 0, 0)
	if e != 0 {
		return false, e
	}
	return r != 0, nil
}
