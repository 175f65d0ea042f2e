package engine_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// A handler may set the limits of each call, and take them back.
func TestLimitsOfACall(t *testing.T) {
	limits, err := engine.NewLimits(20*time.Millisecond, unix.EBUSY)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name      string
		takenBack bool
		errno     unix.Errno
		late      uint64
	}{{"limited", false, unix.EBUSY, 1}, {"taken back", true, unix.EDOM, 0}} {
		for name, cfg := range paths(nil) {
			t.Run(c.name+"/"+name, func(t *testing.T) {
				release := make(chan bool)
				var once sync.Once
				free := func() { once.Do(func() { close(release) }) }
				defer free()
				cfg.DefaultErrno = unix.EDOM
				cfg.Handler = engine.HandlerFunc(func(r engine.Request) {
					r.Limit(limits)
					if c.takenBack {
						r.Limit(nil)
						return
					}
					<-release
				})
				e, stop := start(t, cfg)
				tg := startTarget(t, 1, 1)
				mustAdd(t, e, tg)
				tg.release()
				if r := tg.results(); r.errno(c.errno) != 1 {
					t.Errorf("target saw %+v", r)
				}
				free()
				if err := stop(); err != nil {
					t.Error(err)
				}
				if got := checkBalance(t, e); got.Late != c.late || got.Defaulted != 1 {
					t.Errorf("counters %+v", got)
				}
			})
		}
	}
	for _, bad := range []struct {
		deadline time.Duration
		errno    unix.Errno
	}{{-2, 0}, {0, 512}} {
		if _, err := engine.NewLimits(bad.deadline, bad.errno); err == nil {
			t.Errorf("limits %v: no error", bad)
		}
	}
}

// picky is a handler that wants every second call on the receive thread.
type picky struct {
	calls [2]atomic.Int64 // on the queue, inline
	tids  [2]atomic.Int64
}

// wanted says of a call, whose first argument is its number, whether it is for the receive thread.
func wanted(d *notify.Data) bool { return d.Args[0]%2 == 0 }

func (p *picky) Inlines(s *engine.Source, d *notify.Data) bool { return wanted(d) }

func (p *picky) Handle(r engine.Request) {
	d := r.Data()
	i := 0
	if wanted(&d) {
		i = 1
	}
	p.tids[i].Store(int64(unix.Gettid()))
	p.calls[i].Add(1)
	_ = r.Continue()
}

// A handler that is an Inliner has the calls that it wants on the receive thread, by itself and as part of a Mux.
func TestInliner(t *testing.T) {
	for _, part := range []bool{false, true} {
		p := &picky{}
		var h engine.Handler = p
		if part {
			h = engine.NewMux(p)
		}
		e, stop := start(t, engine.Config{Handler: h, Workers: 1, Receivers: 1})
		tg := startTarget(t, 1, 100)
		mustAdd(t, e, tg)
		tg.release()
		tg.results()
		want := int64(e.Debug().Receivers[0].TID)
		if p.tids[1].Load() != want || p.tids[0].Load() == want || p.calls[0].Load() != 50 || p.calls[1].Load() != 50 {
			t.Errorf("part of a Mux %v: threads %d and, inline, %d, the receive thread is %d; %d and %d calls",
				part, p.tids[0].Load(), p.tids[1].Load(), want, p.calls[0].Load(), p.calls[1].Load())
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		checkBalance(t, e)
	}
}
