package mono_test

import (
	"testing"

	"github.com/unknot/unknot/internal/mono"
	"golang.org/x/sys/unix"
)

func TestNowIsTheKernelsMonotonicClock(t *testing.T) {
	read := func() int64 {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			t.Fatal(err)
		}
		return ts.Nano()
	}
	for range 1000 {
		before := read()
		now := mono.Now()
		if after := read(); now < before || now > after {
			t.Fatalf("Now = %d, CLOCK_MONOTONIC was %d before and %d after", now, before, after)
		}
	}
}

func BenchmarkNow(b *testing.B) {
	var sum int64
	for b.Loop() {
		sum += mono.Now()
	}
	_ = sum
}
