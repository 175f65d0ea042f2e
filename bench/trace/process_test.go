package trace

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

// beEndless waits for its input to end, on other threads than the first: that ends at once.
func beEndless() error {
	osthread.Start(func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	})
	_, _, _ = unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
	return errors.New("the first thread did not end")
}

// opened are both ways to watch a process.
func opened(t *testing.T, pid int) map[string]*Process {
	t.Helper()
	p, err := OpenProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	if p.fd < 0 {
		t.Error("no pidfd")
	}
	return map[string]*Process{"pidfd": p, "number": {pid, -1}}
}

func state(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	return field(b, "State")
}

// A process whose first thread has ended goes on while others do; then it has ended,
// though nobody waits for it.
func TestEnded(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"=endless")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(deadline, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	pid := cmd.Process.Pid
	ps := opened(t, pid)
	await := func(what string, is func() bool) {
		t.Helper()
		for start := time.Now(); !is(); time.Sleep(time.Millisecond) {
			if time.Since(start) > deadline {
				t.Fatal(what)
			}
		}
	}
	await("the first thread does not end", func() bool { return strings.HasPrefix(state(t, pid), "Z") })
	for name, p := range ps {
		if p.Ended() {
			t.Errorf("by its %s: ended, and one of its threads has not", name)
		}
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	for name, p := range ps {
		await("by its "+name+": it does not end", p.Ended)
	}
	if s := state(t, pid); !strings.HasPrefix(s, "Z") {
		t.Errorf("it is no zombie, but %q: this test shows nothing", s)
	}
	if p := ps["pidfd"]; p.HoldsListener() {
		t.Error("a zombie holds a listener")
	}
	_ = cmd.Wait()
	for name, p := range ps {
		if !p.Ended() {
			t.Errorf("by its %s: there again, after its parent waited for it", name)
		}
	}
}

func TestOpenProcess(t *testing.T) {
	for _, pid := range []int{-1, 1 << 30} {
		if p, err := OpenProcess(pid); err == nil {
			t.Errorf("process %d: %v", pid, p)
		}
	}
	tids := make(chan int)
	done := make(chan bool)
	osthread.Start(func() { tids <- unix.Gettid(); <-done })
	defer close(done)
	tid := <-tids
	if _, err := OpenProcess(tid); err == nil || !strings.Contains(err.Error(), "is a thread of process "+strconv.Itoa(os.Getpid())) {
		t.Errorf("a thread: %v", err)
	}
	self := opened(t, os.Getpid())["pidfd"]
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if name := self.Name(); name == "" || !strings.HasPrefix(filepath.Base(exe), name) {
		t.Errorf("our name is %q", name)
	}
	if got, err := self.Threads(); err != nil || !slices.Contains(got, tid) || !slices.Contains(got, os.Getpid()) {
		t.Errorf("threads %v without %d: %v", got, tid, err)
	}
	if n := self.numberInProc(); n != os.Getpid() {
		t.Errorf("our number by the pidfd is %d", n)
	}
}

func TestListenerHolders(t *testing.T) {
	g := newTargets(t, 1, 1, true) // hands its listener over to us
	self := opened(t, os.Getpid())["pidfd"]
	if !self.HoldsListener() {
		t.Error("we hold the listener, and it is not seen")
	}
	// They close theirs once they have sent it.
	theirs := opened(t, g.cmd.Process.Pid)["pidfd"]
	for start := time.Now(); theirs.HoldsListener(); time.Sleep(time.Millisecond) {
		if time.Since(start) > deadline {
			t.Fatal("our targets hold the listener, too")
		}
	}
	if hs := ListenerHolders(); !slices.Contains(hs, Holder{os.Getpid(), self.Name()}) {
		t.Errorf("we are not among the holders %v", hs)
	}
}
