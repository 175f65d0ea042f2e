package engine_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"golang.org/x/sys/unix"
)

// mayRaise reports whether this user may raise threads.
func mayRaise(t *testing.T) bool {
	t.Helper()
	err := engine.ProbePriority()
	if err != nil && !errors.Is(err, unix.EPERM) {
		t.Fatal(err)
	}
	return err == nil
}

// tasks are the threads of a process.
func tasks(t *testing.T, pid int) (tids []int) {
	t.Helper()
	dirs, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		tid, err := strconv.Atoi(d.Name())
		if err != nil {
			t.Fatal(err)
		}
		tids = append(tids, tid)
	}
	return tids
}

// threads are this process's threads of that name.
func threads(t *testing.T, name string) (tids []int) {
	t.Helper()
	for _, tid := range tasks(t, os.Getpid()) {
		comm, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/comm", tid))
		if err == nil && strings.TrimSpace(string(comm)) == name {
			tids = append(tids, tid)
		}
	}
	return tids
}

// nices are the nice values of the process's threads of that name.
func nices(t *testing.T, name string) (is []int32) {
	t.Helper()
	for _, tid := range threads(t, name) {
		if a, err := unix.SchedGetAttr(tid, 0); err == nil {
			is = append(is, a.Nice)
		}
	}
	return is
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestPriorityFollowsTheLoad: the receive thread is raised under many targets with short
// handlers, and only then; where it may not be, that is said and nothing else changes.
func TestPriorityFollowsTheLoad(t *testing.T) {
	may := mayRaise(t)
	long := func() {
		for end := time.Now().Add(50 * time.Microsecond); time.Now().Before(end); {
		}
	}
	short := func() {}
	for _, c := range []struct {
		name    string
		cfg     engine.Config
		targets int
		work    func()
		raised  bool // must be, at some time
		asked   bool // may be: a handler that loses its CPU looks long, or short
	}{
		{"inline, many", engine.Config{Inline: true, RaisePriority: true}, 32, short, true, true},
		{"inline, few", engine.Config{Inline: true, RaisePriority: true}, 2, short, false, false},
		{"inline, long handlers", engine.Config{Inline: true, RaisePriority: true}, 32, long, false, false},
		{"inline, not asked for", engine.Config{Inline: true}, 32, short, false, false},
		{"queue, many, one worker", engine.Config{Workers: 1, RaisePriority: true}, 32, short, false, true},
		{"queue, few", engine.Config{Workers: 2, RaisePriority: true}, 2, short, false, false},
		{"queue, long handlers", engine.Config{Workers: 2, RaisePriority: true}, 32, long, false, false},
		{"queue, goroutines", engine.Config{Workers: 2, RaisePriority: true, Kind: engine.GoroutineWorkers}, 32, short, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log syncBuffer
			c.cfg.Queue = 64
			c.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			c.cfg.Handler = engine.HandlerFunc(func(r engine.Request) {
				c.work()
				_ = r.Return(1)
			})
			before := nices(t, "unknot-receive")
			e, stop := start(t, c.cfg)
			var lowest int32
			target := startTarget(t, c.targets, endless)
			mustAdd(t, e, target)
			target.release()
			done := func() bool {
				if c.raised {
					return lowest == -15 || strings.Contains(log.String(), "CAP_SYS_NICE")
				}
				return e.Counters().Answered > 4000
			}
			for end := time.Now().Add(testDeadline); !done() && time.Now().Before(end); time.Sleep(time.Millisecond) {
				for _, n := range nices(t, "unknot-receive") {
					lowest = min(lowest, n)
				}
			}
			target.enough()
			target.results()
			if len(before) > 0 {
				t.Logf("another engine's thread was there: %v", before)
			}
			switch {
			case !c.asked && lowest != 0, !may && lowest != 0:
				t.Errorf("raised to %d", lowest)
			case may && c.raised && lowest != -15:
				t.Errorf("nice value %d", lowest)
			case !may && c.raised && strings.Count(log.String(), "CAP_SYS_NICE") != 1:
				t.Errorf("without the privilege, the log says %q", log.String())
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			for end := time.Now().Add(testDeadline); len(nices(t, "unknot-receive")) > len(before); time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("the receive thread is left")
				}
			}
		})
	}
}
