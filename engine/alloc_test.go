package engine_test

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// Nothing is allocated for a notification, whatever the handler does with it: what a
// long storm allocates is what the engine does once, or once in a while, whatever the
// number of calls.
func TestNoAllocationsPerNotification(t *testing.T) {
	const threads, calls = 4, 500 // an emulated machine does a thousand in a second
	var kept engine.Request
	for _, h := range []struct {
		name   string
		handle engine.HandlerFunc
	}{
		{"return", func(r engine.Request) { _ = r.Return(1) }},
		{"a wait target", func(r engine.Request) { _ = r.Return(1) }},
		{"fail", func(r engine.Request) { _ = r.Fail(unix.EPERM) }},
		{"continue", func(r engine.Request) { _ = r.Continue() }},
		{"as it is", func(r engine.Request) { _ = r.Answer(notify.Resp{Val: 1}) }},
		{"a descriptor", func(r engine.Request) { // always of the same number
			if _, err := r.Install(notify.AddFD{SrcFD: 2, Flags: notify.AddFDSetFD | notify.AddFDSend, NewFD: 100}); err != nil {
				panic(err)
			}
		}},
		{"no answer", func(engine.Request) {}},
		{"two answers", func(r engine.Request) {
			if r.Return(1) != nil || !errors.Is(r.Return(2), engine.ErrAnswered) {
				panic("no second answer")
			}
		}},
		{"look at everything", func(r engine.Request) {
			if r.Data().NR != unix.SYS_GETPPID || r.PID() == 0 || r.ID() == 0 || r.Source() == nil || r.Waited() < 0 || !r.Alive() {
				panic("odd request")
			}
			_ = r.Return(1)
		}},
		{"read memory", func(r engine.Request) {
			var code [16]byte // around which the call was made
			n, err := r.Target().ReadMem(r.Data().IP-8, code[:])
			if n != len(code) || err != nil || code == [16]byte{} {
				panic("no memory")
			}
			_ = r.Return(1)
		}},
		{"spent", func(r engine.Request) { // one worker
			_, err := kept.AddFD(0, true)
			if kept.Return(1) != engine.ErrSpent || err != engine.ErrSpent || kept.Data().NR != 0 || kept.Alive() {
				panic("not spent")
			}
			kept = r
			_ = r.Return(1)
		}},
	} {
		for name, cfg := range paths(h.handle) {
			t.Run(fmt.Sprint(h.name, "/", name), func(t *testing.T) {
				if err := notify.FeatureAddFDSend.Probe(); err != nil && h.name == "a descriptor" {
					t.Skip(err)
				}
				if raceBuild && h.name == "read memory" {
					t.Skip("under the race detector the vectors of process_vm_readv are on the heap")
				}
				cfg.DefaultErrno = unix.EPERM
				if h.name == "a wait target" {
					cfg.WaitTarget = time.Second
				}
				if h.name == "spent" {
					cfg.Workers = 1
				}
				e, stop := start(t, cfg)
				c := startTarget(t, threads, calls)
				mustAdd(t, e, c)
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				c.release()
				// A wait target drops calls where the machine gives the engine no time.
				if r := c.results(); r.OK+r.errno(unix.EPERM)+r.errno(unix.EINTR) != threads*calls || r.errno(unix.EINTR) > 0 && h.name != "a wait target" {
					t.Errorf("target saw %+v", r)
				}
				runtime.ReadMemStats(&after)
				// One for each call is what is looked for; the controller has some for each new plan.
				if n := after.Mallocs - before.Mallocs; n > uint64(threads*calls/2) {
					t.Errorf("%d allocations for %d notifications", n, threads*calls)
				}
				if err := stop(); err != nil {
					t.Error(err)
				}
				if got := checkBalance(t, e); got.Panicked != 0 {
					t.Errorf("counters: %+v", got)
				}
			})
		}
	}
}
