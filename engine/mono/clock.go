package mono

import (
	"sync"
	"sync/atomic"
	"time"
)

// A Clock is CLOCK_MONOTONIC, in ns, by a [Line] that somebody keeps adjusting to the kernel's clock, and
// by the kernel's clock where there is no counter or nobody does. The zero Clock is ready. While it is adjusted
// it does not go back and is off by less than some µs. When there
// is no line any more it may go back by as much.
type Clock struct {
	line atomic.Pointer[Line]

	mu     sync.Mutex // of who adjusts
	last   Mark       // through which the line was drawn; the zero Mark if there is none
	counts bool
	looks  uint // for whether it counts
}

const (
	// A line holds for lineSpan, is adjusted each adjustEvery, and made anew when its last mark is older
	// than lineOld, since a machine may have slept meanwhile.
	lineSpan    = 2 * time.Second
	adjustEvery = time.Second / 2
	lineOld     = 10 * time.Second
	// A line that is further off the kernel's clock than mostAstray, or whose pace then differs from the next one's
	// by more than a part in mostOff, tells that one of the clocks was set or stood still: it is given up.
	mostAstray = 600 * time.Microsecond
	mostOff    = 400
	// The kernel may find that the counter cannot be trusted: that is looked for once in so many adjustments.
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

// Adjust is to be called at least once a second while the clock is to be cheap. It mostly returns at once; else it
// takes some µs. There is a line from the second call on, if they are 3 ms apart.
func (c *Clock) Adjust() {
	if !c.mu.TryLock() {
		return
	}
	defer c.mu.Unlock()
	old, since := c.line.Load(), time.Duration(Now()-c.last.ns)
	first := c.last == Mark{}
	if !first && (since < lineBase || old != nil && since < adjustEvery) {
		return
	}
	if c.looks++; first || c.looks%lookAgain == 0 {
		c.counts = Counts()
	}
	if !c.counts {
		c.line.Store(nil)
		c.last = Mark{}
		return
	}
	m := Take()
	if first || since > lineOld {
		c.line.Store(nil)
	} else {
		c.line.Store(next(old, c.last, m))
	}
	c.last = m
}

// next is the line on from mark m, the last having been drawn through mark a; nil if they do not fit.
// It begins where the old one is now, lest the clock jump, and approaches the kernel's.
func next(old *Line, a, m Mark) *Line {
	l := through(a, m)
	if l == nil {
		return nil
	}
	hz := float64(m.cycles-a.cycles) / float64(m.ns-a.ns) * 1e9
	l.span = uint64(hz * lineSpan.Seconds())
	if old == nil {
		return l
	}
	astray := l.origin - old.at(m.cycles)
	off := int64(l.scale-old.scale) * mostOff
	if astray > int64(mostAstray) || -astray > int64(mostAstray) || off > int64(l.scale) || -off > int64(l.scale) {
		return nil
	}
	l.origin -= astray
	l.scale += uint64(int64(l.scale) * astray / int64(adjustEvery))
	return l
}
