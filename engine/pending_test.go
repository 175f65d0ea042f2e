package engine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// inTarget is what the target has at a number, and whether it is close-on-exec.
func inTarget(t *testing.T, r engine.Request, n int) (name string, cloexec bool) {
	t.Helper()
	name, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", r.PID(), n))
	if err != nil {
		t.Error(err)
	}
	info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", r.PID(), n))
	if err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(string(info)) {
		var flags int
		if k, _ := fmt.Sscanf(line, "flags:\t%o", &flags); k == 1 {
			cloexec = flags&unix.O_CLOEXEC != 0
		}
	}
	return name, cloexec
}

// TestInstall: each combination of ADDFD's flags, what is refused, and what is left of the call then.
func TestInstall(t *testing.T) {
	if err := notify.FeatureAddFDSend.Probe(); err != nil {
		t.Skip(err)
	}
	for name, cfg := range paths(nil) {
		t.Run(name, func(t *testing.T) {
			null, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			defer null.Close()
			src := uint32(null.Fd())
			var n int
			steps := []func(r engine.Request){
				func(r engine.Request) { // a number of choice, and an answer of choice
					if n, err := r.Install(notify.AddFD{SrcFD: src, Flags: notify.AddFDSetFD, NewFD: 77, NewFDFlags: unix.O_CLOEXEC}); n != 77 || err != nil {
						t.Errorf("SETFD: %d, %v", n, err)
					}
					if name, cloexec := inTarget(t, r, 77); name != os.DevNull || !cloexec {
						t.Errorf("77 is %q, close-on-exec: %v", name, cloexec)
					}
					if err := r.Answer(notify.Resp{ID: 12345, Val: 5}); err != nil { // the ID is not ours to say
						t.Error(err)
					}
					if n, err := r.Install(notify.AddFD{SrcFD: src}); n != -1 || !errors.Is(err, engine.ErrAnswered) {
						t.Errorf("after the answer: %d, %v", n, err)
					}
				},
				func(r engine.Request) { // both at once
					if n, err := r.Install(notify.AddFD{SrcFD: src, Flags: notify.AddFDSetFD | notify.AddFDSend, NewFD: 78}); n != 78 || err != nil {
						t.Errorf("SETFD and SEND: %d, %v", n, err)
					}
					if err := r.Return(1); !errors.Is(err, engine.ErrAnswered) {
						t.Errorf("a second answer: %v", err)
					}
				},
				func(r engine.Request) {
					if name, cloexec := inTarget(t, r, 78); name != os.DevNull || cloexec {
						t.Errorf("78 is %q, close-on-exec: %v", name, cloexec)
					}
					if err := r.SendFD(int(src), true); err != nil {
						t.Error(err)
					}
				},
				func(r engine.Request) { // what is refused leaves the call as it was
					for _, a := range []notify.AddFD{
						{SrcFD: 1 << 31},
						{SrcFD: src, Flags: 4},
						{SrcFD: src, NewFD: 80},
						{SrcFD: src, Flags: notify.AddFDSetFD, NewFD: 1 << 31},
						{SrcFD: src, NewFDFlags: unix.O_NONBLOCK},
					} {
						if n, err := r.Install(a); n != -1 || !errors.Is(err, notify.ErrBadAddFD) {
							t.Errorf("%+v: %d, %v", a, n, err)
						}
					}
					for _, flags := range []uint32{0, notify.AddFDSend} {
						if n, err := r.Install(notify.AddFD{SrcFD: 1 << 20, Flags: flags}); n != -1 || !errors.Is(err, unix.EBADF) {
							t.Errorf("a descriptor that is not open, flags %d: %d, %v", flags, n, err)
						}
						if n, err := r.Install(notify.AddFD{SrcFD: src, Flags: flags | notify.AddFDSetFD, NewFD: 1 << 30}); n != -1 || !errors.Is(err, unix.EBADF) && !errors.Is(err, unix.EMFILE) {
							t.Errorf("a number beyond the limit, flags %d: %d, %v", flags, n, err)
						}
					}
					if err := r.Answer(notify.Resp{Error: -512}); !errors.Is(err, notify.ErrBadResp) {
						t.Errorf("a restart code: %v", err)
					}
					if err := r.Fail(unix.EMFILE); err != nil {
						t.Error(err)
					}
				},
			}
			cfg.Handler = engine.HandlerFunc(func(r engine.Request) {
				n++
				steps[n-1](r)
			})
			cfg.Workers = 1
			e, stop := start(t, cfg)
			c := startTarget(t, 1, len(steps))
			mustAdd(t, e, c)
			c.release()
			r := c.results()
			if r.Values[5] != 1 || r.Values[78] != 1 || r.OK != 3 || r.errno(unix.EMFILE) != 1 {
				t.Errorf("target saw %+v", r)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			if got := checkBalance(t, e); got.Answered != 4 || got.DuplicateAnswers != 2 || got.Defaulted != 0 || got.Unanswered != 0 {
				t.Errorf("counters: %+v", got)
			}
			if l := e.Latencies(); l.Answer.Count != 4 || l.Service.Count != 4 {
				t.Errorf("%d answers, %d services", l.Answer.Count, l.Service.Count)
			}
		})
	}
}

// TestDetach: calls are answered from other goroutines after their handlers returned, each its own.
func TestDetach(t *testing.T) {
	for name, cfg := range paths(nil) {
		t.Run(name, func(t *testing.T) {
			const threads, calls = 4, 250
			var later sync.WaitGroup
			later.Add(threads * calls)
			cfg.BySyscall = true
			cfg.Handler = engine.HandlerFunc(func(r engine.Request) {
				id, data, pid := r.ID(), r.Data(), r.PID()
				p := r.Detach()
				if err := r.Return(1); !errors.Is(err, engine.ErrAnswered) {
					t.Errorf("answer of a request that was detached: %v", err)
				}
				if r.Data() != data {
					t.Error("the handler's data are gone")
				}
				go func() {
					defer later.Done()
					for r.ID() != 0 { // until the handler has returned
						runtime.Gosched()
					}
					spent(t, r)
					if p.ID() != id || p.Data() != data || p.PID() != pid || !p.Alive() || p.Source() == nil {
						t.Errorf("pending %+v of pid %d, was %+v of %d", p.Data(), p.PID(), data, pid)
					}
					select {
					case <-p.Done():
						t.Error("done before the answer")
					default:
					}
					if err := p.Return(int64(data.Args[0]) + echoBase); err != nil {
						t.Error(err)
					}
					<-p.Done()
					if err := p.Return(1); !errors.Is(err, engine.ErrAnswered) {
						t.Errorf("second answer: %v", err)
					}
					if p.Detach().Return(1) == nil {
						t.Error("a third answer")
					}
				}()
			})
			e, stop := start(t, cfg)
			c := startTarget(t, threads, calls)
			mustAdd(t, e, c)
			c.release()
			if r := c.results(); r.Echoed != threads*calls {
				t.Errorf("target saw %+v", r)
			}
			later.Wait()
			if err := stop(); err != nil {
				t.Error(err)
			}
			got := checkBalance(t, e)
			if got.Answered != threads*calls || got.Unanswered != 0 || got.Defaulted != 0 || got.DuplicateAnswers != 3*threads*calls {
				t.Errorf("counters: %+v", got)
			}
			if l := e.Latencies(); l.Service.Count != threads*calls {
				t.Errorf("%d services", l.Service.Count)
			}
			if st := e.Syscalls(); len(st) != 1 || st[0].Answered != threads*calls {
				t.Errorf("by system call: %+v", st)
			}
		})
	}
}

// TestDetachedKeepsNoWorker: the only worker goes on, and who comes next answers for all.
func TestDetachedKeepsNoWorker(t *testing.T) {
	for name, cfg := range paths(nil) {
		t.Run(name, func(t *testing.T) {
			const threads = 8
			var waiting []*engine.Pending
			cfg.Workers = 1
			cfg.Handler = engine.HandlerFunc(func(r engine.Request) {
				waiting = append(waiting, r.Detach())
				if own := r.Source().Counters(); own.InHandlers != 0 || own.Detached != uint64(len(waiting)) {
					t.Errorf("%d detached, the listener's counters: %+v", len(waiting), own)
				}
				if len(waiting) < threads {
					return
				}
				if got := r.Source().Engine().Counters(); got.Detached != threads || got.InHandlers > 1 {
					t.Errorf("counters: %+v", got)
				}
				for _, p := range waiting {
					if err := p.Return(3); err != nil {
						t.Error(err)
					}
				}
			})
			e, stop := start(t, cfg)
			c := startTarget(t, threads, 1)
			mustAdd(t, e, c)
			c.release()
			if r := c.results(); r.Values[3] != threads {
				t.Errorf("target saw %+v", r)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			checkBalance(t, e)
		})
	}
}

// TestDetachedUntilItIsTooLate: the deadline, a stop and a removal apply to requests whose handlers have returned.
func TestDetachedUntilItIsTooLate(t *testing.T) {
	for name, cfg := range paths(nil) {
		for _, end := range []string{"deadline", "stop", "stop in time", "death", "remove"} {
			t.Run(end+"/"+name, func(t *testing.T) {
				const threads = 4
				cfg := cfg
				pendings := make(chan *engine.Pending, threads)
				cfg.Handler = engine.HandlerFunc(func(r engine.Request) { pendings <- r.Detach() })
				switch end {
				case "deadline":
					cfg.HandlerDeadline = 5 * time.Millisecond
				case "stop":
					cfg.StopTimeout = 5 * time.Millisecond
				case "stop in time":
					cfg.StopTimeout = testDeadline
				}
				e, stop := start(t, cfg)
				c := startTarget(t, threads, 1)
				s := mustAdd(t, e, c)
				c.release()
				var all []*engine.Pending
				for range threads {
					all = append(all, <-pendings)
				}
				want, answered := engine.ErrAnswered, uint64(threads)
				switch end {
				case "stop":
					if err := stop(); !errors.Is(err, engine.ErrStopTimeout) {
						t.Errorf("stop: %v", err)
					}
				case "stop in time":
					go func() {
						for _, p := range all {
							if err := p.Fail(unix.ENOSYS); err != nil {
								t.Error(err)
							}
						}
					}()
					if err := stop(); err != nil {
						t.Error(err)
					}
				case "death":
					_ = c.cmd.Process.Kill()
					<-c.out
					for _, p := range all {
						if p.Alive() {
							t.Error("a dead target waits")
						}
						if err := p.Return(1); !errors.Is(err, engine.ErrGone) {
							t.Errorf("answer to a dead target: %v", err)
						}
					}
					want, answered = engine.ErrGone, 0
				case "remove":
					ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
					if err := e.Remove(ctx, s); !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("removed with detached requests: %v", err)
					}
					cancel()
					for _, p := range all {
						if err := p.Fail(unix.ENOSYS); err != nil {
							t.Error(err)
						}
					}
					<-s.Done()
				}
				for _, p := range all {
					select {
					case <-p.Done():
					case <-time.After(testDeadline):
						t.Fatal("a detached request is never over")
					}
					if err := p.Return(1); !errors.Is(err, want) {
						t.Errorf("too late: %v, want %v", err, want)
					}
				}
				if end != "death" {
					if r := c.results(); r.errno(unix.ENOSYS) != threads {
						t.Errorf("target saw %+v", r)
					}
				}
				_ = stop()
				got := checkBalance(t, e)
				if got.Answered != answered || got.Stale != threads-answered {
					t.Errorf("counters: %+v", got)
				}
				if late := end == "deadline" || end == "stop"; late != (got.Late == threads) || late != (got.Defaulted == threads) {
					t.Errorf("counters: %+v", got)
				}
			})
		}
	}
}

// TestDetachForNothing: of what was answered or is spent.
func TestDetachForNothing(t *testing.T) {
	p := engine.Request{}.Detach()
	<-p.Done()
	if err := p.Return(1); !errors.Is(err, engine.ErrSpent) {
		t.Errorf("pending of nothing: %v", err)
	}
	e, stop := start(t, engine.Config{Inline: true, Handler: engine.HandlerFunc(func(r engine.Request) {
		_ = r.Return(1)
		p = r.Detach()
		<-p.Done()
		if err := p.Return(1); !errors.Is(err, engine.ErrAnswered) {
			t.Errorf("pending of what was answered: %v", err)
		}
	})})
	c := startTarget(t, 1, 1)
	mustAdd(t, e, c)
	c.release()
	c.results()
	if err := stop(); err != nil {
		t.Error(err)
	}
	spent(t, p.Request)
}

// TestGo: handlers on goroutines of their own, at most so many at once; what is odd about them is counted.
func TestGo(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no goroutine at most is no error")
		}
	}()
	for name, cfg := range paths(nil) {
		t.Run(name, func(t *testing.T) {
			const threads, calls, most = 8, 50, 3
			var now, high, later atomic.Int64
			cfg.Workers = 1
			cfg.DefaultErrno = unix.EPERM
			cfg.Handler = engine.Go(engine.Go(engine.HandlerFunc(func(r engine.Request) {
				n := now.Add(1)
				defer now.Add(-1)
				for h := high.Load(); n > h && !high.CompareAndSwap(h, n); h = high.Load() {
				}
				runtime.Gosched()
				switch r.Data().Args[0] {
				case 1:
					panic("odd")
				case 2:
					runtime.Goexit()
				case 3:
				case 5: // until there is another one
					for end := time.Now().Add(testDeadline); high.Load() < 2 && time.Now().Before(end); {
						runtime.Gosched()
					}
					_ = r.Return(1)
				case 4:
					if p := r.Detach(); later.CompareAndSwap(0, 1) {
						go func() { _ = p.Return(1) }()
					}
				default:
					_ = r.Return(1)
				}
			}), most), most)
			if cfg.Inline { // a Goexit that the receive thread runs itself would end it
				cfg.Handler = engine.Go(cfg.Handler, threads)
			}
			e, stop := start(t, cfg)
			c := startTarget(t, threads, calls)
			mustAdd(t, e, c)
			c.release()
			if r := c.results(); r.Values[1] != threads*calls-3 || r.errno(unix.EPERM) != 3 {
				t.Errorf("target saw %+v", r)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			got := checkBalance(t, e)
			if got.Panicked != 2 || got.Unanswered != 1 || got.Defaulted != 3 {
				t.Errorf("counters: %+v", got)
			}
			if n := high.Load(); !cfg.Inline && (n < 2 || n > 2*most+1) {
				t.Errorf("%d at once, want 2 to %d, twice, and the worker", n, most)
			}
		})
	}
	engine.Go(nil, 0)
}
