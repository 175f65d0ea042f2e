package engine_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"golang.org/x/sys/unix"
)

// watched reports whether an epoll instance of this process watches the descriptor.
func watched(t *testing.T, fd int) bool {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fdinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		info, _ := os.ReadFile("/proc/self/fdinfo/" + f.Name()) // it may be closed by now
		for line := range strings.Lines(string(info)) {
			var tfd int
			if _, err := fmt.Sscanf(line, "tfd: %d", &tfd); err == nil && tfd == fd {
				return true
			}
		}
	}
	return false
}

// TestBusyListenerLeavesEpoll: a lone listener that stays busy is taken out of epoll. Whatever
// happens to it meanwhile is as ever: another listener, a pause, the end of its targets, its
// release and removal, the stop of the engine.
func TestBusyListenerLeavesEpoll(t *testing.T) {
	for _, c := range []struct {
		name   string
		inline bool
	}{{"inline", true}, {"queue", false}} {
		t.Run(c.name, func(t *testing.T) {
			cfg := engine.Config{
				Inline: c.inline, Workers: 2, Queue: 64,
				Handler: engine.HandlerFunc(func(r engine.Request) { _ = r.Return(1) }),
			}
			e, stop := start(t, cfg)
			const calls = 40_000
			// busy has a target call until its listener has been taken out once more.
			busy := func() (*child, *engine.Source) {
				from := e.Counters().Unwatched
				for end := time.Now().Add(testDeadline); time.Now().Before(end); {
					target := startTarget(t, 2, calls)
					s := mustAdd(t, e, target)
					target.release()
					for ended := false; !ended; {
						if e.Counters().Unwatched != from && !watched(t, target.l.FD()) {
							return target, s
						}
						select {
						case <-s.Done():
							ended = true
						case <-time.After(time.Millisecond):
						}
					}
				}
				t.Fatal("no listener is taken out of epoll")
				return nil, nil
			}
			answered := func(target *child, s *engine.Source, calls int) {
				t.Helper()
				if r := target.results(); r.OK != calls {
					t.Errorf("%+v", r)
				}
				select {
				case <-s.Done():
				case <-time.After(testDeadline):
					t.Error("its targets are gone, and it is still there")
				}
			}

			// On a busy machine a target may end before we get to it: then it is tried again.
			ended := func(s *engine.Source) bool {
				select {
				case <-s.Done():
					return true
				default:
					return false
				}
			}

			for {
				first, s := busy()
				late := startTarget(t, 1, 100)
				_, err := e.Add(first.l)
				s2 := mustAdd(t, e, late) // beside one that is out
				if late.release(); ended(s) {
					continue
				}
				if !errors.Is(err, unix.EEXIST) {
					t.Errorf("added again: %v", err)
				}
				answered(late, s2, 100)
				answered(first, s, 2*calls)
				break
			}

			for {
				paused, s := busy()
				_ = unix.Kill(paused.cmd.Process.Pid, unix.SIGSTOP)
				for end := time.Now().Add(testDeadline); !watched(t, paused.l.FD()) && !ended(s); time.Sleep(time.Millisecond) {
					if time.Now().After(end) {
						t.Fatal("it does not come back to epoll while nobody calls")
					}
				}
				if ended(s) {
					continue
				}
				_ = unix.Kill(paused.cmd.Process.Pid, unix.SIGCONT)
				answered(paused, s, 2*calls)
				break
			}

			for {
				released, s := busy()
				l, err := e.Release(s)
				if err != nil && ended(s) {
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if watched(t, l.FD()) {
					t.Error("a released listener is still watched")
				}
				other, stopOther := start(t, cfg)
				if s, err = other.Add(l); err != nil {
					t.Fatal(err)
				}
				answered(released, s, 2*calls)
				if err := stopOther(); err != nil {
					t.Error(err)
				}
				break
			}

			removed, s := busy()
			if err := e.Remove(t.Context(), s); err != nil {
				t.Error(err)
			}
			if r := removed.results(); r.OK == 0 {
				t.Errorf("%+v", r)
			}

			last, _ := busy()
			if err := stop(); err != nil {
				t.Error(err)
			}
			if r := last.results(); r.OK == 0 {
				t.Errorf("%+v", r)
			}
			checkBalance(t, e)
		})
	}
}
