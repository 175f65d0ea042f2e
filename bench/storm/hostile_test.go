package storm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/engine/notify"
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
