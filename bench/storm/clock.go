package storm

import (
	"math/bits"
	"os"
	"strings"
	"time"

	"github.com/unknot/unknot/engine/mono"
)

// A clock is CLOCK_MONOTONIC, in ns, as the threads of a closed loop read it after each
// call: by the processor's counter, where the kernel itself tells the time by that. The zero
// clock is the kernel's; processes that are replaced, which live too short to make one, have that.
//
// Go reads the kernel's clock on the system stack of each thread. Of 1,024 threads in turn
// none finds its own in the cache: with this clock they made 1.15 times the calls, and 64
// of them, on a bare supervisor, 1.07 times.
//
// It is meant for differences: off by some 10 millionths (and up to 500 while the kernel
// brings its clock into line with the world's), it has gone astray by 10 µs after a second.
type clock struct {
	origin int64  // CLOCK_MONOTONIC, when the counter was at from
	from   uint64 // cycles
	scale  uint64 // ns of a cycle, in 2^-32; 0: there is no counter
}

// now does not wait for the loads before it, as the kernel's clock does: that would be for
// what of the caller is not in the cache, which is no part of a call's time.
//
//go:nosplit
func (c *clock) now() int64 {
	if c.scale == 0 {
		return mono.Now()
	}
	hi, lo := bits.Mul64(cycles()-c.from, c.scale)
	return c.origin + int64(hi<<32|lo>>32)
}

// A mark is both clocks at one instant.
type mark struct {
	ns     int64
	cycles uint64
}

// takeMark takes the closest of some pairs of readings.
func takeMark() (m mark) {
	closest := ^uint64(0)
	for i := 0; i < 8 || closest > 4096 && i < 1000; i++ { // more if each was interrupted
		before := cycles()
		ns := mono.Now()
		if took := cycles() - before; took < closest {
			closest, m = took, mark{ns, before + took/2}
		}
	}
	return m
}

// clockBase is how far apart the marks are at least that a clock is made from. A mark is
// good to 15 ns or so.
const clockBase = 3 * time.Millisecond

// newClock makes a clock of a mark taken some time ago.
func newClock(first mark) *clock {
	if !counts() {
		return new(clock)
	}
	time.Sleep(clockBase - time.Duration(mono.Now()-first.ns))
	m := takeMark()
	scale, _ := bits.Div64(uint64(m.ns-first.ns)>>32, uint64(m.ns-first.ns)<<32, m.cycles-first.cycles)
	return &clock{origin: m.ns, from: m.cycles, scale: scale}
}

// counts reports whether the kernel tells the time by the counter that cycles reads. Then
// it has made sure that all CPUs count alike.
func counts() bool {
	source, err := os.ReadFile("/sys/devices/system/clocksource/clocksource0/current_clocksource")
	return err == nil && strings.TrimSpace(string(source)) == counter
}
