package storm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

func TestHostileNames(t *testing.T) {
	for h := range numHostile {
		if got, err := ParseHostile(h.String()); err != nil || got != h {
			t.Errorf("%v is read as %v, %v", h, got, err)
		}
	}
	if h, err := ParseHostile("maim"); err == nil {
		t.Errorf("maim is %v", h)
	}
}

// TestPreemptedTargetsStart: their process collects its garbage before the storm, too, and many calls to draw are much of it.
func TestPreemptedTargetsStart(t *testing.T) {
	m, err := ParseMix("getppid,gettid")
	if err != nil {
		t.Fatal(err)
	}
	s := begin(t, Config{Targets: 128, Mix: m, Hostile: Preempted})
	defer func() { _ = s.Listener().Close() }()
	s.Close()
}

// TestNumberedCallsKnowTheirAnswer: a value that another call should have had is counted, and so is what a thread has made.
func TestNumberedCallsKnowTheirAnswer(t *testing.T) {
	const seed = 1<<40 + 7
	s := begin(t, Config{Targets: 1, Numbered: true, Seed: seed})
	defer func() { _ = s.Listener().Close() }()
	if err := s.Go(); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(4) { // the last one is answered once the storm is halted
		var n notify.Notif
		for s.Listener().Recv(&n) != nil {
		}
		if thread, serial := Number(n.Data.Args[5]); thread != 0 || uint64(serial) != i || n.Data.Args[5]>>32 != Mark {
			t.Errorf("call %d is number %d of thread %d, %#x", i, serial, thread, n.Data.Args[5])
		}
		if i == 3 {
			s.shm.head.halt(1)
		}
		r := notify.Resp{ID: n.ID, Val: Answer(seed, n.Data.Args[5])}
		if i == 1 {
			r.Val++
		}
		if i == 2 {
			r = notify.Resp{ID: n.ID, Error: -int32(unix.EPERM)}
		}
		if err := s.Listener().Send(&r); err != nil {
			t.Fatal(err)
		}
	}
	r, err := s.Stop(testDeadline)
	if err != nil {
		t.Fatal(err)
	}
	if want := (ThreadReport{Made: 4, Returned: 4, Strayed: 1}); len(r.Threads) != 1 || r.Threads[0] != want {
		t.Errorf("%+v, want %+v", r.Threads, want)
	}
}

// TestNoReplacedProcessOutlivesItsStorm: the supervisor answers nobody, so no
// target ends by itself.
func TestNoReplacedProcessOutlivesItsStorm(t *testing.T) {
	s := begin(t, Config{Targets: 2, Hostile: Forked})
	defer func() { _ = s.Listener().Close() }()
	if err := s.Go(); err != nil {
		t.Fatal(err)
	}
	var n notify.Notif
	if err := s.Listener().Recv(&n); err != nil {
		t.Fatal(err)
	}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", s.PID()))
	var children []string
	for _, f := range tasks {
		b, _ := os.ReadFile(f)
		children = append(children, strings.Fields(string(b))...)
	}
	if tasks == nil {
		t.Skip("this kernel does not list children (CONFIG_PROC_CHILDREN)")
	}
	if len(children) != 1 {
		t.Fatalf("children %v, want one", children)
	}
	s.Close()
	for end := time.Now().Add(testDeadline); alive(children[0]); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("process %s lives on", children[0])
		}
	}
}

// alive reports whether a process is there and more than a zombie.
func alive(pid string) bool {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}
