package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hung is how long what must happen may take; only a failure takes as long.
const hung = 3 * time.Minute

// newPTY returns the two ends of a new terminal.
func newPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals: %v", err)
	}
	t.Cleanup(func() { _ = master.Close() })
	raw, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	err = raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals: %v", err)
	}
	return master, slave
}

// A terminal has a program as the leader of its session.
type terminal struct {
	t      *testing.T
	cmd    *exec.Cmd
	master *os.File
	ended  chan struct{}

	mu   sync.Mutex
	more *sync.Cond
	text bytes.Buffer
	over bool // no more text will come
}

// onTerminal runs a program on a terminal of its own. Whatever is left of its
// session is killed when the test ends, or when the program hangs.
func onTerminal(t *testing.T, c *exec.Cmd) *terminal {
	t.Helper()
	return onSizedTerminal(t, c, 0, 0)
}

// onSizedTerminal is onTerminal with a size, where 0 is unknown.
func onSizedTerminal(t *testing.T, c *exec.Cmd, rows, columns uint16) *terminal {
	t.Helper()
	master, slave := newPTY(t)
	defer slave.Close()
	if err := unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		t.Fatal(err)
	}
	c.Stdin, c.Stdout, c.Stderr = slave, slave, slave
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	term := &terminal{t: t, cmd: c, master: master, ended: make(chan struct{})}
	term.more = sync.NewCond(&term.mu)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	sid := c.Process.Pid
	timer := time.AfterFunc(hung, func() { killSession(sid) })
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			term.mu.Lock()
			term.text.Write(b[:n])
			term.over = err != nil
			term.more.Broadcast()
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	go func() {
		_ = c.Wait() // says the same as the state
		close(term.ended)
	}()
	t.Cleanup(func() {
		killSession(sid)
		<-term.ended
		timer.Stop()
	})
	return term
}

// killSession kills every process of a session.
func killSession(sid int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range stats {
		var pid, parent, group, session int
		b, _ := os.ReadFile(stat)
		_, rest, _ := strings.Cut(string(b), ") ")
		var state string
		if n, _ := fmt.Sscan(rest, &state, &parent, &group, &session); n == 4 && session == sid {
			_, _ = fmt.Sscan(string(b), &pid)
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// expect waits until the terminal shows s, after what earlier calls waited for.
func (term *terminal) expect(s string) {
	term.t.Helper()
	term.until(s)
}

// until is expect, and returns what the terminal showed before.
func (term *terminal) until(s string) (before string) {
	term.t.Helper()
	term.mu.Lock()
	defer term.mu.Unlock()
	for {
		if i := bytes.Index(term.text.Bytes(), []byte(s)); i >= 0 {
			before = string(term.text.Next(i + len(s))[:i])
			return before
		}
		if term.over {
			term.t.Fatalf("the terminal shows no %q but %q", s, term.text.String())
		}
		term.more.Wait()
	}
}

// typed types, also control characters.
func (term *terminal) typed(s string) {
	term.t.Helper()
	if _, err := term.master.WriteString(s); err != nil {
		term.t.Fatal(err)
	}
}

// wait waits for the program's end and returns what the terminal still showed.
func (term *terminal) wait() (syscall.WaitStatus, string) {
	term.t.Helper()
	<-term.ended
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.cmd.ProcessState.Sys().(syscall.WaitStatus), term.text.String()
}

// inGroup runs c as the leader of a session, and so of a process group, without a
// terminal. All of its session is killed when the test ends or c hangs.
func inGroup(t *testing.T, c *exec.Cmd) {
	t.Helper()
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	sid := c.Process.Pid
	timer := time.AfterFunc(hung, func() { killSession(sid) })
	t.Cleanup(func() {
		timer.Stop()
		killSession(sid)
		_ = c.Wait()
	})
}

// waited is how a program ended.
func waited(t *testing.T, c *exec.Cmd) syscall.WaitStatus {
	t.Helper()
	var exit *exec.ExitError
	if err := c.Wait(); err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		t.Fatal(err)
	}
	return c.ProcessState.Sys().(syscall.WaitStatus)
}

// ended writes a wait status as tests name it.
func ended(ws syscall.WaitStatus) string {
	if ws.Signaled() {
		return unix.SignalName(ws.Signal())
	}
	return fmt.Sprintf("exit %d", ws.ExitStatus())
}

// shellOnTerminal is an interactive bash in which $U is unknot.
func shellOnTerminal(t *testing.T) *terminal {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash in PATH")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(bash, "--norc", "--noprofile", "-i")
	c.Env = append(os.Environ(), "PS1=$ ", "U="+self, unknotEnv+"=1", "GORACE=atexit_sleep_ms=0", "HISTFILE=", "TERM=dumb")
	term := onTerminal(t, c)
	term.expect("$ ")
	return term
}
