package confine

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

func TestPrepareRefuses(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		says string
	}{
		{Config{Level: 2}, "no such setting"},
		{Config{Signals: 3}, "no such setting"},
		{Config{OnViolation: 3}, "no such setting"},
		{Config{LogFD: -1}, "log descriptor -1"},
		{Config{UIDs: []IDPair{{1000, 0}}}, "to root"},
		{Config{GIDs: []IDPair{{1000, 0}}}, "to root"},
		{Config{UIDs: []IDPair{{0, 1000}}, Signals: Strict}, "use masked"},
	} {
		if p, err := Prepare(c.cfg); err == nil || p != nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v, want %q", c.cfg, err, c.says)
		}
	}
	for _, name := range []string{"", "off", "Private"} {
		if _, err := ParseLevel(name); err == nil {
			t.Errorf("level %q was accepted", name)
		}
	}
	for _, l := range []Level{Private, Shared} {
		if got, err := ParseLevel(l.String()); got != l || err != nil {
			t.Errorf("level %v: %v, %v", l, got, err)
		}
	}
}

// TestConfineRefuses: none of these leaves a trace on the thread.
func TestConfineRefuses(t *testing.T) {
	stdin := int(os.Stdin.Fd())
	for _, c := range []struct {
		cfg  Config
		th   Thread
		says string
	}{
		{Config{}, Thread{}, "exactly one listener, here are 0"},
		{Config{}, Thread{Listeners: []int{0, 1}}, "exactly one listener, here are 2"},
		{Config{Signals: Strict}, Thread{Listeners: []int{stdin}, Signal: 40}, "signal 40"},
		{Config{}, Thread{Listeners: []int{900}, Epoll: -1, Wake: -1}, "descriptor 900, the listener"},
		{Config{}, Thread{Listeners: []int{-1}, Epoll: -1, Wake: -1}, "descriptor -1, the listener"},
		{Config{}, Thread{Listeners: []int{stdin}, Epoll: 901, Wake: -1}, "descriptor 901, the thread's epoll"},
		{Config{LogFD: 902}, Thread{Listeners: []int{stdin}, Epoll: -1, Wake: -1}, "descriptor 902, the log"},
	} {
		p, err := Prepare(c.cfg)
		if err != nil {
			t.Fatal(err)
		}
		type outcome struct {
			st      *Status
			err     error
			seccomp string
		}
		o := make(chan outcome)
		osthread.Start(func() {
			st, err := p.Confine(c.th)
			s, _ := taskStatus(unix.Gettid(), "Seccomp")
			o <- outcome{st, err, s}
		})
		if got := <-o; got.err == nil || got.st != nil || got.seccomp != "0" || !strings.Contains(got.err.Error(), c.says) {
			t.Errorf("%+v: %+v, want %q", c.th, got, c.says)
		}
	}
}

// TestMainThreadIsRefused: it cannot be given back.
func TestMainThreadIsRefused(t *testing.T) {
	c := testchild.Start(t, "main-thread")
	c.Expect("refused")
}

func init() {
	if os.Getenv("UNKNOT_TEST_CHILD") == "main-thread" {
		runtime.LockOSThread() // in init: to the main thread
	}
}

func childMainThread(c *testchild.Conn, _ []string) error {
	p, err := Prepare(Config{})
	if err != nil {
		return err
	}
	if _, err := p.Confine(Thread{Listeners: []int{0}, Epoll: -1, Wake: -1}); err == nil || !strings.Contains(err.Error(), "main thread") {
		return fmt.Errorf("on the main thread: %w", err)
	}
	return c.Say("refused")
}

// TestVerifyFindsFault: an ordinary thread is nothing that verify would pass, and
// neither is one that differs in one thing.
func TestVerifyFindsFault(t *testing.T) {
	tid, end := make(chan int), make(chan struct{})
	defer close(end)
	osthread.Start(func() {
		tid <- unix.Gettid()
		<-end
	})
	st := &Status{Level: Shared}
	if err := verify(taskOf(<-tid), 0, st); err == nil || !strings.Contains(err.Error(), `Seccomp "0", not "2"`) {
		t.Error(err)
	}
	if err := verify(taskOf(1<<22+1), 0, st); err == nil {
		t.Error("a thread that there is not was verified")
	}
	c := order{Name: "verify"}.start(t, "ends")
	c.Expect("true")
	if ws := c.Wait(); ws != 0 {
		t.Errorf("status %#x\n%s", int(ws), c.Stderr())
	}
}

// TestRulesReadWell is about the page that is made of them.
func TestRulesReadWell(t *testing.T) {
	var b strings.Builder
	rules := Rules()
	if err := WriteRules(&b, rules); err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		if r.Why == "" || !slices.ContainsFunc(strings.Split(b.String(), "\n"), func(l string) bool {
			return strings.Contains(l, "`"+r.Syscall+"`") && strings.Contains(l, r.Why) && strings.Contains(l, r.Only)
		}) {
			t.Errorf("%s has no reason, or its line is missing", r.Key)
		}
		for _, c := range r.When {
			if c.Text == "" {
				t.Errorf("%s: argument %d has no text", r.Key, c.Arg)
			}
		}
	}
}

// taskOf is where our /proc has a thread of ours.
func taskOf(tid int) string { return fmt.Sprintf("/proc/self/task/%d", tid) }
