package storm

import (
	"testing"
	"time"

	"github.com/unknot/unknot/engine/mono"
)

func TestClockKeepsUpWithTheKernels(t *testing.T) {
	c := newClock(takeMark())
	if c.scale == 0 {
		t.Log("there is no counter to read, so it is the kernel's clock")
	}
	began := mono.Now()
	for now := began; now-began < int64(50*time.Millisecond); {
		before := mono.Now()
		now = c.now()
		after := mono.Now()
		slack := 1000 + (after-began)/1000 // ns, and twice what NTP may change
		if now < before-slack || now > after+slack {
			t.Fatalf("%d ns on, the clock says %d; the kernel's said %d before and %d after", after-began, now, before, after)
		}
	}
}

func BenchmarkClock(b *testing.B) {
	for name, c := range map[string]*clock{"kernel": {}, "counter": newClock(takeMark())} {
		b.Run(name, func(b *testing.B) {
			if name == "counter" && c.scale == 0 {
				b.Skip("the kernel does not tell the time by a counter that can be read here")
			}
			var sum int64
			for b.Loop() {
				sum += c.now()
			}
			_ = sum
		})
	}
}
