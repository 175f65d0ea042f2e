package engine

import (
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/unknot/unknot/engine/osthread"
)

// An estimator tells how many targets make calls, from the ids of the last
// ones: a window of calls marks one of 64 bits for each thread id. It costs a
// multiplication and an or for each call.
//
// The wake-up mode follows it (but see join.go). Measured with a bare supervisor in C on two CPUs
// (targets not pinned, supervisor pinned), calls per second with SYNC_WAKE_UP
// relative to without: 1.8 at 1 target, 1.2 at 2 and 4, 0.93 at 16, 0.9 at 64,
// 0.8 at 256. Targets pinned away from the supervisor do not notice the flag.
type estimator struct {
	seen   uint64
	calls  int
	agreed streak
}

// A streak is how many windows in a row say many (positive), or few (negative).
type streak int

func (s *streak) add(few, many bool) {
	switch {
	case few:
		*s = min(*s, 0) - 1
	case many:
		*s = max(*s, 0) + 1
	default:
		*s = 0
	}
}

// agree reports whether the last n windows said the same, and whether that was many.
func (s streak) agree(n streak) (many, agreed bool) { return s > 0, s >= n || s <= -n }

const (
	window    = 64 // calls
	fewBelow  = 6  // marked bits: Sync below
	manyAbove = 9  // Async above; 10 threads mark 9 of 64 bits on average
	agreement = 4  // windows in a row that must agree
)

// count tells of a call. At the end of each window it returns the wake-up mode
// that the last windows agree on, AutoWakeUp if they do not.
func (s *estimator) count(tid uint32) (mode WakeUp, full bool) {
	s.seen |= 1 << (tid * 0x9e3779b1 >> 26)
	if s.calls++; s.calls < window {
		return AutoWakeUp, false
	}
	n := bits.OnesCount64(s.seen)
	s.seen, s.calls = 0, 0
	s.agreed.add(n < fewBelow, n > manyAbove)
	switch {
	case s.agreed <= -agreement:
		return Sync, true
	case s.agreed >= agreement:
		return Async, true
	}
	return AutoWakeUp, true
}

// A census tells how many targets call, more finely than an estimator: a wide window of calls
// marks one of 256 bits for each thread id.
type census struct {
	seen  [4]uint64
	calls int
}

const (
	wide         = 256 // calls
	crowdAgreeOn = 2   // wide windows in a row that must agree
)

// count tells of a call. At the end of each wide window it returns the number of marked bits.
func (s *census) count(tid uint32) (marks int, full bool) {
	h := tid * 0x9e3779b1 >> 24
	s.seen[h>>6] |= 1 << (h & 63)
	if s.calls++; s.calls < wide {
		return 0, false
	}
	for _, w := range s.seen {
		marks += bits.OnesCount64(w)
	}
	s.seen, s.calls = [4]uint64{}, 0
	return marks, true
}

// Where the workers run, and how many.
//
// While a typical handler takes less than nearBelow, waking a worker costs more
// than its work: then one worker takes all of it, on the receive thread's own
// CPU, and the receive thread is a batch thread (SCHED_BATCH), which does not
// preempt the worker when a call comes, so that calls gather. The other workers
// sit on the bench. Once handlers take more than farAbove, all workers run, anywhere.
// Where some targets call all the time, two of them run, anywhere; see pair.go.
//
// The time of SEND is not the handler's: it is the kernel's, and it has in it what
// the woken target does to the scheduler. With it, what the receive thread took away from
// workers that it shared its CPU with made them look slow, and the bench stayed open.
//
// Not taken: SCHED_FIFO for the receive thread (0.7 times: it preempts at every
// call); workers that spin for 50 µs on another CPU (fast at 16 targets, three
// times slower than sleeping at one, and a CPU burned); workers that take over
// receiving (a confined thread may not run handlers); leaving all workers near
// (0.8 times: each push wakes one, to find nothing).
const (
	nearBelow = int64(10 * time.Microsecond)
	farAbove  = int64(20 * time.Microsecond)
	// anywhere is Engine.placement for workers that the scheduler places;
	// otherwise it is a CPU.
	anywhere = -1
	// A lone worker that is still at the request that it was at a look ago has
	// the others called from the bench, for benchOff at least.
	lookEvery = 2 * time.Millisecond
	benchOff  = int64(100 * time.Millisecond)
)

// place decides where the workers run, and with how many Ps. It is called on the receive thread, once
// for each window of calls.
func (e *Engine) place(at int64) {
	if e.cfg.Inline {
		return
	}
	// Worker 1 is never on the bench. Its median stands for all.
	t := (*e.workers.Load())[1].typical.Load()
	switch {
	case t < slowHandlers:
		e.slow.Store(0)
	case t >= surelySlow:
		e.slow.Store(slowWindows)
	default:
		e.slow.Store(min(e.slow.Load()+1, slowWindows))
	}
	if e.procs.Load() != e.wantsProcs(at) {
		e.ask()
	}
	if e.cfg.Placement != AutoPlacement || e.cfg.Kind == GoroutineWorkers || e.rxCPU.Load() < 0 {
		return
	}
	switch {
	case t == 0:
	case e.bench.up() == everybody && t < nearBelow && at > e.bench.openUntil.Load():
		e.arrange(everybody, alone, e.rxCPU.Load())
		e.ask() // for somebody to look after the lone worker
	case (e.placement.Load() != anywhere || e.bench.up() != everybody) && t > farAbove:
		e.spread(at) // also from near with the bench open, as at first and after a pause
	}
}

// spread lets all workers run, anywhere.
func (e *Engine) spread(until int64) {
	e.bench.openUntil.Store(until)
	e.arrange(whatever, everybody, anywhere)
	e.ask()
}

// arrange has the workers up to that one run, there. It does nothing, and says so, if another number
// of workers than from are up.
func (e *Engine) arrange(from, up, where int32) bool {
	b := &e.bench
	b.mu.Lock()
	defer b.mu.Unlock()
	if from != whatever && b.last.Load() != from || b.over && up != everybody {
		return false
	}
	e.placement.Store(where)
	b.set(up)
	return true
}

// Numbers of workers that are up.
const (
	whatever  = 0
	alone     = 1
	pair      = 2
	everybody = math.MaxInt32
)

// A bench is where workers wait that are not needed.
type bench struct {
	last      atomic.Int32 // workers with a higher index shall sit down
	openUntil atomic.Int64 // all are up until then, at least
	mu        sync.Mutex
	called    chan struct{} // closed when more of them are
	over      bool
}

func (b *bench) init() {
	b.last.Store(everybody)
	b.called = make(chan struct{})
}

// up is how many workers are not on the bench.
func (b *bench) up() int32 { return b.last.Load() }

// set changes the number of workers that are up. The caller holds b.mu.
func (b *bench) set(up int32) {
	if b.last.Swap(up) < up {
		close(b.called)
		b.called = make(chan struct{})
	}
}

// open lets all run.
func (b *bench) open() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.set(everybody)
}

// end opens the bench for good.
func (b *bench) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	b.set(everybody)
}

// sit waits until the worker with that index is up. Nothing that is pushed meanwhile needs it:
// each push wakes a worker that sleeps in the ring, and one that does not sleep
// will look again.
func (b *bench) sit(index int) {
	for int32(index) > b.up() {
		b.mu.Lock()
		called, sits := b.called, int32(index) > b.up()
		b.mu.Unlock()
		if sits {
			<-called
		}
	}
}

// settleIn moves the calling worker's thread to where workers now belong.
func (w *worker) settleIn() {
	if w.e.cfg.Kind == GoroutineWorkers {
		return
	}
	w.e.bench.sit(w.index)
	if at := w.e.placement.Load(); at != w.at {
		w.at = at // also when it fails: the mask was changed from outside, leave it
		if at == anywhere {
			_ = osthread.Unpin(w.e.cpus)
		} else {
			_ = osthread.Pin(int(at))
		}
	}
}

// took follows the worker's typical request: a running median, which the odd
// request that lost its CPU does not move. At first it moves fast, as the first ones are slow.
func (w *worker) took(d int64) {
	t, step := w.typical.Load(), int64(16)
	if w.taken < 32 {
		step = 4
	}
	switch {
	case t == 0:
		t = d
	case d > t:
		t += t/step + 1
	default:
		t -= t / step
	}
	w.typical.Store(max(t, 1))
}

// A lookout is the keeper's memory of what it saw at its last look.
type lookout struct {
	received uint64
	state    uint64        // of worker 1
	idle     time.Duration // without a call
	stays    uint32
	stayed   time.Duration // since it last began to stay
}

// period is how soon the keeper looks again; pulse if there is nothing to look after.
// Each look wakes threads of the Go scheduler, which take the CPU from the receive
// thread and the targets: there are no more of them than needed.
func (e *Engine) period() time.Duration {
	switch {
	case e.bench.up() != everybody:
		return lookEvery
	case e.staying.Load(), e.unwatched.Load() != nil:
		return idleAfter
	}
	return pulse
}

// look looks after the threads that a blocked system call or a handler may hold
// up: the receive thread in RECV, and the worker that is alone. The last look was
// a period ago.
func (l *lookout) look(e *Engine, period time.Duration) {
	n := e.tallies[0].received.Load()
	if n == l.received {
		l.idle += period
	} else {
		l.idle = 0
	}
	if e.bench.up() != everybody {
		state := (*e.workers.Load())[1].req.state.Load()
		switch {
		case state == l.state && phaseOf(state) == running:
			e.spread(now() + benchOff)
		case l.idle > 0:
			// What comes after a pause may be different.
			e.bench.open()
		}
		l.state = state
	}
	stays, staying := e.stays.Load(), e.staying.Load()
	if stays != l.stays {
		l.stays, l.stayed = stays, 0
	} else {
		l.stayed += period
	}
	switch out := e.unwatched.Load() != nil; {
	case l.stayed < idleAfter:
	case staying && !out && l.idle == 0:
		e.unwatch()
	case !staying && out:
		e.rewatch()
	}
	if l.idle >= idleAfter && staying {
		e.poke()
		l.idle = 0
	}
	l.received = n
}
