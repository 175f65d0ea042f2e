package record

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/unknot/unknot/bench/trace"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

// execEnv makes the test binary the target of TestSleptAfterExec: "before" its exec, or
// "after" it.
const execEnv = "RECORD_TEST_EXEC"

func init() {
	if os.Getenv(execEnv) != "" {
		runtime.LockOSThread() // the first thread is main's
	}
}

// beExec makes calls on the first thread. Another one, which has slept often, executes
// the program again, and so takes the first one's number, and calls.
func beExec(step string) error {
	call := func() { _, _, _ = unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0) }
	if step == "after" {
		call()
		return nil
	}
	c, err := net.FileConn(os.NewFile(3, "supervisor"))
	if err != nil {
		return err
	}
	prog, err := notify.TrapProgram(unix.SYS_GETPPID)
	if err != nil {
		return err
	}
	l, err := notify.Install(prog, notify.TSync)
	if err != nil {
		return err
	}
	if err := notify.SendListener(c.(*net.UnixConn), l); err != nil {
		return err
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		return err
	}
	for range 3 {
		call()
	}
	failed := make(chan error)
	osthread.Start(func() {
		for range 1000 {
			_ = unix.Nanosleep(&unix.Timespec{Nsec: 1000}, nil)
		}
		os.Setenv(execEnv, "after")
		failed <- unix.Exec("/proc/self/exe", os.Args, os.Environ())
	})
	return <-failed
}

// What a thread did before it took another's number by an exec is not held against
// what that other one did.
func TestSleptAfterExec(t *testing.T) {
	if err := trace.Probe(); err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testDeadline)
	defer cancel()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(testDeadline))
	target := exec.CommandContext(ctx, "/proc/self/exe")
	target.Env = append(os.Environ(), execEnv+"=before", "GODEBUG=asyncpreemptoff=1", "GORACE=atexit_sleep_ms=0")
	target.ExtraFiles, target.Stderr = []*os.File{theirs}, os.Stderr
	if err := target.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = target.Wait() }()
	l, err := notify.RecvListener(conn.(*net.UnixConn))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()

	const calls = 4
	c := Config{PID: os.Getpid(), MaxCalls: calls, DropErrno: unix.EINTR}
	p, err := attach(c)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if _, err := conn.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	osthread.Start(func() {
		answered <- func() error {
			fds := []unix.PollFd{{Fd: int32(l.FD()), Events: unix.POLLIN}}
			for n := 0; n < calls; {
				if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
					return err
				}
				if fds[0].Revents&unix.POLLIN == 0 {
					return fmt.Errorf("the target made %d calls", n)
				}
				var no notify.Notif
				if l.RecvReady(&no) == nil && l.Send(&notify.Resp{ID: no.ID}) == nil {
					n++
				}
			}
			return nil
		}()
	})
	r, err := p.follow(ctx, c)
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Calls) != calls || r.Threads != 1 {
		t.Fatalf("%d calls of %d threads", len(r.Calls), r.Threads)
	}
	if r.Calls[calls-1].Slept {
		t.Error("the first call after an exec: its thread had slept since the call before, which another one made")
	}
}
