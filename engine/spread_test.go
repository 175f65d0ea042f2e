package engine

import (
	"testing"

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
	n, ok := moved(running, true)
	if !ok {
		t.Skip("one CPU, nowhere to go")
	}
	// The scheduler may move it as well, but not each time.
	if n < 60 {
		t.Errorf("moved away from another worker %d times of 100", n)
	}
	if n, _ := moved(idle, true); n > 40 {
		t.Errorf("moved away from an idle worker %d times of 100", n)
	}
	if n, _ := moved(running, false); n > 40 {
		t.Errorf("moved a goroutine's thread %d times of 100", n)
	}
}
