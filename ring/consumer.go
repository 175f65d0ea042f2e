package ring

import (
	"slices"
	"sync"
	"sync/atomic"
)

// A Set is a group of rings that share their consumers: a consumer of the set
// pops from whichever ring has entries, turn by turn, and sleeps while all are
// empty. With one ring per source, each evicts only its own oldest entries,
// so that the noisiest source loses first and the others lose nothing.
//
// Rings may be added and removed at any time. A ring made by [New] is alone
// in a set of its own.
type Set[H Handle] struct {
	lot   lot
	mu    sync.Mutex // guards changes of rings
	rings atomic.Pointer[[]*Ring[H]]
}

// NewSet returns an empty set.
func NewSet[H Handle]() *Set[H] {
	s := new(Set[H])
	s.lot.nwait.Store(fenced)
	s.rings.Store(new([]*Ring[H]))
	return s
}

// Add makes a ring as [New] does, as a member of the set. Its consumers are
// the set's.
func (s *Set[H]) Add(capacity int, opts ...Option) *Ring[H] {
	r := newRing(s, capacity, opts)
	s.add(r)
	return r
}

func (s *Set[H]) add(r *Ring[H]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rings := append(slices.Clone(*s.rings.Load()), r)
	s.rings.Store(&rings)
}

// Remove takes r out of the set: consumers that look for entries from now on pass it by.
// Close r first, and afterwards pop what is left in it with [Ring.TryPop]; a
// consumer that was already looking may still take a last batch.
func (s *Set[H]) Remove(r *Ring[H]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rings := slices.DeleteFunc(slices.Clone(*s.rings.Load()), func(x *Ring[H]) bool { return x == r })
	s.rings.Store(&rings)
}

// Close closes all rings of the set as [Ring.Close] does, and lets the consumers
// go once all are empty. No ring may be added concurrently or afterwards.
func (s *Set[H]) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range *s.rings.Load() {
		r.Close()
	}
	s.lot.close()
}

// Consumer returns a new consumer of all rings of the set.
func (s *Set[H]) Consumer() *Consumer[H] { return s.consumer(false) }

// ThreadConsumer is like [Set.Consumer], for a wired thread; see [Ring.ThreadConsumer].
func (s *Set[H]) ThreadConsumer() *Consumer[H] { return s.consumer(true) }

func (s *Set[H]) consumer(thread bool) *Consumer[H] {
	c := &Consumer[H]{set: s}
	c.w.init(thread)
	return c
}

// Consumer returns a new consumer, to be used by a goroutine. It sleeps in the Go
// scheduler.
func (r *Ring[H]) Consumer() *Consumer[H] { return r.set.Consumer() }

// ThreadConsumer returns a new consumer for a goroutine that is wired to its
// thread with runtime.LockOSThread. It sleeps in the kernel, in a futex, so
// that a wake-up goes straight to that thread and does not pass through
// the Go scheduler twice. While such consumers sleep, a timer of the process runs once a
// second, so that a flaw of Go 1.26 cannot hold up a stop of the world for longer.
func (r *Ring[H]) ThreadConsumer() *Consumer[H] { return r.set.ThreadConsumer() }

// A Consumer pops from a ring, or from all rings of a [Set], and sleeps while
// there is nothing. It must not be used by two goroutines at once.
type Consumer[H Handle] struct {
	_    pad
	set  *Set[H]
	turn int      // ring to begin with
	from *Ring[H] // ring of the last batch
	seen uint64   // a tail of from that was seen earlier
	w    waiter
	_    pad
}

// From reports which ring the last batch came from; nil before the first.
func (c *Consumer[H]) From() *Ring[H] { return c.from }

// TryPop removes up to len(dst) of the oldest entries of one ring, stores
// them in dst and reports how many. It never waits.
func (c *Consumer[H]) TryPop(dst []H) int {
	rings := *c.set.rings.Load()
	for range rings {
		if c.turn >= len(rings) {
			c.turn = 0
		}
		r := rings[c.turn]
		c.turn++
		if c.from != r {
			c.from, c.seen = r, r.head.Load()
		}
		n := 0
		if r.rationed {
			n = r.popRation(dst, &c.seen)
		} else {
			n = r.pop(dst, &c.seen)
		}
		if n != 0 {
			return n
		}
	}
	return 0
}

// Pop is like [Consumer.TryPop], but sleeps while there is nothing. It returns
// 0 only after Close, when nothing is left, or if dst is empty.
func (c *Consumer[H]) Pop(dst []H) int {
	if len(dst) == 0 {
		return 0
	}
	l := &c.set.lot
	for m := mark(); ; rewind(m) {
		if n := c.TryPop(dst); n != 0 {
			return n
		}
		if l.closed.Load() != 0 {
			// Nothing is pushed after closing: this look is the last.
			return c.TryPop(dst)
		}
		l.mu.Lock()
		if l.enter(&c.w) {
			heavyFence()
		}
		at(pointPark)
		// Announced: from here on a push that this look misses finds us.
		if !c.idle() || l.closed.Load() != 0 {
			l.leave(&c.w)
			l.mu.Unlock()
			continue
		}
		l.mu.Unlock()
		at(pointSleep)
		c.w.sleep()
	}
}

// idle reports whether all rings are empty or have their ration out, to one who has announced itself.
func (c *Consumer[H]) idle() bool {
	for _, r := range *c.set.rings.Load() {
		if !r.empty() && !r.usedUp() {
			return false
		}
	}
	return true
}
