package engine_test

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"golang.org/x/sys/unix"
)

// TestReceiversFollowTheListeners: one for a lone listener, as many as CPUs for more, each with its part of
// them and a CPU of its own; or as many as was said.
func TestReceiversFollowTheListeners(t *testing.T) {
	cpus := severalCPUs(t)
	auto := min(4, len(cpus), runtime.NumCPU())
	for _, c := range []struct {
		name      string
		cfg       engine.Config
		listeners int
		want      int
	}{
		{"none", engine.Config{}, 0, 1},
		{"a lone one", engine.Config{}, 1, 1},
		{"two", engine.Config{}, 2, min(2, auto)},
		{"many", engine.Config{}, 5, auto},
		{"one receiver for many", engine.Config{Receivers: 1}, 5, 1},
		{"two for one", engine.Config{Receivers: 2}, 1, 2},
		{"a CPU that is set", engine.Config{CPU: engine.OnCPU(cpus[0])}, 3, 1},
	} {
		for _, inline := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/inline=%t", c.name, inline), func(t *testing.T) {
				cfg := c.cfg
				cfg.Inline, cfg.Workers, cfg.Handler = inline, 2, engine.HandlerFunc(returnsOne)
				e, stop := start(t, cfg)
				var children []*child
				for range c.listeners {
					target := startTarget(t, 1, 200)
					mustAdd(t, e, target)
					children = append(children, target)
				}
				rs := e.Debug().Receivers
				if len(rs) != c.want {
					t.Fatalf("%d receivers, want %d", len(rs), c.want)
				}
				on, dealt := map[int]bool{}, 0
				for _, r := range rs {
					on[r.Home] = true
					dealt += len(r.Listeners)
					if n := len(r.Listeners); n < c.listeners/c.want || n > (c.listeners+c.want-1)/c.want {
						t.Errorf("a receiver has %d of %d listeners", n, c.listeners)
					}
				}
				if len(on) != c.want || dealt != c.listeners {
					t.Errorf("on %d CPUs, %d listeners: %v", len(on), dealt, e.Debug())
				}
				for _, target := range children {
					target.release()
				}
				for _, target := range children {
					if r := target.results(); r.OK != 200 {
						t.Errorf("%+v", r)
					}
				}
				if err := stop(); err != nil {
					t.Error(err)
				}
				all := checkBalance(t, e)
				var sum engine.Counters
				for _, r := range e.Debug().Receivers {
					if r.Counters.Balance() != 0 {
						t.Errorf("a receiver's counters do not balance: %+v", r.Counters)
					}
					if c.listeners >= c.want && r.Counters.Received == 0 && c.listeners > 0 {
						t.Error("a receiver has received nothing")
					}
					if r.Latencies.Service.Count != r.Counters.Answered {
						t.Errorf("%d service times of %d answers", r.Latencies.Service.Count, r.Counters.Answered)
					}
					sum.Received += r.Counters.Received
					sum.Answered += r.Counters.Answered
				}
				if sum.Received != all.Received || sum.Answered != all.Answered || all.Received != uint64(200*c.listeners) {
					t.Errorf("by receiver %+v, in all %+v", sum, all)
				}
			})
		}
	}
}

// TestEachReceiveThreadRunsTheHook: each with descriptors of its own; one that fails is done without, unless it was asked for.
func TestEachReceiveThreadRunsTheHook(t *testing.T) {
	severalCPUs(t)
	var mu sync.Mutex
	tids, fds := map[int]bool{}, map[int]bool{}
	hook := func(th engine.Thread) error {
		mu.Lock()
		defer mu.Unlock()
		tids[unix.Gettid()] = true
		fds[th.Epoll], fds[th.Wake] = true, true
		return nil
	}
	e, stop := start(t, engine.Config{Inline: true, Handler: engine.HandlerFunc(returnsOne), ThreadHook: hook})
	for range 3 {
		mustAdd(t, e, startTarget(t, 1, 1)).Listener()
	}
	n := len(e.Debug().Receivers)
	mu.Lock()
	if n < 2 || len(tids) != n || len(fds) != 2*n {
		t.Errorf("%d receivers, threads %v, descriptors %v", n, tids, fds)
	}
	mu.Unlock()
	if err := stop(); err != nil {
		t.Error(err)
	}

	failed := errors.New("no second one")
	var calls atomic.Int32
	second := func(engine.Thread) error {
		if calls.Add(1) > 1 {
			return failed
		}
		return nil
	}
	e, stop = start(t, engine.Config{Inline: true, Handler: engine.HandlerFunc(returnsOne), ThreadHook: second})
	for e.Debug().Receivers[0].TID == 0 {
		time.Sleep(time.Millisecond)
	}
	var children []*child
	for range 3 {
		target := startTarget(t, 1, 50)
		mustAdd(t, e, target)
		children = append(children, target)
	}
	if n := len(e.Debug().Receivers); n != 1 {
		t.Errorf("%d receivers", n)
	}
	for _, target := range children {
		target.release()
		if r := target.results(); r.OK != 50 {
			t.Errorf("%+v", r)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	calls.Store(0)
	_, stop = start(t, engine.Config{Inline: true, Handler: engine.HandlerFunc(returnsOne), ThreadHook: second, Receivers: 2})
	if err := stopAfter(stop, &calls, 2); !errors.Is(err, failed) {
		t.Errorf("two receivers, and a hook that fails: %v", err)
	}
}

// stopAfter stops an engine once its hook has run n times.
func stopAfter(stop func() error, calls *atomic.Int32, n int32) error {
	for calls.Load() < n {
		time.Sleep(time.Millisecond)
	}
	return stop()
}

// TestListenersMoveWithoutLosingACall: loads that are uneven become even, and a listener goes where
// its targets can come to its receive thread, while calls go on.
func TestListenersMoveWithoutLosingACall(t *testing.T) {
	severalCPUs(t)
	for _, inline := range []bool{true, false} {
		t.Run(fmt.Sprintf("inline=%t", inline), func(t *testing.T) {
			e, stop := start(t, engine.Config{Inline: inline, Workers: 2, Receivers: 2, Handler: engine.HandlerFunc(returnsOne)})
			var busy []*child
			// Two on one receiver call, and what is on the other does not.
			for i := range 4 {
				n := endless
				if i%2 == 1 {
					n = 1
				}
				target := startTarget(t, 1, n)
				mustAdd(t, e, target)
				if i%2 == 0 {
					busy = append(busy, target)
				} else {
					defer target.release()
				}
			}
			with := func() int { return len(e.Debug().Receivers[0].Listeners) }
			before := with()
			for _, target := range busy {
				target.release()
			}
			for end := time.Now().Add(patience); with() != before-1; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Skipf("so few calls are not uneven: %v", e.Debug())
				}
			}
			answered := 0
			end := func(target *child) {
				t.Helper()
				target.enough()
				r := target.results()
				if answered += r.OK; len(r.Errnos) != 0 {
					t.Errorf("%+v", r)
				}
			}
			for _, target := range busy {
				end(target)
			}

			// A target that may run only on the other receiver's CPU.
			target := startTarget(t, 1, endless)
			s := mustAdd(t, e, target)
			var at, to int
			for i, r := range e.Debug().Receivers {
				for _, l := range r.Listeners {
					if l.FD == s.Listener().FD() {
						at = i
					}
				}
			}
			to = 1 - at
			target.pinned(t, e.Debug().Receivers[to].Home)
			target.release()
			await(t, func() bool {
				return slices.ContainsFunc(e.Debug().Receivers[to].Listeners, func(l engine.ListenerState) bool { return l.FD == s.Listener().FD() })
			})
			end(target)
			if err := stop(); err != nil {
				t.Error(err)
			}
			if got := checkBalance(t, e); got.Answered != uint64(answered) {
				t.Errorf("targets saw %d answers: %+v", answered, got)
			}
		})
	}
}

// TestMovesBackAndForth: calls, removal, release and a stop while a listener goes from one receiver to
// another all the time.
func TestMovesBackAndForth(t *testing.T) {
	severalCPUs(t)
	for _, inline := range []bool{true, false} {
		for _, end := range []string{"targets", "remove", "release", "stop"} {
			t.Run(fmt.Sprintf("inline=%t/%s", inline, end), func(t *testing.T) {
				const threads = 4
				e, stop := start(t, engine.Config{Inline: inline, Workers: 2, Queue: 2, Receivers: 2, Handler: engine.HandlerFunc(returnsOne)})
				target := startTarget(t, threads, endless)
				s := mustAdd(t, e, target)
				target.release()
				over := make(chan struct{})
				var moves atomic.Int64
				var movers sync.WaitGroup
				movers.Go(func() {
					for i := 0; ; i++ {
						select {
						case <-over:
							return
						default:
							if moves.Load() < 300 && engine.Move(e, s, i%2) {
								moves.Add(1)
							} else {
								time.Sleep(time.Millisecond)
							}
						}
					}
				})
				await(t, func() bool { return moves.Load() >= 20 && e.Counters().Received >= 1000 })
				var err error
				switch end {
				case "remove":
					err = e.Remove(t.Context(), s)
				case "release":
					l, rerr := e.Release(t.Context(), s)
					if err = rerr; err == nil {
						_, err = e.Add(l)
						seen := e.Counters().Received
						await(t, func() bool { return e.Counters().Received > seen+500 })
					}
				case "stop":
					err = stop()
				}
				if err != nil {
					t.Error(err)
				}
				target.enough()
				select {
				case c := <-target.out:
					target.out <- c
				case <-time.After(testDeadline):
					t.Fatalf("a call was lost after %d moves: %v %+v", moves.Load(), e.Debug(), e.Counters())
				}
				r := target.results()
				close(over)
				movers.Wait()
				t.Logf("%d moves", moves.Load())
				if err := stop(); err != nil {
					t.Error(err)
				}
				if got := checkBalance(t, e); uint64(r.OK) != got.Answered || uint64(r.errno(unix.EINTR)) != got.Dropped {
					t.Errorf("target saw %+v: %+v", r, got)
				}
			})
		}
	}
}
