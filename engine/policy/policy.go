// Package policy decides what happens when calls come faster than they are
// handled: which calls give way, how many at once, and when they are told.
//
// A [Machine] is a pure state machine over (time, event). It never looks at a
// clock, a queue or the kernel: the receive loop tells it what happened and
// does what it says, and a simulation can do the same. One Machine serves one
// listener; it is not safe for concurrent use.
//
// # Why dropped calls are held
//
// A caller that gets EINTR from a blocking call tries again at once, so an
// engine that drops at once makes its own load: dropping feeds the storm. A call
// that is held, that is, taken out of the queue but not answered yet, cannot
// try again. The pace of the answers is the back-pressure.
//
// Left to itself ([Config.Pace] 0) the Machine earns one answer to a held call
// with every few calls that were served, so that drops stay a small part of
// the work, whatever the load; and it answers sooner where that helps: when
// callers run out, so that workers do not idle while callers are held, when a
// call has been held for [MaxHold], and when [Config.MaxHeld] calls are held,
// because each one lengthens the kernel's list, which every RECV walks.
package policy

import (
	"fmt"
	"time"
)

// A Kind says which calls give way when the queue is full.
type Kind uint8

const (
	// DropOldest drops the calls that have waited longest: fresh calls keep a
	// bounded wait.
	DropOldest Kind = iota
	// DropNewest drops the call that finds the queue full: what was admitted is served.
	DropNewest
	// Block drops nothing: while the queue is full nothing is received, and
	// calls wait in the kernel, for as long as it takes. A signal to a caller
	// takes its call back from there.
	Block
)

// Kinds are the names of the kinds, by kind.
var Kinds = [...]string{"drop-oldest", "drop-newest", "block"}

func (k Kind) String() string {
	if int(k) < len(Kinds) {
		return Kinds[k]
	}
	return fmt.Sprintf("policy %d", uint8(k))
}

// ParseKind reads a kind's name.
func ParseKind(s string) (Kind, error) {
	for i, name := range Kinds {
		if s == name {
			return Kind(i), nil
		}
	}
	return 0, fmt.Errorf("no policy %q: the policies are %s, %s and %s", s, Kinds[0], Kinds[1], Kinds[2])
}

const (
	// MaxHold bounds how long the adaptive pace holds a dropped call.
	MaxHold = 50 * time.Millisecond
	// MaxRest bounds how long calls wait in the kernel, where signals reach
	// them, so that several are received at once.
	MaxRest = time.Millisecond
	// DefaultMaxHeld is how many dropped calls are held at most. Each makes
	// every RECV walk one entry more.
	DefaultMaxHeld = 256
	// servedPerDrop is how many served calls earn the answer to one held call
	// by the adaptive pace: with two workers and handlers of 50 µs a drop
	// costs about a fifth of a handler, so this keeps drops near 2% of the work.
	servedPerDrop = 10
)

// Immediately, as Config.Pace, answers dropped calls at once.
const Immediately time.Duration = -1

// Config sets up a Machine. [Config.Fill] completes it.
type Config struct {
	Kind     Kind
	Capacity int // of the queue, in calls
	// Batch is how many calls an overflow drops at least; 0 adapts: it grows
	// while one overflow follows the other, to an eighth of the capacity.
	Batch int
	// Low is the low watermark: an overflow drops until at most Low calls are
	// queued, and a blocked listener is received from again then. 0 means as
	// few as Batch says, and half the capacity for Block.
	Low int
	// Pace holds dropped calls and answers them together, Pace after the first;
	// 0 adapts, Immediately does not hold them.
	Pace time.Duration
	// MaxHeld is how many calls are held at most, after which the oldest are
	// answered; 0 is DefaultMaxHeld.
	MaxHeld int
	// MaxAge drops calls that have been queued for longer; 0 never does.
	MaxAge time.Duration
	// WaitTarget bounds the depth, below the capacity, so that nearly all calls wait no longer in the queue; 0
	// leaves the capacity alone. It takes Workers, and [Machine.Look].
	WaitTarget time.Duration
	// Workers is how many take from the queue: one waiting call for each is always let in. Only for WaitTarget.
	Workers int
}

// Fill checks c and sets what was left open.
func (c *Config) Fill() error {
	if int(c.Kind) >= len(Kinds) {
		return fmt.Errorf("no policy %d", c.Kind)
	}
	if c.Capacity < 1 {
		return fmt.Errorf("capacity of %d: must be at least 1", c.Capacity)
	}
	if c.Batch < 0 || c.Batch > c.Capacity {
		return fmt.Errorf("drop batch of %d: must be 1 to the capacity, %d, or 0 to adapt", c.Batch, c.Capacity)
	}
	if c.Low < 0 || c.Low >= c.Capacity {
		return fmt.Errorf("low watermark of %d: must be less than the capacity, %d", c.Low, c.Capacity)
	}
	if c.MaxHeld < 0 || c.MaxAge < 0 {
		return fmt.Errorf("%d calls held at most, age of %v at most: must not be negative", c.MaxHeld, c.MaxAge)
	}
	if c.WaitTarget < 0 {
		return fmt.Errorf("wait target of %v: must not be negative; 0 is none", c.WaitTarget)
	}
	if c.WaitTarget > 0 && c.Workers < 1 {
		return fmt.Errorf("wait target of %v with %d workers: must be at least 1", c.WaitTarget, c.Workers)
	}
	if c.MaxHeld == 0 {
		c.MaxHeld = DefaultMaxHeld
	}
	if c.Low == 0 && c.Kind == Block {
		c.Low = c.Capacity / 2
	}
	return nil
}

// maxBatch is the most that one overflow drops.
func (c *Config) maxBatch() int {
	n := max(c.Batch, 1)
	if c.Batch == 0 {
		n = max(c.Capacity/8, 1)
	}
	if c.Low > 0 {
		n = max(n, c.Capacity-c.Low)
	}
	return n
}

// MaxEvict is the most that [Machine.Arrive] ever asks to evict.
func (c *Config) MaxEvict() int { return c.maxBatch() }

// A Machine is the state of one listener's policy. Times are ns on any clock
// that does not go back.
type Machine struct {
	cfg     Config
	limiter *limiter // nil without a wait target

	batch    int    // of the adaptive batch, as it is now
	arrivals uint64 // calls since the last overflow

	heldAt []int64 // when each held call was dropped: a circular buffer
	first  int
	held   int

	served uint64 // as of the last look
	earned uint64 // served calls not yet spent on answers
}

// New returns a Machine. The Config must have been filled.
func New(cfg Config) *Machine {
	m := &Machine{cfg: cfg, batch: max(cfg.Batch, 1), heldAt: make([]int64, max(cfg.MaxHeld, cfg.MaxEvict()))}
	if cfg.WaitTarget > 0 {
		m.limiter = newLimiter(&cfg)
	}
	return m
}

// Adapts reports whether there is a wait target, and so [Machine.Look] wants to be told.
func (m *Machine) Adapts() bool { return m.limiter != nil }

// Look tells of each call that was received, before [Machine.Arrive], what the wait target needs: the
// depth before that call, and how many calls have left the queue for workers since the beginning.
func (m *Machine) Look(now int64, depth int, taken uint64) { m.limiter.look(now, depth, taken) }

// Limit is what bounds the depth now; without a wait target it is the capacity. It may be called concurrently.
func (m *Machine) Limit() Limit {
	l := m.limiter
	if l == nil {
		return Limit{Depth: m.cfg.Capacity}
	}
	return Limit{int(l.limit.Load()), time.Duration(l.service.Load()), l.changes.Load()}
}

// Depth is how many calls may wait now. It may be called concurrently.
func (m *Machine) Depth() int {
	if m.limiter == nil {
		return m.cfg.Capacity
	}
	return int(m.limiter.limit.Load())
}

// low is the low watermark, which is within the limit.
func (m *Machine) low() int {
	if m.limiter == nil {
		return m.cfg.Low
	}
	return min(m.cfg.Low, m.Depth()/2)
}

// enough is so many waiting calls that no worker idles for want of one.
func (m *Machine) enough() int {
	if m.limiter == nil {
		return 0
	}
	return min(m.cfg.Workers, m.Depth()-1)
}

// Rests reports whether the loop shall not receive for now, with a queue of
// that depth: [Block] while it is full; the others, for at most [MaxRest], while
// they hold dropped calls and most of the queue is full, so that calls are received in batches
// and the workers have the CPU. Measured with 64 and 256 targets, two workers and
// handlers of 50 µs on two CPUs, where the loop else wakes for every call: it costs a third of
// what is served.
func (m *Machine) Rests(depth int) bool {
	limit := m.Depth()
	if m.cfg.Kind == Block {
		return depth >= limit
	}
	return m.held > 0 && depth > max(limit*3/4, m.enough())
}

// Resumes reports whether a loop that rests receives again. Unlike the other
// methods it may be called concurrently.
func (m *Machine) Resumes(depth int) bool {
	if m.cfg.Kind == Block {
		return depth <= max(m.low(), m.enough())
	}
	return depth <= max(m.Depth()/2, m.enough())
}

// RestsUntil is when a loop that rests from now on receives again in any case;
// ok is false if there is no such time.
func (m *Machine) RestsUntil(now int64) (at int64, ok bool) {
	return now + int64(MaxRest), m.cfg.Kind != Block
}

// Arrive says what a call that was received meets: whether it is admitted, and
// how many of the oldest are evicted for it, at least. Depth is the queue's
// before it.
func (m *Machine) Arrive(depth int) (admit bool, evict int) {
	m.arrivals++
	limit := m.Depth()
	if depth < limit || m.cfg.Kind == Block && depth < m.cfg.Capacity { // the limit fell after the loop rested
		return true, 0
	}
	if m.cfg.Kind != DropOldest {
		return false, 0
	}
	if m.cfg.Batch == 0 {
		// Overflows that follow within a queue's length of calls are one storm.
		if m.arrivals <= uint64(limit) {
			m.batch = min(2*m.batch, max(limit/8, 1))
		} else {
			m.batch = max(m.batch/2, 1)
		}
	}
	m.arrivals = 0
	evict = m.batch
	if low := m.low(); low > 0 {
		evict = max(evict, depth-low)
	}
	if m.limiter != nil {
		// The limit may have fallen by many; and a batch leaves the workers something.
		evict = min(max(evict, depth-limit+1), max(depth+1-m.cfg.Workers, 1), m.cfg.MaxEvict())
	}
	return true, min(evict, depth)
}

// Room reports how many held calls must be answered before n more can be held.
func (m *Machine) Room(n int) int { return max(m.held+n-len(m.heldAt), 0) }

// Hold tells that n calls were dropped and are held. The caller has made [Machine.Room].
func (m *Machine) Hold(now int64, n int) {
	for range n {
		m.heldAt[(m.first+m.held)%len(m.heldAt)] = now
		m.held++
	}
}

// Held reports how many calls are held.
func (m *Machine) Held() int { return m.held }

// Answered tells that the n oldest held calls were answered.
func (m *Machine) Answered(n int) {
	m.first = (m.first + n) % len(m.heldAt)
	m.held -= n
}

// Release says how many of the oldest held calls are to be answered now. Depth
// is the queue's, served the calls of this listener that left the queue for a
// handler and were answered, since the beginning; dry, that nothing waits to be
// received either.
func (m *Machine) Release(now int64, depth int, served uint64, dry bool) int {
	m.earned += served - m.served
	m.served = served
	switch {
	case m.held == 0:
		// Nothing to spend it on: an overload begins with what it earns itself.
		m.earned = 0
		return 0
	case m.cfg.Pace < 0:
		return m.held
	case m.cfg.Pace > 0:
		if now >= m.heldAt[m.first]+int64(m.cfg.Pace) || m.held >= m.cfg.MaxHeld {
			return m.held
		}
		return 0
	}
	n := int(min(m.earned/servedPerDrop, uint64(m.held)))
	m.earned -= uint64(n) * servedPerDrop
	if limit := m.Depth(); dry && depth <= max(limit/4, m.enough()-1) {
		// The workers are about to idle: have the callers try again. (Not when
		// there is more to receive: the queue is then low only because the
		// receive thread had no CPU, and these would be dropped once more.
		// Measured with 256 targets: 5 EINTRs for each served call.)
		n = max(n, min(m.held, limit-depth))
	}
	for n < m.held && now-m.heldAt[(m.first+n)%len(m.heldAt)] >= int64(MaxHold) {
		n++
	}
	return n
}

// Deadline is when [Machine.Release] must be asked again even if nothing
// happens; ok is false if nothing is held.
func (m *Machine) Deadline() (at int64, ok bool) {
	if m.held == 0 {
		return 0, false
	}
	hold := max(m.cfg.Pace, 0)
	if m.cfg.Pace == 0 {
		hold = MaxHold
	}
	return m.heldAt[m.first] + int64(hold), true
}
