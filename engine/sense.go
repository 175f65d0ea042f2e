package engine

import (
	"math"
	"math/bits"
	"time"

	"github.com/unknot/unknot/engine/internal/placement"
)

// A sense tells how many targets call, and how fast, in bands: it is what a receive thread observes of its
// load. Each window of calls marks one of senseBits bits for each caller's thread id, and from the bits that
// stay clear follows the number of distinct callers: linear counting (Whang and others, 1990).
type sense struct {
	seen  [senseBits / 64]uint64
	calls int
	from  int64 // when the window began

	low, high agreement // of concurrency
	quick     agreement
	bands     uint32 // as published: the concurrency, and senseBusy
}

const (
	senseBits   = 256
	senseWindow = 256 // calls
	senseBusy   = 1 << 8

	// Targets at which bands of concurrency part; between the two of a pair the band stays.
	mediumFrom, mediumBelow = 11, 9
	highFrom, highBelow     = 160, 125
	// What lies between two calls, on average, while they are busy, and when they are not any more.
	busyBelow, calmAbove = 20 * time.Microsecond, 33 * time.Microsecond
	// agreeing windows in a row change a band.
	agreeing = 2
)

// bitsFor is how many bits so many callers mark on average.
func bitsFor(callers int) int {
	return int(math.Round(senseBits * (1 - math.Exp(-float64(callers)/senseBits))))
}

var mediumBits, notMediumBits, highBits, notHighBits = bitsFor(mediumFrom), bitsFor(mediumBelow), bitsFor(highFrom), bitsFor(highBelow)

// An agreement turns over when windows in a row say otherwise.
type agreement struct {
	is    bool
	count int
}

func (a *agreement) add(yes, no bool) {
	switch {
	case yes == no, yes == a.is:
		a.count = 0
	default:
		if a.count++; a.count == agreeing {
			a.is, a.count = yes, 0
		}
	}
}

// count tells of a call. It reports whether that was the last of a window.
func (s *sense) count(tid uint32, at int64) (full bool) {
	h := tid * 0x9e3779b1 >> 24
	s.seen[h>>6] |= 1 << (h & 63)
	if s.calls++; s.calls < senseWindow {
		return false
	}
	n := 0
	for _, w := range s.seen {
		n += bits.OnesCount64(w)
	}
	gap := time.Duration(at-s.from) / senseWindow
	s.seen, s.calls, s.from = [len(s.seen)]uint64{}, 0, at
	s.low.add(n >= mediumBits, n < notMediumBits)
	s.high.add(n > highBits, n < notHighBits)
	s.quick.add(gap < busyBelow, gap > calmAbove)
	c := placement.Low
	switch {
	case s.high.is:
		c = placement.High
	case s.low.is:
		c = placement.Medium
	}
	s.bands = uint32(c)
	if s.quick.is {
		s.bands |= senseBusy
	}
	return true
}

// observation is what a receive thread published last.
func (o *observed) observation() placement.Observation {
	bands := o.bands.Load()
	return placement.Observation{At: o.at.Load(), Concurrency: placement.Concurrency(bands & 0xff), Busy: bands&senseBusy != 0, TargetCPU: placement.Anywhere, OtherCPU: placement.Anywhere}
}

// A duration follows what a typical handler takes, in bands. One that loses its CPU to the target that it woke
// looks long: windows in a row must agree, or it is surely long.
type duration struct {
	length placement.Length
	next   placement.Length
	count  int
}

const (
	lengthWindow = 64 // calls
	surelyLong   = 200 * time.Microsecond
	agreeingLong = 4
)

// look tells of a typical handler at the end of a window.
func (d *duration) look(typical time.Duration) placement.Length {
	l := placement.LengthOf(typical)
	if l != d.next {
		d.next, d.count = l, 0
	}
	d.count++
	if l != placement.Long || d.count >= agreeingLong || typical >= surelyLong {
		d.length = l
	}
	return d.length
}
