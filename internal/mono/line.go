package mono

import (
	"math/bits"
	"os"
	"strings"
	"time"
)

// A Line is CLOCK_MONOTONIC, in ns, read by the processor's counter, where the kernel itself
// tells the time by that: from two marks on it goes on as straight as they say. The zero Line
// is the kernel's clock.
//
// Go reads the kernel's clock on the system stack of each thread, by a function of the kernel's
// (vDSO) that waits for the loads before it: 22 ns, where this takes 9.
//
// It is meant for differences: a line of marks 3 ms apart is off by some 10 millionths (and by 500 and
// more while the kernel's clock is brought into line with the world's), so that it has gone astray
// by 10 µs after a second. A [Clock] follows.
type Line struct {
	origin int64  // CLOCK_MONOTONIC, when the counter was at from
	from   uint64 // cycles
	scale  uint64 // ns of a cycle, in 2^-32
	span   uint64 // for how many cycles it holds, at most 1<<63; then it is the kernel's clock again
}

// Now does not wait for the loads before it, as the kernel's clock does: that would be for
// what of the caller is not in the cache, which is no part of what is measured. It is no point
// of preemption.
//
//go:nosplit
func (l *Line) Now() int64 {
	if l.span == 0 {
		return Now()
	}
	d := cycles() - l.from
	if d >= l.span { // or the counter went back
		return Now()
	}
	hi, lo := bits.Mul64(d, l.scale)
	return l.origin + int64(hi<<32|lo>>32)
}

// at is what the line says when the counter is at the given number, which is not before it.
func (l *Line) at(cycles uint64) int64 {
	hi, lo := bits.Mul64(cycles-l.from, l.scale)
	return l.origin + int64(hi<<32|lo>>32)
}

// A Mark is both clocks at one instant.
type Mark struct {
	ns     int64
	cycles uint64
}

// Take takes the closest of some pairs of readings: to 15 ns or so.
func Take() (m Mark) {
	closest := ^uint64(0)
	for i := 0; i < 8 || closest > 4096 && i < 1000; i++ { // more if each was interrupted
		before := cycles()
		ns := Now()
		if took := cycles() - before; took < closest {
			closest, m = took, Mark{ns, before + took/2}
		}
	}
	return m
}

// lineBase is how far apart the marks are at least that a line is drawn through.
const lineBase = 3 * time.Millisecond

// NewLine is the line through now and a mark taken some time ago; if it was not, it waits. It
// has no end.
func NewLine(first Mark) *Line {
	if !kernelCounts() {
		return new(Line)
	}
	time.Sleep(lineBase - time.Duration(Now()-first.ns))
	l := through(first, Take())
	if l == nil {
		return new(Line)
	}
	l.span = 1 << 63
	return l
}

// through is the line through two marks, without a span; nil if there is none, as when there is no first one.
func through(a, b Mark) *Line {
	ns, cycles := uint64(b.ns-a.ns), b.cycles-a.cycles
	if a == (Mark{}) || b.ns <= a.ns || cycles >= 1<<63 || cycles <= ns>>32 {
		return nil
	}
	scale, _ := bits.Div64(ns>>32, ns<<32, cycles)
	return &Line{origin: b.ns, from: b.cycles, scale: scale}
}

// kernelCounts reports whether the kernel tells the time by the counter that a Line reads. Then
// it has made sure that all CPUs count alike.
func kernelCounts() bool {
	if Counter == "" {
		return false
	}
	source, err := Source()
	return err == nil && source == Counter
}

// Source is the kernel's name for what it tells the time by.
func Source() (string, error) {
	b, err := os.ReadFile("/sys/devices/system/clocksource/clocksource0/current_clocksource")
	return strings.TrimSpace(string(b)), err
}
