package rules

import (
	"errors"
	"slices"
	"syscall"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/target"
	"golang.org/x/sys/unix"
)

// answer answers a call that a rule matches, and writes it down if the rule says so.
func (r *Router) answer(q engine.Request, p *Policy, l *look, by *rule, first bool) {
	var err error
	said := by.kind.String()
	if by.log {
		if err := l.all(); errors.Is(err, engine.ErrConfined) && first {
			r.away.Handle(q)
			return
		}
	}
	switch by.kind {
	case continues:
		err = q.Continue()
	case fails:
		said, err = unix.ErrnoName(by.errno), q.Fail(by.errno)
	case opens, injects:
		var errno syscall.Errno
		if errno, err = r.open(q, l, by); errors.Is(err, engine.ErrConfined) && first {
			r.away.Handle(q)
			return
		}
		if errno != 0 {
			said, err = unix.ErrnoName(errno), q.Fail(errno)
		}
	}
	by.hits.n.Add(1)
	if by.log {
		r.audit.record(p, l, by, said, err)
	}
}

// open opens a file in the target's place and hands it over. If that fails the call shall fail with errno, unless
// it has its answer already, which err says.
func (r *Router) open(q engine.Request, l *look, by *rule) (errno syscall.Errno, err error) {
	dir, name := unix.AT_FDCWD, by.file
	how, err := l.how()
	if err != nil {
		return r.errno(err)
	}
	const beneath = unix.RESOLVE_IN_ROOT | unix.RESOLVE_BENEATH
	i := l.path()
	switch {
	case by.kind == injects:
		how.Resolve &^= beneath // the policy's file is not below a directory of the target's
	case slices.ContainsFunc(by.where, func(c condition) bool { return c.class == byPath }):
		// What was compared is opened. The target's working directory and descriptors may be others by now.
		if how.Resolve&beneath != 0 {
			return unix.ENOSYS, nil // for which callers of openat2 have another way
		}
		if name, err = l.absolute(i); err != nil {
			return r.errno(err)
		}
	default:
		a := l.text(i)
		if a.err != nil {
			return r.errno(a.err)
		}
		if name = a.text; l.call.Params[0].Name == "dirfd" {
			dir = l.call.At(0).Int()
		}
	}
	fd, err := l.t.OpenAt(dir, name, how)
	if err != nil {
		return r.errno(err)
	}
	defer unix.Close(fd)
	if err := q.SendFD(fd, how.Flags&unix.O_CLOEXEC != 0); err != nil {
		return r.errno(err)
	}
	return 0, nil
}

// path is which argument the path is.
func (l *look) path() int {
	for i := range l.call.Params {
		if l.call.Params[i].Name == "path" {
			return i
		}
	}
	return 0
}

// errno is what a call shall fail with after err, or that it has its answer or needs none.
func (r *Router) errno(err error) (syscall.Errno, error) {
	if errors.Is(err, engine.ErrGone) || errors.Is(err, engine.ErrConfined) || errors.Is(err, engine.ErrAnswered) || errors.Is(err, engine.ErrSpent) {
		return 0, err
	}
	var of *target.Error
	var errno syscall.Errno
	switch {
	case errors.As(err, &of) && of.Ours:
		r.lacks(err)
		return unix.EACCES, nil
	case errors.As(err, &errno) && errno > 0 && errno < 4096: // EMFILE of the target
		return errno, nil
	}
	return unix.EACCES, nil
}

// refuse has a call fail of which something could not be read.
func (r *Router) refuse(q engine.Request, p *Policy, l *look, by *rule, err error) {
	errno := target.Errno(err, 0)
	if errno == 0 {
		r.lacks(err)
		if errno = by.errno; errno == 0 {
			errno = unix.EACCES
		}
	}
	by.hits.n.Add(1)
	if by.log {
		l.stuck = err
		_ = l.all() // on a confined thread it would have been elsewhere by now
	}
	err = q.Fail(errno)
	if by.log {
		r.audit.record(p, l, by, unix.ErrnoName(errno), err)
	}
}

// lacks counts and tells that the supervisor could not read or open for a target what a rule asks for.
func (r *Router) lacks(err error) {
	r.unread.Add(1)
	if r.log != nil && r.said.may() {
		r.log.Warn("a call was refused because its target cannot be read", "err", err, "times", r.unread.Load())
	}
}
