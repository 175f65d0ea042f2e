package osthread

import (
	"runtime"
	"sync"
	"time"

	"github.com/unknot/unknot/internal/slowstop"
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
		defer slowstop.Keep(stopMost)()
		runtime.GOMAXPROCS(added.set)
	}
}

// stopMost is for how long, about, the stop of the world that changes GOMAXPROCS may be held up.
const stopMost = 5 * time.Millisecond

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
