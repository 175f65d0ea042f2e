package target

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Child is a function of this program for [Target.InUserNamespace]: a re-executed copy of the program runs it.
type Child struct{ name string }

// childEnv marks the copy. Its value is the function's name.
const childEnv = "UNKNOT_TARGET_CHILD"

// childSocket is the copy's descriptor to us.
const childSocket = 3

// Register makes a Child of f. Call it for a package variable, so that a copy of the program comes by before it does
// anything else:
//
//	var mountScratch = target.Register("mount scratch", func(arg []byte) ([]byte, error) { … })
//
// In the copy Register runs f and ends the process. Names must differ.
func Register(name string, f func(arg []byte) ([]byte, error)) *Child {
	if os.Getenv(childEnv) == name {
		if err := serveChild(f); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	return &Child{name}
}

// order is what the copy is told, with descriptors, before the argument.
type order struct {
	Flags []int // of the namespaces whose descriptors come, in order
	Dirs  bool  // two more, of its root and its working directory
}

// verdict comes back before the result.
type verdict struct {
	Err   string
	Errno int
}

// A childError is an error of f in the copy.
type childError struct{ verdict }

func (e *childError) Error() string { return e.Err }
func (e *childError) Unwrap() error { return errno(unix.Errno(e.Errno)) }

// InUserNamespace is InNamespaces with the target's user namespace, which only a process with one thread can enter: so
// a re-executed copy of this program does, enters the other namespaces that flags name (with or without
// CLONE_NEWUSER), and runs c's function with arg there. What that returns InUserNamespace returns; of its error the text and
// the errno.
//
// The copy is the target's user, with its groups, and has all capabilities in the namespace. It has none of our
// descriptors. Who is root in the namespace may trace it, so that its result is no more than the target's word.
//
// It takes CAP_SYS_ADMIN in the target's user namespace, as the user has who made it, and CAP_SETUID and CAP_SETGID in
// ours for another user. The program must be executable for the target's user; it is started through /proc/self/exe.
func (t Target) InUserNamespace(flags int, c *Child, arg []byte) ([]byte, error) {
	const op = "enter user namespace"
	if err := t.check(op); err != nil {
		return nil, err
	}
	if c == nil {
		return nil, &Error{Op: op, TID: t.tid, Ours: true, Err: unix.EINVAL, Needs: "a function to run there: see Register"}
	}
	n := &entrances{t: t, op: op, root: -1, cwd: -1}
	if rest := flags &^ unix.CLONE_NEWUSER; rest != 0 {
		var err error
		if n, err = t.namespaces(op, rest); err != nil {
			return nil, err
		}
	}
	defer n.close()
	user, err := t.open(op, "ns/user", unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(user)
	same, err := isOurs(user, "user")
	if err != nil {
		return nil, t.ours(op, "", err)
	}
	s, err := t.status(op)
	if err != nil {
		return nil, err
	}
	ids := s.ids
	for _, m := range []struct {
		file string
		id   []*int
	}{{"uid_map", []*int{&ids.EUID}}, {"gid_map", []*int{&ids.EGID}}} {
		text, err := t.file(op, m.file)
		if err != nil {
			return nil, err
		}
		for _, id := range m.id {
			if *id, err = inside(text, *id); err != nil {
				return nil, t.ours(op, m.file, err)
			}
		}
	}
	if err := t.alive(); err != nil {
		return nil, err
	}
	var result []byte
	err = startJob(unix.Gettid, func() (err error) {
		become := func(p *rawProgram) error { return enterUser(p, user, same, s.ids, ids) }
		result, err = runCopy(t, op, n, become, c, arg)
		return err
	}).wait()
	return result, err
}

// InProcess is InNamespaces in a process, and with CLONE_NEWPID that process is in the target's pid namespace, as none of
// the supervisor's threads can be: mounting a proc file system takes that. A re-executed copy of this program runs c's function with
// arg there. What that returns InProcess returns; of its error the text and the errno.
//
// The copy has the supervisor's ids, the capabilities that outlive an execve(2), and none of its descriptors; as in InNamespaces, the
// function decides alone. With CLONE_NEWPID the target's processes see it: one with CAP_SYS_PTRACE in the supervisor's user namespace, or with all of its
// capabilities, may trace it, and then has its rights. A container like that is none.
//
// It takes what InNamespaces takes. For a user namespace see [Target.InUserNamespace].
func (t Target) InProcess(flags int, c *Child, arg []byte) ([]byte, error) {
	const op = "enter namespaces with a process"
	if err := t.check(op); err != nil {
		return nil, err
	}
	if c == nil {
		return nil, &Error{Op: op, TID: t.tid, Ours: true, Err: unix.EINVAL, Needs: "a function to run there: see Register"}
	}
	n, err := t.namespaces(op, flags)
	if err != nil {
		return nil, err
	}
	defer n.close()
	if err := t.alive(); err != nil {
		return nil, err
	}
	var result []byte
	err = startJob(unix.Gettid, func() (err error) {
		if err := n.enterPID(); err != nil {
			return err
		}
		result, err = runCopy(t, op, n, func(*rawProgram) error { return nil }, c, arg)
		return err
	}).wait()
	return result, err
}

// inside is what an id of our user namespace is in that of the map.
func inside(text string, id int) (int, error) {
	for line := range strings.Lines(text) {
		var in, out, n int
		if _, err := fmt.Sscan(line, &in, &out, &n); err != nil {
			return 0, fmt.Errorf("line %q: %w", line, err)
		}
		if id >= out && id-out < n {
			return in + id - out, nil
		}
	}
	return 0, fmt.Errorf("%w: the target's id %d is not mapped", unix.EINVAL, id)
}

// runCopy starts the copy, tells it what to do and has its result. become adds what the copy is to do before it executes.
func runCopy(t Target, op string, n *entrances, become func(*rawProgram) error, c *Child, arg []byte) (result []byte, err error) {
	var fds []int // ours to close
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	fail := func(what string, err error) error {
		e := &Error{Op: op, TID: t.tid, Where: what, Ours: true, Err: err}
		switch {
		case what == "setns" && errors.Is(err, unix.EPERM):
			e.Needs = "needs CAP_SYS_ADMIN in the target's user namespace: be the user who made it, or privileged above it"
		case errors.Is(err, unix.EPERM):
			e.Needs = "needs CAP_SETUID and CAP_SETGID, as the target is another user"
		case what == "execveat" && errors.Is(err, unix.EACCES):
			e.Needs = "this program must be executable for the target's user"
		}
		return e
	}
	dir, err := procFD()
	if err != nil {
		return nil, fail("", err)
	}
	exe, err := unix.Openat(dir, "self/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fail("open this program", err)
	}
	fds = append(fds, exe)
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fail("open /dev/null", err)
	}
	fds = append(fds, null)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fail("socketpair", err)
	}
	fds = append(fds, pair[0])
	// Above those that it gets.
	theirEnd, err := unix.FcntlInt(uintptr(pair[1]), unix.F_DUPFD_CLOEXEC, childSocket+1)
	_ = unix.Close(pair[1])
	if err != nil {
		return nil, fail("fcntl", err)
	}
	var failures, says [2]int
	for _, p := range []*[2]int{&failures, &says} {
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			_ = unix.Close(theirEnd)
			return nil, fail("pipe2", err)
		}
		fds = append(fds, p[0])
	}
	closeTheirs := func() {
		for _, fd := range []int{theirEnd, failures[1], says[1]} {
			_ = unix.Close(fd)
		}
	}
	var p rawProgram
	if err := become(&p); err != nil {
		closeTheirs()
		return nil, fail("", err)
	}
	for i, fd := range []int{null, null, says[1], theirEnd} {
		p.add("dup3", unix.SYS_DUP3, uintptr(fd), uintptr(i), 0)
	}
	p.add("close_range", unix.SYS_CLOSE_RANGE, childSocket+1, 1<<32-1, unix.CLOSE_RANGE_CLOEXEC).optional = true // Linux 5.11
	p.signals()
	if err := p.exec(exe, os.Args[:1], append(withoutEnv(os.Environ(), childEnv), childEnv+"="+c.name)); err != nil {
		closeTheirs()
		return nil, fail("execveat", err)
	}
	pid, err := p.start(failures[1])
	closeTheirs()
	if err != nil {
		return nil, fail("fork", err)
	}
	defer func() {
		for {
			if _, werr := unix.Wait4(pid, nil, 0, nil); werr != unix.EINTR { // ECHILD: somebody waits for all
				return
			}
		}
	}()
	var why [2]int32
	if k, _ := readFD(failures[0], binary.Size(why)); len(k) == binary.Size(why) {
		_, _ = binary.Decode(k, binary.NativeEndian, &why)
		return nil, fail(p.calls[why[0]].what, unix.Errno(why[1]))
	}
	said := make(chan string, 1)
	go func() {
		b, _ := readFD(says[0], 1<<16)
		_, _ = readFD(says[0], 1<<62) // so that it does not wait for us
		said <- strings.TrimSpace(string(b))
	}()
	v, result, err := converse(pair[0], n, arg)
	if err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		return nil, fail("", fmt.Errorf("the copy of this program: %w: %s", err, <-said))
	}
	<-said
	if v.Err != "" {
		return nil, &childError{v}
	}
	return result, nil
}

// enterUser adds what makes a child the target's user in its user namespace, with all capabilities there, also after an
// exec. It is that user before it executes anything: who is root in there may trace it from then on.
func enterUser(p *rawProgram, user int, same bool, ours, theirs IDs) error {
	groups, err := unix.Getgroups()
	if err != nil {
		return err
	}
	if !sameSet(groups, ours.Groups) {
		p.setGroups(ours.Groups)
	}
	if !same { // EINVAL if it is
		p.add("setns", unix.SYS_SETNS, uintptr(user), unix.CLONE_NEWUSER)
	}
	p.add("prctl(PR_SET_KEEPCAPS)", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1)
	g, u := uintptr(theirs.EGID), uintptr(theirs.EUID)
	p.add("setresgid", unix.SYS_SETRESGID, g, g, g)
	p.add("setresuid", unix.SYS_SETRESUID, u, u, u)
	if same { // no more than the target has
		p.capset(0)
		return nil
	}
	last, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(last)))
	if err != nil {
		return err
	}
	p.capset(1<<(n+1) - 1)
	for i := range n + 1 {
		p.add("prctl(PR_CAP_AMBIENT)", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(i), 0, 0).optional = true
	}
	return nil
}

func withoutEnv(env []string, name string) (rest []string) {
	for _, e := range env {
		if !strings.HasPrefix(e, name+"=") {
			rest = append(rest, e)
		}
	}
	return rest
}

// readFD reads to the end, but no more than max bytes.
func readFD(fd, max int) ([]byte, error) { return io.ReadAll(io.LimitReader(rawFD(fd), int64(max))) }

// rawFD reads and writes a descriptor that package os knows nothing of.
type rawFD int

func (fd rawFD) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(fd), p)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, err
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

func (fd rawFD) Write(p []byte) (n int, err error) {
	for n < len(p) {
		// No SIGPIPE for a copy that has died.
		m, err := unix.SendmsgN(int(fd), p[n:], nil, nil, unix.MSG_NOSIGNAL)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return n, err
		default:
			n += m
		}
	}
	return n, nil
}

// converse is our side: the order with descriptors, the argument; then a verdict and the result.
func converse(fd int, n *entrances, arg []byte) (v verdict, result []byte, err error) {
	pass := append([]int(nil), n.fds...)
	if n.root >= 0 {
		pass = append(pass, n.root, n.cwd)
	}
	head, err := json.Marshal(order{n.flags, n.root >= 0})
	if err != nil {
		return v, nil, err
	}
	var oob []byte
	if len(pass) > 0 {
		oob = unix.UnixRights(pass...)
	}
	// One byte with the descriptors, so that they are with the first that is read.
	if _, err := unix.SendmsgN(fd, []byte{'O'}, oob, nil, unix.MSG_NOSIGNAL); err != nil {
		return v, nil, err
	}
	for _, part := range [][]byte{head, arg} {
		if err := writePart(rawFD(fd), part); err != nil {
			return v, nil, err
		}
	}
	head, err = readPart(rawFD(fd))
	if err == nil {
		err = json.Unmarshal(head, &v)
	}
	if err == nil {
		result, err = readPart(rawFD(fd))
	}
	return v, result, err
}

// maxPart bounds what the copy, which may be the target's by now, can have us hold.
const maxPart = 64 << 20

func writePart(w io.Writer, p []byte) error {
	if len(p) > maxPart {
		return fmt.Errorf("%d bytes, %d at most", len(p), maxPart)
	}
	_, err := w.Write(append(binary.NativeEndian.AppendUint32(nil, uint32(len(p))), p...))
	return err
}

func readPart(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.NativeEndian.Uint32(size[:])
	if n > maxPart {
		return nil, fmt.Errorf("%d bytes, %d at most", n, maxPart)
	}
	p, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err == nil && len(p) < int(n) {
		err = io.ErrUnexpectedEOF
	}
	return p, err
}

// serveChild is the copy's side.
func serveChild(f func([]byte) ([]byte, error)) error {
	_ = os.Unsetenv(childEnv)
	runtime.LockOSThread() // this thread enters
	unix.CloseOnExec(childSocket)
	var first [1]byte
	oob := make([]byte, unix.CmsgSpace(4*(len(namespaces)+2)))
	_, oobn, _, _, err := unix.Recvmsg(childSocket, first[:], oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return fmt.Errorf("hear what to do: %w", err)
	}
	n := &entrances{op: "enter namespaces", root: -1, cwd: -1}
	if oobn > 0 {
		msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return err
		}
		if n.fds, err = unix.ParseUnixRights(&msgs[0]); err != nil {
			return err
		}
	}
	head, err := readPart(rawFD(childSocket))
	if err != nil {
		return err
	}
	var o order
	if err := json.Unmarshal(head, &o); err != nil {
		return err
	}
	arg, err := readPart(rawFD(childSocket))
	if err != nil {
		return err
	}
	n.flags = o.Flags
	if o.Dirs {
		k := len(n.fds) - 2
		n.root, n.cwd, n.fds = n.fds[k], n.fds[k+1], n.fds[:k]
	}
	// /proc is our parent's before we enter.
	if _, err := openProc(false); err != nil {
		return err
	}
	var result []byte
	if err = n.enter(); err == nil {
		n.close()
		result, err = f(arg)
	}
	var v verdict
	if err != nil {
		v.Err = err.Error()
		var e syscall.Errno
		if errors.As(err, &e) {
			v.Errno = int(e)
		}
		if v.Err == "" {
			v.Err = "an error without a text"
		}
	}
	if head, err = json.Marshal(v); err != nil {
		return err
	}
	if err := writePart(rawFD(childSocket), head); err != nil {
		return err
	}
	return writePart(rawFD(childSocket), result)
}
