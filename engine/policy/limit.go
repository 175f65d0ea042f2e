package policy

import (
	"math"
	"sync/atomic"
	"time"
)

// A limiter bounds the depth of a queue so that calls wait no longer than a target: with c workers and a
// service time of S the last of K calls that wait is served after K·S/c, and so K ≤ c·target/S + c − 1. What
// it knows of S is c over the rate at which calls leave the queue for workers while calls wait. That is the rate of one
// listener, whoever else has the workers and the CPUs.
//
// The rate is measured over a window of slots. A slot that differs from those before it by more than chance
// ends them (adaptive windowing, Bifet and Gavaldà 2007), so that the window is long while the rate is steady,
// and short after a step. By how much chance differs, the index of dispersion, is measured too. It also
// keeps room in the limit: what K calls take varies, and the target is for nearly all of them.
type limiter struct {
	target   float64
	workers  int
	capacity int

	begun bool  // there was a look
	at    int64 // of the last look
	depth int   // at the last look
	taken uint64

	slots  []tally // whole ones, oldest first
	slot   tally   // that is being filled
	window tally   // the sum of slots
	all    tally   // as the slot, but also of time in which no call waited
	spread float64 // index of dispersion for counts: variance over mean
	rate   float64 // calls per ns; 0: not known

	limit   atomic.Int64
	service atomic.Int64
	changes atomic.Uint64
}

// A tally is how many calls left in which time, in ns.
type tally struct{ calls, time float64 }

func (t *tally) add(calls, time float64) {
	t.calls += calls
	t.time += time
}

// full reports whether it is enough for a slot.
func (t *tally) full() bool { return t.calls >= slotCalls && t.time >= slotTime }

const (
	// The window is of limitSlots slots at most, each of slotCalls and of slotTime at least: 32 calls or 40 ms.
	limitSlots = 8
	slotCalls  = 4
	slotTime   = float64(5 * time.Millisecond)
	// firstCalls for each worker are a first estimate.
	firstCalls = 2
	// A slot is of another rate if it differs by that many standard deviations, and by two calls for each worker.
	differs, differsCalls = 4., 2.
	// stallCalls for each worker may be late at a look; what is beyond is a stall, and does not count.
	stallCalls = 4
	// room is how many standard deviations of what K calls take lie between their mean and the target.
	room = 2.
	// The dispersion is an average over about so many slots, each of which counts for spreadMost of it at
	// most; whole numbers have leastSpread.
	spreadSlots = 16
	spreadMost  = 4
	leastSpread = .1
	// The limit stays while what it should be differs by less than that part, and by less than three quarters of a call.
	limitStays, limitStaysCalls = .08, .75
	// startLimit bounds the depth until something is known: as much as an engine has without a target.
	startLimit = 64
)

// A Limit is what a [Config.WaitTarget] has come to.
type Limit struct {
	Depth   int           // calls that may wait now
	Service time.Duration // of a call while workers are busy: workers over the rate at which calls leave; 0: not known yet
	Changes uint64        // of Depth so far
}

func newLimiter(c *Config) *limiter {
	l := &limiter{target: float64(c.WaitTarget), workers: c.Workers, capacity: c.Capacity, spread: 1, slots: make([]tally, 0, limitSlots)}
	l.limit.Store(int64(min(c.Capacity, max(startLimit, c.Workers))))
	return l
}

// look tells what there is when a call comes: the depth before it, and how many calls have left for
// workers so far.
func (l *limiter) look(now int64, depth int, taken uint64) {
	n, t := float64(taken-l.taken), float64(now-l.at)
	// Calls waited all the time, if there were some before the last call and are now.
	busy := l.depth > 0 && depth > 0
	known := l.begun
	l.begun, l.at, l.depth, l.taken = true, now, depth, taken
	if !known || t <= 0 {
		return
	}
	if l.rate > 0 {
		// All threads may have been without a CPU for a while, which says nothing of the service. A service that is
		// so much longer shows in one look after the other.
		t = min(t, (n+float64(stallCalls*l.workers))/l.rate)
	}
	l.all.add(n, t)
	if busy {
		l.slot.add(n, t)
	}
	switch {
	case l.rate == 0:
		if l.slot.calls >= float64(firstCalls*l.workers) {
			l.restart(l.slot)
		}
	case l.other(&l.slot):
		l.restart(l.slot)
	case l.all.calls > l.rate*l.all.time && l.other(&l.all):
		// Workers that now and then have nothing to do are at least that fast.
		l.restart(l.all)
	case l.slot.full():
		l.push()
	}
	if l.all.full() {
		l.all = tally{}
	}
}

// other reports whether t is of another rate than the window.
func (l *limiter) other(t *tally) bool {
	want := l.rate * t.time
	d := t.calls - want
	return d*d > differs*differs*l.spread*max(want, t.calls) && math.Abs(d) > differsCalls*float64(l.workers)
}

// restart has the window begin anew.
func (l *limiter) restart(with tally) {
	l.slots = append(l.slots[:0], with)
	l.window = with
	l.next()
}

// push adds the slot to the window.
func (l *limiter) push() {
	if want := l.rate * l.slot.time; want >= 1 {
		d := l.slot.calls - want
		x := min(d*d/want, spreadMost*l.spread) // a slot may have a step in it
		l.spread = max(l.spread+(x-l.spread)/spreadSlots, leastSpread)
	}
	if len(l.slots) == cap(l.slots) {
		l.window.add(-l.slots[0].calls, -l.slots[0].time)
		l.slots = l.slots[:copy(l.slots, l.slots[1:])]
	}
	l.slots = append(l.slots, l.slot)
	l.window.add(l.slot.calls, l.slot.time)
	l.next()
}

// next takes what the window says, and begins another slot.
func (l *limiter) next() {
	l.slot, l.all = tally{}, tally{}
	l.rate = l.window.calls / l.window.time
	l.service.Store(int64(float64(l.workers) / l.rate))
	l.set()
}

// set makes the limit follow the rate: the K for which K calls take the target, by their mean and room times their
// standard deviation, √(spread·K)/rate.
func (l *limiter) set() {
	z := room * math.Sqrt(l.spread)
	x := (math.Sqrt(z*z+4*l.rate*l.target) - z) / 2
	k := x * x
	k = min(k, l.rate*l.target+float64(l.workers-1), float64(l.capacity))
	k = max(k, float64(min(l.workers, l.capacity)))
	was := float64(l.limit.Load())
	if math.Abs(k-was) <= max(limitStays*was, limitStaysCalls) {
		return
	}
	l.limit.Store(int64(k + .5))
	l.changes.Add(1)
}
