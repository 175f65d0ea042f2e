// Package testchild lets a test run part of itself in a child process: the test
// binary, executed again. What a filter does to a process cannot be undone, and
// a call without an answer hangs, so tests that filter, signal or kill do it to
// a child, which is killed when its deadline or its test is over.
//
// The two ends talk over a Unix socket: lines of text, and descriptors.
package testchild

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const env = "UNKNOT_TEST_CHILD"

// deadline is how long a child may live; a child that needs it is a failed test.
const deadline = 3 * time.Minute

// Roles are the children of a test binary by name. A role returns when it is
// done; its error is printed and ends the child with status 1.
type Roles map[string]func(c *Conn, args []string) error

// Main is for TestMain: it runs a role in a child, else the tests.
func Main(m *testing.M, roles Roles) {
	Init(roles)
	os.Exit(m.Run())
}

// Init is for a TestMain that has more to do than Main: in a child it runs a role and does not return.
func Init(roles Roles) {
	name := os.Getenv(env)
	if name == "" {
		return
	}
	os.Unsetenv(env)
	if err := runRole(roles[name], name); err != nil {
		fmt.Fprintf(os.Stderr, "child %s: %v\n", name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runRole(role func(*Conn, []string) error, name string) error {
	if role == nil {
		return fmt.Errorf("no role %q", name)
	}
	c, err := newConn(3)
	if err != nil {
		return err
	}
	return role(c, os.Args[1:])
}

// A Conn is one end of the socket between a test and its child.
type Conn struct {
	*net.UnixConn
	r *bufio.Reader
}

func newConn(fd int) (*Conn, error) {
	f := os.NewFile(uintptr(fd), "socket to the other end")
	defer f.Close()
	n, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u := n.(*net.UnixConn)
	return &Conn{u, bufio.NewReader(u)}, nil
}

// Say sends one line.
func (c *Conn) Say(format string, args ...any) error {
	_, err := fmt.Fprintf(c, format+"\n", args...)
	return err
}

// Hear returns the next line.
func (c *Conn) Hear() (string, error) {
	s, err := c.r.ReadString('\n')
	return strings.TrimSuffix(s, "\n"), err
}

// Exec has this process go on as another role, by execve(2): its filters stay, and so does the socket. It returns when
// that fails.
func (c *Conn) Exec(role string, args ...string) error {
	f, err := c.File()
	if err != nil {
		return err
	}
	defer f.Close()
	if fd := int(f.Fd()); fd != 3 {
		err = unix.Dup3(fd, 3, 0)
	} else {
		_, err = unix.FcntlInt(3, unix.F_SETFD, 0)
	}
	if err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", append(os.Args[:1:1], args...), append(os.Environ(), env+"="+role))
}

// A Child is a running child, seen from its test.
type Child struct {
	*Conn
	Cmd    *exec.Cmd
	t      testing.TB
	stderr *log
}

// Start runs the role in a child that is killed at its deadline or when the
// test ends, whichever comes first. Its standard error goes to the test's log.
//
// A target that its own runtime signals (SIGURG) notifies again under a new id
// whenever that happens; in these children signals come from tests only.
func Start(t testing.TB, role string, args ...string) *Child {
	t.Helper()
	return StartWith(t, Options{Env: []string{"GODEBUG=asyncpreemptoff=1"}}, role, args...)
}

// Options of [StartWith].
type Options struct {
	Env      []string      // on top of the test's own
	Deadline time.Duration // 0: three minutes
	Quiet    bool          // its standard error is for Stderr only
	Sys      *syscall.SysProcAttr
}

// StartWith is Start with options.
func StartWith(t testing.TB, o Options, role string, args ...string) *Child {
	t.Helper()
	if o.Deadline == 0 {
		o.Deadline = deadline
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "child's end")
	defer theirs.Close()
	conn, err := newConn(pair[0])
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(o.Deadline))
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(append(os.Environ(), env+"="+role, "GORACE=atexit_sleep_ms=0"), o.Env...)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = o.Sys
	stderr := &log{t: t, role: role}
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(o.Deadline, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		timer.Stop()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = conn.Close()
		if !o.Quiet {
			stderr.flush()
		}
	})
	return &Child{conn, cmd, t, stderr}
}

// Spawn starts the test binary again with one more variable, "NAME=VALUE", in its environment, for a child that belongs
// to no test. Descriptor 3 of the child is the other end of the socket (SOCK_SEQPACKET). The caller ends both.
func Spawn(variable string) (*exec.Cmd, *net.UnixConn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "child"), os.NewFile(uintptr(fds[1]), "parent")
	defer func() { _, _ = ours.Close(), theirs.Close() }()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), variable)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return cmd, conn.(*net.UnixConn), nil
}

// Wait waits for the child to end and returns how it did.
func (c *Child) Wait() syscall.WaitStatus {
	_ = c.Cmd.Wait() // says the same as the state
	return c.Cmd.ProcessState.Sys().(syscall.WaitStatus)
}

// Stderr is what the child wrote to its standard error. Call it after Wait.
func (c *Child) Stderr() string { return c.stderr.buf.String() }

// Expect fails the test unless the next line from the child is the one given.
func (c *Child) Expect(format string, args ...any) {
	c.t.Helper()
	want := fmt.Sprintf(format, args...)
	if got := c.MustHear(); got != want {
		c.t.Errorf("child said %q, want %q", got, want)
	}
}

// MustHear is Hear for a child that has something to say.
func (c *Child) MustHear() string {
	c.t.Helper()
	s, err := c.Hear()
	if err != nil {
		c.t.Fatalf("hear child: %v (said %q)", err, s)
	}
	return s
}

// MustSay is Say for a child that listens.
func (c *Child) MustSay(format string, args ...any) {
	c.t.Helper()
	if err := c.Say(format, args...); err != nil {
		c.t.Fatalf("tell child: %v", err)
	}
}

// log collects a child's standard error; a test may only log while it runs, so
// it is shown at the end.
type log struct {
	t    testing.TB
	role string
	buf  strings.Builder
}

func (l *log) Write(p []byte) (int, error) { return l.buf.Write(p) }

func (l *log) flush() {
	if l.buf.Len() > 0 {
		l.t.Logf("child %s: %s", l.role, l.buf.String())
	}
}

// OpenFDs is how many descriptors this process has.
func OpenFDs(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
