package mono

import (
	"sync"
	"sync/atomic"
	"time"
)

// A Clock is CLOCK_MONOTONIC, in ns, by a [Line] that somebody keeps adjusting to the kernel's clock, and
// by the kernel's clock where there is no counter or nobody does. The zero Clock is ready.
//
// It is meant for differences, too. In calm it is off by some µs and goes on without a jump; while the kernel's
// clock is being brought into line with the world's (adjtimex), by up to 600 µs. When the line ends or is given up it
// jumps by what it was off, also back; and a thread that loses its CPU between two steps of Now may see it go back by
// less than a µs.
type Clock struct {
	line atomic.Pointer[Line]

	mu     sync.Mutex // of who adjusts
	due    int64      // ns: when there is something to do
	last   Mark       // the zero Mark if there is none
	pace   uint64     // of the counter between the last two marks, as a Line's scale; 0 if that is not known
	counts bool       // the kernel tells the time by it
	looks  uint       // for whether it does
}

const (
	// A line ends after lineSpan, in which it would have met the kernel's clock twice, and is adjusted each adjustEvery.
	lineSpan    = 2 * time.Second
	lineMeets   = time.Second
	adjustEvery = time.Second / 2
	// Where two paces in a row differ by more than a part in mostOff, or a line is further off than
	// mostAstray, one of the clocks was set, stood still, or is being set fast: there is no line until they agree.
	// CLOCK_MONOTONIC stands still while the machine sleeps; the counter may not.
	mostOff    = 500
	mostAstray = 600 * time.Microsecond
	// The kernel may find that the counter cannot be trusted: that is looked for once in so many adjustments, and
	// where it does not use it, as seldom.
	lookAgain = 16
)

// Now may be called by anybody at any time.
func (c *Clock) Now() int64 {
	l := c.line.Load()
	if l == nil {
		return Now()
	}
	return l.Now()
}

// Counts reports whether the clock was by the counter when it was last adjusted.
func (c *Clock) Counts() bool { return c.line.Load() != nil }

// Adjust is to be called at least once a second while the clock is to be cheap: the third call, if they are 3 ms apart,
// draws a line. It mostly returns at once, else it takes some µs.
func (c *Clock) Adjust() {
	if Counter == "" || !c.mu.TryLock() {
		return
	}
	defer c.mu.Unlock()
	if now := Now(); now >= c.due {
		c.due = now + int64(c.adjust(Take, kernelCounts))
	}
}

// adjust returns when to do so again.
func (c *Clock) adjust(take func() Mark, counts func() bool) time.Duration {
	if c.looks++; !c.counts || c.looks%lookAgain == 0 {
		c.counts = counts()
	}
	if !c.counts {
		c.line.Store(nil)
		c.last, c.pace = Mark{}, 0
		return lookAgain * adjustEvery
	}
	m, before := take(), c.pace
	l := through(c.last, m)
	c.last, c.pace = m, 0
	if l != nil && (before == 0 || !apart(before, l.scale)) {
		c.pace = l.scale
	}
	if before != 0 && c.pace != 0 { // two paces agree
		l = follow(c.line.Load(), l)
	} else {
		l = nil
	}
	c.line.Store(l)
	if l == nil {
		return lineBase
	}
	return adjustEvery
}

// follow makes l, which was drawn through the last two marks, the line that follows the old one; nil if they are too far apart.
func follow(old, l *Line) *Line {
	l.span = uint64(lineSpan) << 32 / l.scale
	if old == nil || l.from-old.from > old.span { // that one has ended: it is nobody's clock
		return l
	}
	// Begin where the old one is, lest the clock jump, and meet the kernel's.
	astray := l.origin - old.at(l.from)
	if astray > int64(mostAstray) || -astray > int64(mostAstray) {
		return nil
	}
	l.origin -= astray
	l.scale += uint64(int64(l.scale) * astray / int64(lineMeets))
	return l
}

// apart reports whether two paces differ by too much.
func apart(a, b uint64) bool { return max(a, b)-min(a, b) > a/mostOff }
