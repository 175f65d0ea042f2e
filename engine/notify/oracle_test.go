package notify

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

// The kernel's own tests of user notification (tools/testing/selftests/seccomp/seccomp_bpf.c), by our API. docs/kernels.md
// says for each of them which test is its own; here are those that neither the other tests nor the scripts of notifytest had.

// user_notification_basic: without a listener a call that would notify ends by ENOSYS.
func TestOracleNoListener(t *testing.T) { mustSucceed(t, "no-listener") }

func childNoListener(*testchild.Conn, []string) error {
	prog, err := TrapProgram(unix.SYS_GETPPID)
	if err != nil {
		return err
	}
	return onThread(func() error {
		if err := testchild.Filter(prog, 0); err != nil {
			return err
		}
		if v, _, e := unix.Syscall(unix.SYS_GETPPID, 0, 0, 0); e != unix.ENOSYS {
			return fmt.Errorf("a call without a listener: %d, %v", int(v), e)
		}
		return nil
	})
}

// ownPIDNamespace is for a child that is the first process of a pid namespace.
func ownPIDNamespace(t *testing.T) *syscall.SysProcAttr {
	t.Helper()
	sys := &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	try := exec.Command("/proc/self/exe", "-test.run=^$")
	try.SysProcAttr = sys
	if err := try.Run(); err != nil {
		t.Skip("no user and pid namespaces here: ", err)
	}
	return sys
}

// user_notification_child_pid_ns: who is in a pid namespace below ours has an id in ours.
func TestOracleChildPIDNamespace(t *testing.T) {
	g := startTargetAs(t, 0, ownPIDNamespace(t))
	n := g.call()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.PID))
	if err != nil {
		t.Fatal(err)
	}
	field := func(key string) string {
		_, rest, _ := strings.Cut(string(status), "\n"+key+":")
		line, _, _ := strings.Cut(rest, "\n")
		return strings.TrimSpace(line)
	}
	if tgid, ids := field("Tgid"), field("NSpid"); tgid != strconv.Itoa(g.Cmd.Process.Pid) || ids != fmt.Sprintf("%d\t%d", n.PID, g.tid) {
		t.Errorf("thread %d of process %s, with the ids %q; want one of process %d that calls itself %d", n.PID, tgid, ids, g.Cmd.Process.Pid, g.tid)
	}
	if err := g.l.Send(&Resp{ID: n.ID, Val: 7}); err != nil {
		t.Error(err)
	}
	g.Expect("7 0")
}

// user_notification_sibling_pid_ns: who is in none below the supervisor's has the id 0, and is answered all the same.
func TestOracleSiblingPIDNamespace(t *testing.T) {
	sys := ownPIDNamespace(t)
	for name, of := range map[string]*syscall.SysProcAttr{"sibling": sys, "parent": nil} {
		t.Run(name, func(t *testing.T) {
			g := startTargetAs(t, 0, of)
			r := testchild.StartWith(t, testchild.Options{Sys: sys}, "receiver")
			if err := SendListener(r.UnixConn, g.l); err != nil {
				t.Fatal(err)
			}
			g.MustSay("call")
			r.Expect("0")
			g.Expect("7 0")
		})
	}
}

// childReceiver takes a listener, says whose its first notification is, and answers it with 7.
func childReceiver(c *testchild.Conn, _ []string) error {
	l, err := RecvListener(c.UnixConn)
	if err != nil {
		return err
	}
	var n Notif
	for err = l.Recv(&n); OutcomeOf(err) == Retry; err = l.Recv(&n) {
	}
	if err != nil {
		return err
	}
	if err := l.IDValid(n.ID); err != nil {
		return err
	}
	return errors.Join(c.Say("%d", n.PID), l.Send(&Resp{ID: n.ID, Val: 7}))
}

// user_notification_filter_empty, …_threaded, user_ioctl_notification_filter_empty: a filter that passed from a thread to a child is
// still in use; when the last one has ended the listener hangs up, and whoever sleeps in RECV is told ENOENT.
func TestOracleFilterEmpty(t *testing.T) {
	g := startTarget(t, 0)
	ends := kernelAtLeast(t, release(t), "6.11") // before, RECV sleeps on
	sleeper, ended := make(chan int, 1), make(chan error, 1)
	if ends {
		osthread.Start(func() {
			sleeper <- unix.Gettid()
			var err error
			for err = g.l.Recv(new(Notif)); OutcomeOf(err) == Retry; err = g.l.Recv(new(Notif)) {
			}
			ended <- err
		})
		in := fmt.Sprintf("/proc/self/task/%d/syscall", <-sleeper)
		g.becomes("a thread that sleeps in RECV", func() bool {
			b, _ := os.ReadFile(in)
			return strings.HasPrefix(string(b), strconv.Itoa(unix.SYS_IOCTL)+" ")
		})
	}
	g.MustSay("bequeath")
	thread := fmt.Sprintf("/proc/%d/task/%d", g.Cmd.Process.Pid, g.tid)
	g.becomes("the end of the thread", func() bool {
		_, err := os.Stat(thread)
		return err != nil
	})
	p := []unix.PollFd{{Fd: int32(g.l.FD()), Events: unix.POLLIN}}
	if _, err := unix.Poll(p, 0); err != nil || p[0].Revents&unix.POLLHUP != 0 {
		t.Errorf("a child is still under the filter, and poll says %#x, %v", p[0].Revents, err)
	}
	select {
	case err := <-ended:
		t.Errorf("a child is still under the filter, and RECV says %v", err)
	default:
	}
	g.MustSay("that is all")
	if got := pollFor(g.l.FD(), unix.POLLIN); got&unix.POLLHUP == 0 {
		t.Errorf("nobody is under the filter, and poll says %#x", got)
	}
	if ends {
		wantErr(t, "RECV that slept", <-ended, unix.ENOENT, Stale)
	}
}

// user_notification_addfd_rlimit: the target's own limit, and what it refuses leaves the call waiting, also where the answer was to come with it.
func TestOracleAddFDRlimit(t *testing.T) {
	for _, flags := range targetFlags() {
		g := startTarget(t, flags)
		n := g.call()
		if err := unix.Prlimit(g.Cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{}, nil); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			a AddFD
			e unix.Errno
		}{
			{AddFD{NewFDFlags: unix.O_CLOEXEC}, unix.EMFILE},
			{AddFD{Flags: AddFDSend}, unix.EMFILE},
			{AddFD{Flags: AddFDSetFD, NewFD: 100}, unix.EBADF},
			{AddFD{Flags: AddFDSetFD | AddFDSend, NewFD: 100}, unix.EBADF},
		} {
			if c.a.Flags&AddFDSend != 0 && FeatureAddFDSend.Probe() != nil {
				continue // refused, whatever the limit is
			}
			c.a.ID = n.ID
			_, err := g.l.AddFD(&c.a)
			wantErr(t, fmt.Sprintf("%+v", c.a), err, c.e, Refused)
		}
		if err := errors.Join(g.l.IDValid(n.ID), g.l.Send(&Resp{ID: n.ID, Val: 5})); err != nil {
			t.Error(err)
		}
		g.Expect("5 0")
	}
}

// user_notification_sync: answers arrive as before when the target is woken on the supervisor's CPU.
func TestOracleSync(t *testing.T) {
	if err := FeatureSyncWakeUp.Probe(); err != nil {
		t.Skip(err)
	}
	const calls = 500
	g := startTarget(t, 0)
	if err := g.l.SetFlags(SyncWakeUp); err != nil {
		t.Fatal(err)
	}
	g.MustSay("calls %d", calls)
	first := g.recv()
	for n, i := first, 0; ; n = g.recv() {
		if n.ID != first.ID+uint64(i) {
			t.Fatalf("call %d has the id +%d", i, n.ID-first.ID)
		}
		if err := g.l.Send(&Resp{ID: n.ID, Val: int64(i)}); err != nil {
			t.Fatal(err)
		}
		if i++; i == calls {
			break
		}
	}
	g.Expect("%d 0", calls-1)
}

// user_notification_wait_killable_after_reply: a signal that comes at about the time of the answer does not take the answer away.
func TestOracleWaitKillableAfterReply(t *testing.T) {
	if err := FeatureWaitKillable.Probe(); err != nil {
		t.Skip(err)
	}
	if r := release(t); !kernelAtLeast(t, r, "6.18") {
		t.Skipf("Linux %s takes such an answer away", r)
	}
	g := startTarget(t, WaitKillableRecv)
	now, sent := make(chan bool), make(chan error)
	defer close(now)
	go func() {
		for range now {
			sent <- unix.Tgkill(g.Cmd.Process.Pid, g.tid, unix.SIGUSR1)
		}
	}()
	last := uint64(0)
	for i := range 300 {
		n := g.call()
		if last != 0 && n.ID != last+1 {
			t.Fatalf("call %d has the id +%d: the one before was made again", i, n.ID-last)
		}
		last = n.ID
		now <- true
		for range i * 7 % 100 { // so that it comes before, meanwhile or after
			_ = g.l.IDValid(n.ID)
		}
		var err error
		if i%2 == 0 {
			err = g.l.Send(&Resp{ID: n.ID, Val: 99})
		} else if _, err = g.l.AddFD(&AddFD{ID: n.ID, SrcFD: uint32(g.l.FD()), Flags: AddFDSend | AddFDSetFD, NewFD: 99}); err != nil {
			err = fmt.Errorf("with a descriptor: %w", err)
		}
		if err := errors.Join(err, <-sent); err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		g.Expect("99 0")
		g.MustSay("signal") // it waited, and is not lost
		g.Expect("%d", i+1)
	}
}
