package engine

import (
	"testing"
	"time"

	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

// moved is of how many of 100 tries a worker that looks around left its CPU, on which
// another worker is in the given phase.
func moved(phase uint64, ownThread bool) (n int, ok bool) {
	rx := &receiver{tallies: make([]tally, 3)}
	a, b := rx.newWorker(1), rx.newWorker(2)
	rx.crew.init([]*worker{rx.newWorker(0), a, b})
	done := make(chan struct{})
	osthread.Start(func() {
		defer close(done)
		if ok = len(osthread.Allowed()) > 1; !ok {
			return
		}
		a.req.state.Store(phase)
		if ownThread {
			b.tid.Store(int32(unix.Gettid()))
		}
		for range 100 {
			here := osthread.CPU()
			a.cpu.Store(int32(here))
			b.preempted = -1 // it was, since the last look
			b.spread(0)
			if osthread.CPU() != here {
				n++
			}
		}
		ok = len(osthread.Allowed()) > 1 // as before
	})
	<-done
	return n, ok
}

func TestWorkersSpread(t *testing.T) {
	if _, ok := moved(running, true); !ok {
		t.Skip("one CPU, nowhere to go")
	}
	// The scheduler moves it as well, on a busy machine often; but not each time, nor always.
	ever := func(is func() bool) bool {
		for end := time.Now().Add(time.Minute); time.Now().Before(end); {
			if is() {
				return true
			}
		}
		return false
	}
	if !ever(func() bool { n, _ := moved(running, true); return n >= 60 }) {
		t.Error("stays with another worker")
	}
	if !ever(func() bool { n, _ := moved(idle, true); return n <= 40 }) {
		t.Error("moves away from an idle worker")
	}
	if !ever(func() bool { n, _ := moved(running, false); return n <= 40 }) {
		t.Error("moves a goroutine's thread")
	}
}
