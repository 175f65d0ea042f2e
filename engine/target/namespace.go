package target

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// namespaces by the flag of setns(2), in the order in which they are entered.
var namespaces = []struct {
	flag int
	name string // in /proc/TID/ns
}{
	{unix.CLONE_NEWUTS, "uts"}, {unix.CLONE_NEWIPC, "ipc"}, {unix.CLONE_NEWNET, "net"}, {unix.CLONE_NEWCGROUP, "cgroup"},
	{unix.CLONE_NEWPID, "pid"}, {unix.CLONE_NEWNS, "mnt"},
}

// InNamespaces runs f in the target's namespaces that flags name (CLONE_NEWNET and so on, setns(2)), on a thread that
// has only that to do and ends with it. With CLONE_NEWNS the thread also has the target's root and working
// directory. It has the supervisor's ids and capabilities: f decides alone, and must not use a path of the
// target's as one of its own; see OpenAt. With CLONE_NEWPID only children that f starts are in the namespace.
//
// f must do what it does on its thread: no goroutines, and no package net, which uses some; system calls, os
// and exec.Command are fine. A panic of f is one of InNamespaces, and f's error its error, as it is. Descriptors
// that f opens are the process's.
//
// To enter takes CAP_SYS_ADMIN in the supervisor's and in the target's user namespace, and CAP_SYS_CHROOT for mounts, unless
// the namespace is the supervisor's own. A user namespace can only be entered by a process with one
// thread: see [Target.InUserNamespace]. So can a time namespace, which is refused.
//
// InNamespaces waits for f, however long it takes.
func (t Target) InNamespaces(flags int, f func() error) error {
	const op = "enter namespaces"
	if err := t.check(op); err != nil {
		return err
	}
	n, err := t.namespaces(op, flags)
	if err != nil {
		return err
	}
	defer n.close()
	if err := t.alive(); err != nil {
		return err
	}
	return startJob(unix.Gettid, func() error {
		if err := n.enter(); err != nil {
			return err
		}
		return f()
	}).wait()
}

// entrances are descriptors of the target's namespaces, and with mounts of its directories.
type entrances struct {
	t         Target
	op        string
	fds       []int
	flags     []int
	root, cwd int
}

// namespaces opens those of t that flags name and that are not ours. The caller asks whether t is alive then, and
// closes them.
func (t Target) namespaces(op string, flags int) (_ *entrances, err error) {
	rest := flags
	for _, ns := range namespaces {
		rest &^= ns.flag
	}
	switch {
	case rest&unix.CLONE_NEWUSER != 0:
		err = t.ours(op, "user namespace", unix.EINVAL)
		err.(*Error).Needs = "a process with threads cannot: use InUserNamespace"
	case rest&unix.CLONE_NEWTIME != 0:
		err = t.ours(op, "time namespace", unix.EINVAL)
		err.(*Error).Needs = "a process with threads cannot: read /proc/TID/timens_offsets instead"
	case rest != 0 || flags == 0:
		err = t.ours(op, fmt.Sprintf("flags %#x", flags), unix.EINVAL)
		err.(*Error).Needs = "flags are CLONE_NEWNET and others of setns(2), one at least"
	}
	if err != nil {
		return nil, err
	}
	n := &entrances{t: t, op: op, root: -1, cwd: -1}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	for _, ns := range namespaces {
		if flags&ns.flag == 0 {
			continue
		}
		fd, err := t.open(op, "ns/"+ns.name, unix.O_RDONLY)
		if err != nil {
			return nil, err
		}
		n.fds, n.flags = append(n.fds, fd), append(n.flags, ns.flag)
	}
	if flags&unix.CLONE_NEWNS != 0 {
		if n.root, err = t.open(op, "root", unix.O_PATH); err != nil {
			return nil, err
		}
		if n.cwd, err = t.open(op, "cwd", unix.O_PATH); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (n *entrances) close() {
	for _, fd := range append(n.fds, n.root, n.cwd) {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

func (n *entrances) fail(what string, err error) error {
	e := &Error{Op: n.op, TID: n.t.tid, Where: what, Ours: true, Err: err}
	if err == unix.EPERM {
		e.Needs = "needs CAP_SYS_ADMIN in the target's user namespace and in the supervisor's, and CAP_SYS_CHROOT for mounts"
	}
	return e
}

// setns has the calling thread enter the one at that index.
func (n *entrances) setns(i, flag int) error {
	name := nameOf(flag)
	if same, err := isOurs(n.fds[i], name); err != nil {
		return n.fail("namespace "+name, err)
	} else if same {
		return nil
	}
	if err := unix.Setns(n.fds[i], flag); err != nil {
		return n.fail("setns, namespace "+name, err)
	}
	return nil
}

// enterPID enters the pid namespace alone, if it is one of them, for the calling thread's children, and takes it out.
func (n *entrances) enterPID() error {
	i := slices.Index(n.flags, unix.CLONE_NEWPID)
	if i < 0 {
		return nil
	}
	err := n.setns(i, unix.CLONE_NEWPID)
	_ = unix.Close(n.fds[i])
	n.fds, n.flags = slices.Delete(n.fds, i, i+1), slices.Delete(n.flags, i, i+1)
	return err
}

// enter has the calling thread enter them for good.
func (n *entrances) enter() error {
	fail := n.fail
	if n.root >= 0 {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fail("unshare(CLONE_FS)", err)
		}
	}
	for i, flag := range n.flags {
		if err := n.setns(i, flag); err != nil {
			return err
		}
	}
	if n.root >= 0 {
		within, err := otherRoot(n.root)
		if err != nil {
			return fail("compare root directories", err)
		}
		if within {
			if err := unix.Fchdir(n.root); err != nil {
				return fail("enter the target's root directory", err)
			}
			if err := unix.Chroot("."); err != nil {
				return fail("chroot", err)
			}
		}
		if err := unix.Fchdir(n.cwd); err != nil {
			return fail("enter the target's working directory", err)
		}
	}
	return nil
}

func nameOf(flag int) string {
	for _, ns := range namespaces {
		if ns.flag == flag {
			return ns.name
		}
	}
	return "user"
}
