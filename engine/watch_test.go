package engine_test

import (
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"golang.org/x/sys/unix"
)

// TestBusyListenerLeavesEpoll: a lone listener that stays busy is taken out of epoll. Whatever
// happens to it meanwhile is as ever: calls after a pause, another listener, the end of its
// targets, the stop of the engine.
func TestBusyListenerLeavesEpoll(t *testing.T) {
	for _, c := range []struct {
		name   string
		inline bool
	}{{"inline", true}, {"queue", false}} {
		t.Run(c.name, func(t *testing.T) {
			e, stop := start(t, engine.Config{
				Inline: c.inline, Workers: 2, Queue: 64,
				Handler: engine.HandlerFunc(func(r *engine.Request) { _ = r.Return(1) }),
			})
			// busy has a target call until its listener has been taken out once more.
			const calls = 20_000
			busy := func() (*child, *engine.Source) {
				from := e.Counters().Unwatched
				for end := time.Now().Add(testDeadline); ; {
					if time.Now().After(end) {
						t.Fatal("the listener is never taken out of epoll")
					}
					target := startTarget(t, 2, calls)
					s := mustAdd(t, e, target)
					target.release()
					for {
						select {
						case <-s.Done():
						case <-time.After(time.Millisecond):
							if e.Counters().Unwatched == from {
								continue
							}
							return target, s
						}
						break
					}
				}
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

			first, s := busy()
			late := startTarget(t, 1, 100)
			s2 := mustAdd(t, e, late) // beside one that is out
			late.release()
			answered(late, s2, 100)
			answered(first, s, 2*calls)

			alone, s := busy()
			pid := alone.cmd.Process.Pid
			_ = unix.Kill(pid, unix.SIGSTOP)
			time.Sleep(100 * time.Millisecond)
			_ = unix.Kill(pid, unix.SIGCONT)
			answered(alone, s, 2*calls)

			last, _ := busy()
			if c := e.Counters(); c.Balance() < -3 || c.Balance() > 3 {
				t.Errorf("%+v", c)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			if r := last.results(); r.OK == 0 {
				t.Errorf("%+v", r)
			}
		})
	}
}
