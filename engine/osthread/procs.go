package osthread

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Processors of the Go scheduler (Ps). A thread in a system call keeps its P until the runtime's
// monitor takes it away, which it does at once only where no other P is idle, and then it looks
// for such threads all the time, some 14,000 times a second. So a program whose threads are in
// system calls most of the time wants more Ps than CPUs.

// added is what AddProcs has added to GOMAXPROCS.
var added struct {
	mu  sync.Mutex
	n   int
	set int // what GOMAXPROCS was last set to
}

// AddProcs adds n to GOMAXPROCS, takes them back if n is negative. If somebody else has set it
// meanwhile, what they set is right, and what was added is forgotten.
func AddProcs(n int) {
	added.mu.Lock()
	defer added.mu.Unlock()
	now := runtime.GOMAXPROCS(0)
	if now != added.set {
		added.n = 0
	}
	n = max(n, -added.n)
	added.n += n
	added.set = now + n
	if n != 0 {
		defer keepTimer()()
		runtime.GOMAXPROCS(added.set)
	}
}

// timerEvery is for how long, about, a stop of the world may be held up while keepTimer keeps
// its timer.
const timerEvery = 5 * time.Millisecond

// keepTimer has the runtime wait for a timer all the time, until it is told to stop. To stop
// the world may take Go 1.26 until the next timer is due, for up to a minute: a thread that
// enters a system call at that moment can keep its P. A ticker is no timer while nobody
// waits for it; one that has gone off is none either, so this one begins anew.
func keepTimer() (stop func()) {
	var over atomic.Bool
	var t *time.Timer
	t = time.AfterFunc(time.Hour, func() {
		if !over.Load() {
			t.Reset(timerEvery)
		}
	})
	t.Reset(timerEvery)
	return func() {
		over.Store(true) // it may be beginning anew now, once
		t.Stop()
	}
}

// OwnProcs is GOMAXPROCS without what AddProcs has added.
func OwnProcs() int {
	added.mu.Lock()
	defer added.mu.Unlock()
	n := runtime.GOMAXPROCS(0)
	if n == added.set {
		n -= added.n
	}
	return n
}
