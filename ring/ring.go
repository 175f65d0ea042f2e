package ring

import (
	"fmt"
	"math"
	"math/bits"
)

// Handle is the set of types that a [Ring] can carry: machine words.
//
// A racing read of a word cannot tear and cannot confuse the garbage
// collector; for any other element type use [Queue], or put the elements into
// a [Slab] and send their indexes.
type Handle interface {
	~int32 | ~uint32 | ~int64 | ~uint64 | ~uintptr
}

// pad keeps what follows off the cache line of what precedes, and off the
// neighbouring line that the adjacent-line prefetcher drags along.
type pad [128]byte

// A Ring is a bounded FIFO of handles. All its methods may be called by any
// number of goroutines at once, unless [SingleProducer] says otherwise.
// No method allocates. The zero value is not usable; call [New].
//
// Positions count entries since the start and never wrap in practice (2⁶⁴
// entries); only their differences are compared, so wrapping would be harmless.
type Ring[H Handle] struct {
	_ pad

	// Constant after New, and read by everybody with every operation: nothing
	// that is ever written may share a cache line with it.
	single   bool
	yield    bool
	owned    bool   // the set is this ring's own, and closes with it
	rationed bool   // consumers take from it within a ration
	calm     uint64 // after so many pushes that meet no sleeper the fence is left out
	limit    uint64 // capacity, exact
	quantum  uint64 // least number of entries an eviction removes
	slots    slots[H]
	lot      *lot
	set      *Set[H]

	_ pad

	// The producers' own. Guarded by pmu, or by the promise of SingleProducer.
	pmu      mutex
	next     uint64 // the producers' copy of tail
	end      uint64 // a head seen earlier, plus limit: so far there is room. After Close it is next
	strong   uint64 // number of pushes to come that have a fence, if the producer is single
	met, had uint64 // the position at which a push met a sleeper last, and what strong became then
	shut     bool   // Close has been called

	_    pad
	tail atomicUint64 // next position to publish; written only by producers
	_    pad
	head atomicUint64 // next position to hand out; whoever advances it owns what it passes

	gate   gate   // between padding of its own
	ration ration // likewise
	_      pad
}

type config struct {
	single  bool
	yield   bool
	light   bool
	quantum int

	rationed bool
	ration   uint32
}

// An Option configures a [Ring].
type Option func(*config)

// SingleProducer promises that Push, PushDrop and Close are never called
// concurrently with each other. It saves a mutex per push, and makes pushes
// lock-free.
func SingleProducer() Option { return func(c *config) { c.single = true } }

// EvictAtLeast sets the least number of entries that an overflowing
// [Ring.PushDrop] evicts, 1 by default. A larger quantum leaves room for the
// next pushes, which then need not touch the head at all; it costs up to
// k-1 entries that could have been kept. Values above the capacity count as
// the capacity.
func EvictAtLeast(k int) Option { return func(c *config) { c.quantum = k } }

// YieldOnWake makes a push that woke a sleeping goroutine yield its processor
// to it (runtime.Gosched) before it returns.
//
// A goroutine made runnable is otherwise kept for the waker's processor and can be
// stolen only after a pause that timer slack stretches to some 60 µs; if the
// waker blocks in a system call, or computes on, that pause is the hand-off
// latency. Do not use it from a goroutine wired with runtime.LockOSThread:
// there each yield costs two thread switches. See [Ring.ThreadConsumer].
func YieldOnWake() Option { return func(c *config) { c.yield = true } }

// AsymmetricFence makes pushes of a single producer cheaper while no consumer sleeps, as under
// overload, or sleeps rarely. After some hundred pushes in a row that met no sleeper they publish
// with a plain store in place of an exchange, and the first consumer that is then about to fall
// asleep has the kernel fence all threads of the process on the producer's behalf, by
// membarrier(2). That takes it, and interrupts them for, about as long as those exchanges would.
// If it came late enough to have been worth it, the plain stores go on at once; if not, after
// some hundred pushes again.
//
// It has an effect together with [SingleProducer], on amd64 with Linux 4.14 or later, and not
// under the race detector. Elsewhere there is nothing to save, or the system call is missing,
// and the ring is as without it. It is no default because a seccomp filter that kills
// whoever calls membarrier(2) would. If a filter refuses the call after New, a consumer
// about to fall asleep panics.
func AsymmetricFence() Option { return func(c *config) { c.light = true } }

// New returns a ring that holds at most capacity handles, at least one.
// It panics if capacity is less than one.
func New[H Handle](capacity int, opts ...Option) *Ring[H] {
	s := NewSet[H]()
	r := newRing(s, capacity, opts)
	r.owned = true
	s.add(r)
	return r
}

// newRing returns a ring whose consumers sleep in s; s does not know it yet.
func newRing[H Handle](s *Set[H], capacity int, opts []Option) *Ring[H] {
	if capacity < 1 {
		panic(fmt.Sprintf("ring: capacity %d is less than 1", capacity))
	}
	c := config{quantum: 1}
	for _, o := range opts {
		o(&c)
	}
	r := &Ring[H]{
		single:  c.single,
		yield:   c.yield,
		calm:    math.MaxUint64,
		limit:   uint64(capacity),
		quantum: uint64(min(max(c.quantum, 1), capacity)),
		lot:     &s.lot,
		set:     s,
	}
	if c.light && c.single && haveHeavyFence() {
		r.calm = calm
	}
	r.end = r.limit
	r.strong, r.had = r.calm, r.calm
	r.gate.tok.init()
	if c.rationed {
		r.rationed = true
		r.ration.max.Store(c.ration)
	}
	// The slots are a power of two for the mask; limit keeps the capacity exact.
	r.slots.init(1 << bits.Len64(r.limit-1))
	return r
}

// startAt moves an unused ring to another first position.
func (r *Ring[H]) startAt(pos uint64) {
	r.next, r.end, r.met = pos, pos+r.limit, pos
	r.tail.Store(pos)
	r.head.Store(pos)
}

// Cap reports the capacity.
func (r *Ring[H]) Cap() int { return int(r.limit) }

// Len reports the number of entries: exact at one instant during the call.
func (r *Ring[H]) Len() int {
	for m := mark(); ; rewind(m) {
		h := r.head.Load()
		t := r.tail.Load()
		// The head never falls, so it did not move while tail was read.
		if r.head.Load() == h {
			return int(t - h)
		}
	}
}

// Push appends a prefix of src and reports its length. A short count means
// that the ring was full; the rest of src still belongs to the caller. On a
// closed ring it reports 0.
func (r *Ring[H]) Push(src []H) int {
	n, _ := r.push(src, nil, refuse)
	return n
}

// PushDrop appends all of src. If there is no room it first removes the
// oldest entries, as few as possible (see [EvictAtLeast]) and all in one step,
// stores them oldest first in evicted and reports how many. The caller owns
// them.
//
// A closed ring evicts what it is given: PushDrop copies src to evicted and
// reports its length, so that ownership is never in doubt.
//
// It panics if src is longer than the capacity, or if evicted is shorter than
// src or than the eviction quantum.
func (r *Ring[H]) PushDrop(src, evicted []H) int {
	if n := uint64(len(src)); n > r.limit || n != 0 && uint64(len(evicted)) < max(n, r.quantum) {
		pushDropPanic(len(src), len(evicted), int(r.limit), int(r.quantum))
	}
	if r.single && uint64(len(src)) > r.end-r.next && !r.shut {
		// Not in pushSlow: under overload every push comes this way, and would feel the calls.
		k := r.makeRoom(r.next, uint64(len(src)), evicted)
		r.push(src, nil, refuse)
		return k
	}
	_, k := r.push(src, evicted, evict)
	return k
}

func pushDropPanic(src, evicted, limit, quantum int) {
	if src > limit {
		panic(fmt.Sprintf("ring: PushDrop of %d entries into a ring of %d", src, limit))
	}
	panic(fmt.Sprintf("ring: PushDrop needs room for %d evicted entries, has %d", max(src, quantum), evicted))
}

// whenFull is what a push does where there is no room.
type whenFull int

const (
	refuse whenFull = iota
	wait
	evict
)

// push appends n entries of src and evicts k. What a single producer does where there is room is
// in this function alone, and whatever it calls on that way it calls last: a call in the
// middle, and keeping its arguments over it, would be a fifth of a push.
func (r *Ring[H]) push(src, evicted []H, full whenFull) (n, k int) {
	if !r.single || uint64(len(src))-1 >= r.end-r.next { // or none to push
		return r.pushSlow(src, evicted, full)
	}
	// A slot is overwritten only after a producer has seen the head beyond
	// the position that it held: a claim that succeeds proves that nothing
	// it read has changed.
	r.slots.put(r.next, src)
	t := r.next + uint64(len(src))
	r.next = t
	at(pointPublish)
	// The push happens here, for the whole batch. A consumer that falls asleep
	// announces itself in nwait and then looks at the tail again. With a fence between
	// the store of the tail and the look at nwait one of the two sees the other.
	var w uint32
	if r.strong != 0 {
		r.strong--
		r.tail.Store(t)
		at(pointNotify)
		w = r.lot.nwait.Load() &^ fenced
	} else {
		// The look may overtake the store. If it finds 0, the consumer that announces itself next
		// finds 0 too, and its heavy fence lets it see what was stored before the look.
		storeRelease(&r.tail, t)
		at(pointNotify)
		w = r.lot.nwait.Load()
	}
	if w != 0 {
		r.notify(w, t, len(src))
	}
	return len(src), 0
}

// pushSlow is push where producers take turns, where there is no room as far as is known, or where
// there is nothing to push.
func (r *Ring[H]) pushSlow(src, evicted []H, full whenFull) (n, k int) {
	n = len(src)
	if n == 0 {
		return 0, 0
	}
	if !r.single {
		r.pmu.Lock()
	}
	t := r.next
	if uint64(n) > r.end-t {
		if full == evict && !r.shut {
			k = r.makeRoom(t, uint64(n), evicted)
		} else {
			n, k = r.fit(t, src, evicted, full)
		}
	}
	switch {
	case r.single:
		if n != 0 {
			r.push(src[:n], nil, refuse)
		}
	case n == 0:
		r.pmu.Unlock()
	default:
		r.slots.put(t, src[:n])
		t += uint64(n)
		r.next = t
		at(pointPublish)
		storeRelease(&r.tail, t)
		r.pmu.Unlock() // a fence
		at(pointNotify)
		if r.lot.waiting() {
			r.lot.wakeOne(r.yield)
		}
	}
	if n < len(src) && full == wait {
		n = r.pushRest(src, n)
	}
	return n, k
}

// fit is how many entries of src fit after position t, the tail; none if the ring is closed.
// Then k of them are evicted, if full says so.
func (r *Ring[H]) fit(t uint64, src, evicted []H, full whenFull) (n, k int) {
	if r.shut {
		if full == evict {
			k = copy(evicted, src)
		}
		return 0, k
	}
	r.end = r.head.Load() + r.limit
	return int(min(uint64(len(src)), r.end-t)), 0
}

// makeRoom evicts until n entries fit after position t. The caller is the
// only producer, so t is the tail and stays.
func (r *Ring[H]) makeRoom(t, n uint64, evicted []H) int {
	for m := mark(); ; rewind(m) {
		h := r.head.Load()
		free := r.limit - (t - h)
		if n <= free {
			// Consumers made room meanwhile: drop nothing.
			r.end = h + r.limit
			return 0
		}
		k := min(max(n-free, r.quantum), t-h)
		at(pointEvict)
		if r.head.CompareAndSwap(h, h+k) {
			// The drop happens here. Unlike a consumer a producer may
			// read what it has claimed afterwards: only producers
			// overwrite slots, and the others wait.
			r.slots.get(h, evicted[:k])
			r.end = h + k + r.limit
			r.gate.passed(h + k)
			return int(k)
		}
	}
}

// notify wakes a consumer if one sleeps; w is the look at nwait of a single producer's push of n
// entries up to t.
func (r *Ring[H]) notify(w uint32, t uint64, n int) {
	if w == fenced {
		// A push without the fence that it should have had: either that is in order from
		// now on, or it gets its fence. The exchange is one whether it succeeds or not.
		if r.lot.nwait.CompareAndSwap(fenced, 0) {
			return
		}
		w = r.lot.nwait.Load()
	}
	r.strong = r.fences(t, uint64(n))
	if w&^fenced != 0 {
		r.lot.wakeOne(r.yield)
	}
}

// fences is how many pushes are to have a fence after one of n entries up to t that met a sleeper:
// none if enough went without since the last, taking the others to be as long as this one. (Long
// ones before a short one are taken for more than they were, and a fence comes early.)
func (r *Ring[H]) fences(t, n uint64) uint64 {
	pushes := (t - r.met) / n
	r.met = t
	if pushes > r.had && pushes-r.had >= r.calm {
		r.had = 0
	} else {
		r.had = r.calm
	}
	return r.had
}

// TryPop removes up to len(dst) of the oldest entries, stores them in dst
// and reports how many. It never waits. The caller owns what it gets.
func (r *Ring[H]) TryPop(dst []H) int {
	t := r.head.Load() // an old tail that never claims anything: look at the real one
	return r.pop(dst, &t)
}

// pop is TryPop with a memory: *seen is a tail that the caller saw earlier.
// As long as entries before it are left, the producers' cache line is not touched.
func (r *Ring[H]) pop(dst []H, seen *uint64) int {
	if len(dst) == 0 {
		return 0
	}
	for m := mark(); ; rewind(m) {
		h := r.head.Load()
		left := *seen - h
		if left-1 >= r.limit { // none, or the head has overtaken what was seen
			t := r.tail.Load()
			*seen = t
			if t == h {
				// Empty at the moment tail was read: the head cannot
				// have passed the tail, and had reached it before.
				return 0
			}
			left = t - h
			if left > r.limit {
				continue // h is out of date
			}
		}
		n := min(left, uint64(len(dst)))
		// What is read here may be overwritten under our hands; then the
		// head has moved, the claim fails, and it is read again.
		r.slots.get(h, dst[:n])
		at(pointPop)
		if r.head.CompareAndSwap(h, h+n) {
			r.gate.passed(h + n)
			// A producer wakes one consumer per push, and each consumer
			// that leaves something behind wakes the next.
			if left > n && r.lot.waiting() {
				r.lot.wakeOne(false)
			}
			return int(n)
		}
	}
}

// empty reports whether the ring was empty at one instant during the call.
func (r *Ring[H]) empty() bool {
	// In this order: the head may only have moved towards the tail since.
	h := r.head.Load()
	return r.tail.Load() == h
}

// Close ends the stream: pushes append nothing more, and once the ring is
// empty sleeping consumers return 0. Entries that are still in the ring can be
// popped. Closing a closed ring does nothing.
//
// With [SingleProducer], Close counts as a push: it must not run concurrently with
// one. The consumers of a ring that belongs to a [Set] go on until the set is closed.
func (r *Ring[H]) Close() {
	if !r.single {
		r.pmu.Lock()
	}
	r.shut, r.end = true, r.next
	if !r.single {
		r.pmu.Unlock()
		if w := r.gate.resume.Load(); w != 0 {
			r.gate.wake(w)
		}
	}
	if r.owned {
		r.lot.close()
	}
}
