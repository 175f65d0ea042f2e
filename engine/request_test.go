package engine_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// spent reports what is wrong with a request that should be spent.
func spent(t *testing.T, r engine.Request) {
	t.Helper()
	for name, err := range map[string]error{"Return": r.Return(1), "Fail": r.Fail(unix.EPERM), "Fail, by a bad errno": r.Fail(512), "Continue": r.Continue(), "ReturnFD": r.ReturnFD(0, true)} {
		if !errors.Is(err, engine.ErrSpent) {
			t.Errorf("%s of a spent request: %v", name, err)
		}
	}
	if n, err := r.AddFD(0, true); n != -1 || !errors.Is(err, engine.ErrSpent) {
		t.Errorf("AddFD of a spent request: %d, %v", n, err)
	}
	if _, err := r.Target().ReadMem(0, nil); !errors.Is(err, engine.ErrGone) {
		t.Errorf("the target of a spent request: %v", err)
	}
	if r.ID() != 0 || r.PID() != 0 || r.Data() != (notify.Data{}) || r.Source() != nil || r.Waited() != 0 || r.Alive() {
		t.Errorf("a spent request has ID %d, PID %d, data %+v, source %p, waited %v, alive %v", r.ID(), r.PID(), r.Data(), r.Source(), r.Waited(), r.Alive())
	}
}

// A request that was kept is spent while the same worker has the next call in hand, and
// that call gets its own answer.
func TestKeptRequestIsSpent(t *testing.T) {
	for name, cfg := range paths(nil) {
		t.Run(name, func(t *testing.T) {
			const calls = 5
			var kept []engine.Request
			cfg.Workers = 1
			cfg.Handler = engine.HandlerFunc(func(r engine.Request) {
				for _, old := range kept {
					spent(t, old)
				}
				kept = append(kept, r)
				if d := r.Data(); d.Args[0] != uint64(len(kept)) || r.ID() == 0 || r.PID() == 0 || r.Source() == nil || !r.Alive() {
					t.Errorf("call %d has %+v, ID %d", len(kept), d, r.ID())
				}
				if len(kept) == calls { // and one that is answered by default
					return
				}
				if err := r.Return(int64(r.Data().Args[0]) + echoBase); err != nil {
					t.Error(err)
				}
				if r.Data().Args[0] != uint64(len(kept)) {
					t.Error("the data are gone with the answer")
				}
			})
			e, stop := start(t, cfg)
			c := startTarget(t, 1, calls)
			mustAdd(t, e, c)
			c.release()
			if r := c.results(); r.Echoed != calls-1 || r.errno(unix.ENOSYS) != 1 {
				t.Errorf("target saw %+v", r)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			for _, old := range kept {
				spent(t, old)
			}
			got := checkBalance(t, e)
			// Return, Fail, Fail and Continue; ReturnFD gives up before its answer.
			if want := uint64(4 * (calls*(calls-1)/2 + calls)); got.Spent != want || got.DuplicateAnswers != 0 {
				t.Errorf("%d spent answers, want %d: %+v", got.Spent, want, got)
			}
		})
	}
	spent(t, engine.Request{})
}

// Goroutines answer and read requests around the end of their handlers, while
// the workers go on: each call has an answer of its own, and each reader sees its own call or none.
func TestLateGoroutinesReachNoOtherCall(t *testing.T) {
	for name, cfg := range paths(nil) {
		t.Run(name, func(t *testing.T) {
			const threads, calls = 4, 250
			type left struct {
				r    engine.Request
				id   uint64
				data notify.Data
			}
			late := make(chan left, 64)
			var readers sync.WaitGroup
			var won, own, none atomic.Int64
			for range 3 {
				readers.Go(func() {
					for l := range late {
						for range 8 {
							switch d := l.r.Data(); d {
							case l.data:
								own.Add(1)
							case notify.Data{}:
								none.Add(1)
							default:
								t.Errorf("read %+v, of call %+v", d, l.data)
							}
							if id := l.r.ID(); id != 0 && id != l.id {
								t.Errorf("ID %d, of call %d", id, l.id)
							}
						}
						switch err := l.r.Return(int64(l.data.Args[0]) + echoBase); {
						case err == nil:
							won.Add(1)
						case !errors.Is(err, engine.ErrAnswered) && !errors.Is(err, engine.ErrSpent):
							t.Errorf("late answer: %v", err)
						}
					}
				})
			}
			cfg.DefaultErrno = unix.EPERM
			cfg.Handler = engine.HandlerFunc(func(r engine.Request) {
				l := left{r, r.ID(), r.Data()}
				select {
				case late <- l:
				default: // they have enough to do
				}
				if l.data.Args[0]%2 == 0 {
					if err := r.Return(int64(l.data.Args[0]) + echoBase); err != nil && !errors.Is(err, engine.ErrAnswered) {
						t.Error(err)
					}
				} // else one of them answers, or the engine by default
			})
			e, stop := start(t, cfg)
			c := startTarget(t, threads, calls)
			mustAdd(t, e, c)
			c.release()
			r := c.results()
			if err := stop(); err != nil {
				t.Error(err)
			}
			close(late)
			readers.Wait()
			got := checkBalance(t, e)
			if r.Strayed != 0 || r.Echoed+r.errno(unix.EPERM) != threads*calls || uint64(r.errno(unix.EPERM)) != got.Defaulted {
				t.Errorf("target saw %+v; counters %+v", r, got)
			}
			t.Logf("%d answers and %d reads in time, %d reads too late; %+v", won.Load(), own.Load(), none.Load(), got)
			if none.Load() == 0 || got.Spent == 0 {
				t.Error("nobody was late: the test shows nothing")
			}
		})
	}
}
