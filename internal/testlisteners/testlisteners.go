// Package testlisteners is for tests that need many listeners: a child process each of
// whose threads installs a filter of its own, and so has a listener of its own.
package testlisteners

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/cbpf"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

const env = "UNKNOT_TEST_LISTENERS_CHILD"

// A Plan is what the child does.
type Plan struct {
	N      int           // listeners in all
	AtOnce int           // threads at once, at most; 0: all
	Every  time.Duration // between the beginnings of two; 0: as fast as may be
	Calls  int           // of getppid(2), each of which has to be answered, by each thread
	Stay   bool          // threads stay until Close; else they end after their calls
	Bare   bool          // install a filter that traps nothing: the same threads and calls without listeners
}

// Main is for TestMain: in a child it does not return.
func Main() {
	s := os.Getenv(env)
	if s == "" {
		return
	}
	var p Plan
	err := json.Unmarshal([]byte(s), &p)
	if err == nil {
		err = p.do()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// do runs the threads. What is answered with another value than the kernel's own is an error.
func (p Plan) do() error {
	f := os.NewFile(3, "socket")
	c, err := net.FileConn(f)
	if err != nil {
		return err
	}
	conn := c.(*net.UnixConn)
	prog, err := notify.TrapProgram(unix.SYS_GETPPID)
	if err != nil {
		return err
	}
	closed := make(chan struct{})
	go func() {
		var b [1]byte
		_, _ = conn.Read(b[:])
		close(closed)
	}()
	atOnce := p.AtOnce
	if atOnce == 0 {
		atOnce = p.N
	}
	places, ended, ppid := make(chan struct{}, atOnce), make(chan error, p.N), unix.Getppid()
	first := time.Now()
	for i := range p.N {
		if p.Every > 0 {
			time.Sleep(time.Until(first.Add(time.Duration(i) * p.Every)))
		}
		select {
		case places <- struct{}{}:
		case <-closed:
			return nil
		}
		var begin func()
		begin = func() {
			runtime.LockOSThread() // for good: the thread ends, and its listener hangs up
			if unix.Gettid() == unix.Getpid() {
				go begin()
				select {} // the main thread would not end
			}
			ended <- p.thread(conn, prog, ppid)
			if p.Stay {
				<-closed
			}
			<-places
		}
		go begin()
	}
	for range p.N {
		if err := <-ended; err != nil {
			return err
		}
	}
	if _, err := conn.Write([]byte{'.'}); err != nil {
		return err
	}
	<-closed
	return nil
}

// thread is one of the threads, as long as it lives.
func (p Plan) thread(conn *net.UnixConn, prog []unix.SockFilter, ppid int) error {
	if p.Bare {
		if err := testchild.Filter(allowing(prog), 0); err != nil {
			return err
		}
	} else {
		l, err := notify.Install(prog, 0)
		if err != nil {
			return err
		}
		err = notify.SendListener(conn, l)
		if err := errors.Join(err, l.Close()); err != nil {
			return err
		}
	}
	for range p.Calls {
		if got, _, errno := unix.Syscall(unix.SYS_GETPPID, 0, 0, 0); errno != 0 || int(got) != ppid {
			return fmt.Errorf("getppid returned %d, %v; want %d", got, errno, ppid)
		}
	}
	return nil
}

// allowing is a filter as long as prog that allows every call.
func allowing(prog []unix.SockFilter) []unix.SockFilter {
	prog = slices.Clone(prog)
	for i := range prog {
		if prog[i].Code == cbpf.Return {
			prog[i].K = unix.SECCOMP_RET_ALLOW
		}
	}
	return prog
}

// A Child is a running child.
type Child struct {
	cmd  *exec.Cmd
	conn *net.UnixConn
	come int // listeners that will
}

// Start starts a child of the test binary, which dies after the deadline at the latest.
func Start(p Plan, deadline time.Duration) (*Child, error) {
	s, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	c := &Child{come: p.N}
	if p.Bare {
		c.come = 0
	}
	if c.cmd, c.conn, err = testchild.Spawn(env + "=" + string(s)); err != nil {
		return nil, err
	}
	time.AfterFunc(deadline, func() { _ = c.cmd.Process.Kill() })
	return c, nil
}

// Listeners are the listeners, one after the other as they come. The sequence ends when all have come and their
// calls have returned, or with an error.
func (c *Child) Listeners() iter.Seq2[*notify.Listener, error] {
	return func(yield func(*notify.Listener, error) bool) {
		for range c.come {
			l, err := notify.RecvListener(c.conn)
			if !yield(l, err) || err != nil {
				return
			}
		}
		var b [1]byte
		if n, err := c.conn.Read(b[:]); n == 0 {
			yield(nil, fmt.Errorf("the child has ended before its calls had: %w", cmp.Or(err, io.ErrUnexpectedEOF)))
		}
	}
}

// Close ends the child, and returns how it ended.
func (c *Child) Close() error {
	_ = c.conn.Close()
	return c.cmd.Wait()
}
