package engine_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/cbpf"
	"golang.org/x/sys/unix"
)

// A mediator stands between a thread of ours and the kernel: a child that supervises the
// thread's ioctls. It refuses answers that continue a call, as kernels before 5.5 do, and
// tells which wake-up flags are set. It is another process because the threads' ioctls
// do not let the Go scheduler go on meanwhile.
type mediator struct {
	conn *net.UnixConn
	said *bufio.Scanner
	done func() error
}

const mediatorEnv = "UNKNOT_TEST_MEDIATOR"

// mediate is the child: listeners come over the socket, one at a time.
func mediate() {
	c, err := net.FileConn(os.NewFile(3, "socket"))
	if err != nil {
		panic(err)
	}
	for {
		l, err := notify.RecvListener(c.(*net.UnixConn))
		if err != nil {
			return // the test is over
		}
		go func() {
			for {
				var n notify.Notif
				if err := l.Recv(&n); err != nil {
					if notify.OutcomeOf(err) == notify.Retry {
						continue
					}
					return // the thread has ended
				}
				resp := notify.Resp{ID: n.ID, Flags: notify.RespContinue}
				if n.Data.Args[1] == notify.IoctlSetFlags {
					fmt.Println("flags", n.Data.Args[2])
				} else if flags, err := answerFlags(int(n.PID), uintptr(n.Data.Args[2])); err != nil {
					fmt.Println("error", err)
				} else if flags&notify.RespContinue != 0 {
					fmt.Println("refused")
					resp = notify.Resp{ID: n.ID, Error: -int32(unix.EINVAL)}
				}
				_ = l.Send(&resp)
			}
		}()
	}
}

// answerFlags reads the flags of a struct seccomp_notif_resp in another process.
func answerFlags(tid int, at uintptr) (uint32, error) {
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", tid))
	if err != nil {
		return 0, err
	}
	defer mem.Close()
	var b [4]byte
	_, err = mem.ReadAt(b[:], int64(at)+20)
	return binary.NativeEndian.Uint32(b[:]), err
}

func startMediator(t *testing.T) *mediator {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	_ = ours.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), mediatorEnv+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	// Where Yama lets only ancestors look into a process (ptrace_scope 1), the child may, too.
	_ = unix.Prctl(unix.PR_SET_PTRACER, uintptr(cmd.Process.Pid), 0, 0, 0)
	late := time.AfterFunc(testDeadline, func() {
		t.Error("the mediator hung and was killed")
		_ = cmd.Process.Kill()
	})
	m := &mediator{conn: conn.(*net.UnixConn), said: bufio.NewScanner(out)}
	m.done = func() error { // all of its listeners are closed, or their threads gone
		_ = m.conn.Close()
		err := cmd.Wait()
		late.Stop()
		return err
	}
	t.Cleanup(func() {
		late.Stop()
		_ = cmd.Process.Kill()
		_ = m.conn.Close()
	})
	return m
}

// between has the mediator supervise the calling thread's ioctls of that request. The caller is
// locked to its thread, for good.
//
// The thread takes no SIGURG then. While Go stops the world it sends one every 100 µs, each of
// which would have the ioctl notify again before a mediator on a busy machine has answered.
func (m *mediator) between(request uint32) error {
	var urgent unix.Sigset_t
	urgent.Val[0] = 1 << (unix.SIGURG - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &urgent, nil); err != nil {
		return err
	}
	prog := []unix.SockFilter{
		{Code: cbpf.Load, K: 0}, // nr
		{Code: cbpf.Equal, K: unix.SYS_IOCTL, Jf: 3},
		{Code: cbpf.Load, K: 16 + 8}, // the low half of the second argument
		{Code: cbpf.Equal, K: request, Jf: 1},
		{Code: cbpf.Return, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: cbpf.Return, K: unix.SECCOMP_RET_ALLOW},
	}
	l, err := notify.Install(prog, 0)
	if err != nil {
		return err
	}
	defer l.Close()
	return notify.SendListener(m.conn, l)
}

// next is what the mediator says next.
func (m *mediator) next(t *testing.T) string {
	t.Helper()
	if !m.said.Scan() {
		t.Fatalf("the mediator ended: %v", m.said.Err())
	}
	return strings.TrimSpace(m.said.Text())
}
