package engine_test

import (
	"context"
	"errors"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

// A kernel that refuses Continue, as those before 5.5 do: the target has the default answer.
func TestAnswerThatTheKernelRefuses(t *testing.T) {
	for name, cfg := range paths(nil) {
		t.Run(name, func(t *testing.T) {
			const calls = 20
			m := startMediator(t)
			var once sync.Once
			cfg.Workers = 1
			cfg.KeepProcs = true // no stop of the world
			cfg.BySyscall = true
			cfg.DefaultErrno = unix.EPERM
			cfg.Handler = engine.HandlerFunc(func(r engine.Request) {
				once.Do(func() {
					runtime.LockOSThread()
					if err := m.between(notify.IoctlSend); err != nil {
						t.Error(err)
					}
				})
				if r.Data().Args[0]%2 == 0 {
					if err := r.Return(1); err != nil {
						t.Error(err)
					}
					return
				}
				var un *notify.UnsupportedError
				if err := r.Continue(); !errors.As(err, &un) || !errors.Is(err, errors.ErrUnsupported) || !errors.Is(err, unix.EINVAL) {
					t.Errorf("Continue: %v", err)
				}
				if err := r.Return(2); !errors.Is(err, engine.ErrAnswered) {
					t.Errorf("an answer after the default one: %v", err)
				}
			})
			e, stop := start(t, cfg)
			c := startTarget(t, 1, calls)
			mustAdd(t, e, c)
			c.release()
			if r := c.results(); r.Values[1] != calls/2 || r.errno(unix.EPERM) != calls/2 {
				t.Errorf("target saw %+v", r)
			}
			for range calls / 2 {
				if said := m.next(t); said != "refused" {
					t.Errorf("the mediator says %q", said)
				}
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			got := checkBalance(t, e)
			if got.Refused != calls/2 || got.Defaulted != calls/2 || got.Answered != calls || got.Continued != 0 || got.Unanswered != 0 {
				t.Errorf("counters: %+v", got)
			}
			if st := e.Syscalls(); len(st) != 1 || st[0].Answered != calls {
				t.Errorf("by system call: %+v", st)
			}
			if err := m.done(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Whatever flag a listener comes with, the engine's mode is set; and one that is handed
// back has none.
func TestWakeUpFlagOfAListenerThatIsHandedOver(t *testing.T) {
	if err := notify.FeatureSyncWakeUp.Probe(); err != nil {
		t.Skip(err)
	}
	m := startMediator(t)
	c := startTarget(t, 1, 1)
	ended := make(chan struct{})
	osthread.Start(func() {
		defer close(ended)
		if err := m.between(notify.IoctlSetFlags); err != nil {
			t.Error(err)
			return
		}
		for _, step := range []struct {
			mode engine.WakeUp
			says []string
		}{
			{engine.Sync, []string{"flags 1", "flags 0"}},
			{engine.Async, []string{"flags 0"}},
			{engine.AutoWakeUp, []string{"flags 1", "flags 0"}},
		} {
			e, err := engine.New(engine.Config{Handler: engine.HandlerFunc(func(engine.Request) {}), WakeUp: step.mode, KeepProcs: true})
			if err != nil {
				t.Error(err)
				return
			}
			s, err := e.Add(c.l)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := e.Release(context.Background(), s); err != nil {
				t.Error(err)
			}
			for _, want := range step.says {
				if said := m.next(t); said != want {
					t.Errorf("mode %d: the mediator says %q, want %q", step.mode, said, want)
				}
			}
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_ = e.Run(ctx) // closes the rest
		}
	})
	<-ended
}

// A handler that sees that its target is gone, and returns, is not at fault.
func TestTargetThatIsGoneIsNobodysFault(t *testing.T) {
	for how, handle := range map[string]func(engine.Request) error{
		"without an answer": func(engine.Request) error { return engine.ErrGone },
		"two answers": func(r engine.Request) error {
			if err := r.Return(1); !errors.Is(err, engine.ErrGone) {
				return err
			}
			return r.Fail(unix.EIO)
		},
		"a descriptor, then an errno": func(r engine.Request) error {
			if err := r.ReturnFD(0, true); !errors.Is(err, engine.ErrGone) {
				return err
			}
			return r.Fail(unix.EIO)
		},
	} {
		for name, cfg := range paths(nil) {
			t.Run(how+"/"+name, func(t *testing.T) {
				entered := make(chan struct{})
				cfg.Handler = engine.HandlerFunc(func(r engine.Request) {
					close(entered)
					for r.Alive() {
						time.Sleep(time.Millisecond)
					}
					if err := handle(r); !errors.Is(err, engine.ErrGone) {
						t.Errorf("answer to nobody: %v", err)
					}
				})
				e, stop := start(t, cfg)
				c := startTarget(t, 1, 1)
				s := mustAdd(t, e, c)
				c.release()
				<-entered
				if err := c.cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				<-c.out
				<-s.Done()
				if err := stop(); err != nil {
					t.Error(err)
				}
				if got := checkBalance(t, e); got.Stale != 1 || got.Unanswered+got.DuplicateAnswers+got.Defaulted+got.Spent != 0 {
					t.Errorf("counters: %+v", got)
				}
			})
		}
	}
}

// Run returns although a handler never does, and though somebody waits for it to take a
// listener out; nothing is received afterwards.
func TestRunReturnsWhateverHandlersDo(t *testing.T) {
	for name, cfg := range paths(nil) {
		for _, private := range []bool{false, true} {
			if private && name != "inline" {
				continue
			}
			t.Run(name+map[bool]string{true: ", private files"}[private], func(t *testing.T) {
				never := make(chan struct{})
				entered := make(chan struct{}, 9)
				cfg.Workers = 1
				cfg.StopTimeout = 50 * time.Millisecond
				if private {
					cfg.PrivateFiles = true
					cfg.ThreadHook = func(engine.Thread) error { return unix.Unshare(unix.CLONE_FILES) }
				}
				cfg.Handler = engine.HandlerFunc(func(r engine.Request) {
					entered <- struct{}{}
					<-never
					if err := r.Return(1); !errors.Is(err, engine.ErrAnswered) {
						t.Errorf("late answer: %v", err)
					}
				})
				e, err := engine.New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				var listeners []*child
				var sources []*engine.Source
				for range 3 {
					c := startTarget(t, 1, 1)
					listeners, sources = append(listeners, c), append(sources, mustAdd(t, e, c))
				}
				ctx, cancel := context.WithCancel(context.Background())
				ran := make(chan error, 1)
				go func() { ran <- e.Run(ctx) }()
				listeners[0].release()
				<-entered
				removed, released := make(chan error, 1), make(chan error, 1)
				var back *notify.Listener
				go func() { removed <- e.Remove(context.Background(), sources[1]) }()
				go func() {
					l, err := e.Release(context.Background(), sources[2])
					back = l
					released <- err
				}()
				for !engine.IsRetiring(sources[1]) || !engine.IsRetiring(sources[2]) { // both wait, or are through where the receive thread is free
					time.Sleep(time.Millisecond)
				}
				cancel()
				select {
				case err = <-ran:
				case <-time.After(testDeadline):
					t.Fatal("Run waits for the handler")
				}
				if !errors.Is(err, engine.ErrStopTimeout) {
					t.Errorf("Run: %v, want ErrStopTimeout", err)
				}
				if err := errors.Join(<-removed, <-released); err != nil {
					t.Error(err)
				}
				if r := listeners[0].results(); r.errno(unix.ENOSYS) != 1 {
					t.Errorf("the stuck handler's target saw %+v", r)
				}
				if got := e.Counters(); got.Late != 1 || got.Received != 1 || got.Balance() != 0 {
					t.Errorf("counters: %+v", got)
				}
				close(never) // and now it does: the thread receives nothing more
				other, stop := start(t, engine.Config{Handler: engine.HandlerFunc(func(r engine.Request) { _ = r.Return(5) })})
				if _, err := other.Add(back); err != nil {
					t.Fatal(err)
				}
				listeners[2].release()
				if r := listeners[2].results(); r.Values[5] != 1 {
					t.Errorf("the released listener's target saw %+v", r)
				}
				if err := stop(); err != nil {
					t.Error(err)
				}
				if got := checkBalance(t, e); got.Received != 1 {
					t.Errorf("counters: %+v", got)
				}
			})
		}
	}
}

// A running engine whose receive thread has its own file table takes no listener, which
// stays usable.
func TestAddToAThreadWithItsOwnFiles(t *testing.T) {
	hooked := make(chan struct{})
	e, stop := start(t, engine.Config{
		Handler: engine.HandlerFunc(func(engine.Request) {}), PrivateFiles: true,
		ThreadHook: func(engine.Thread) error { defer close(hooked); return unix.Unshare(unix.CLONE_FILES) },
	})
	<-hooked
	c := startTarget(t, 1, 5)
	if _, err := e.Add(c.l); !errors.Is(err, engine.ErrPrivateFiles) {
		t.Errorf("Add: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, err := e.Add(c.l); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Add to a stopped engine: %v", err)
	}
	other, stop := start(t, engine.Config{Handler: engine.HandlerFunc(func(r engine.Request) { _ = r.Return(5) })})
	mustAdd(t, other, c)
	c.release()
	if r := c.results(); r.Values[5] != 5 {
		t.Errorf("target saw %+v", r)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// A Release that is given up leaves the listener with the engine, which goes on with it; but
// somebody who wanted it removed meanwhile gets that.
func TestReleaseThatIsGivenUp(t *testing.T) {
	for name, cfg := range paths(nil) {
		for _, unwanted := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", unwanted"}[unwanted], func(t *testing.T) {
				goOn, entered := make(chan struct{}), make(chan struct{}, 1000)
				cfg.Workers = 1
				cfg.Handler = engine.HandlerFunc(func(r engine.Request) {
					entered <- struct{}{}
					<-goOn
					_ = r.Return(3)
				})
				e, stop := start(t, cfg)
				const calls = 300
				c := startTarget(t, 2, calls)
				s := mustAdd(t, e, c)
				c.release()
				<-entered
				ctx, cancel := context.WithCancel(context.Background())
				released := make(chan error, 1)
				go func() {
					_, err := e.Release(ctx, s)
					released <- err
				}()
				for !engine.IsRetiring(s) {
					time.Sleep(time.Millisecond)
				}
				removed := make(chan error, 1)
				if unwanted {
					go func() { removed <- e.Remove(context.Background(), s) }()
					for !engine.Unwanted(e, s) {
						time.Sleep(time.Millisecond)
					}
				}
				cancel()
				if err := <-released; !errors.Is(err, context.Canceled) {
					t.Errorf("Release: %v", err)
				}
				close(goOn)
				if unwanted {
					if err := <-removed; err != nil {
						t.Error(err)
					}
					if r := c.results(); r.errno(unix.ENOSYS) != 2 {
						t.Errorf("target saw %+v", r)
					}
				} else {
					if r := c.results(); r.Values[3] != 2*calls {
						t.Errorf("target saw %+v", r)
					}
					select {
					case <-s.Done(): // without targets it is removed, like any other
					case <-time.After(testDeadline):
						t.Error("the listener without targets is still open")
					}
				}
				if err := stop(); err != nil {
					t.Error(err)
				}
				checkBalance(t, e)
			})
		}
	}
}
