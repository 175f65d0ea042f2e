package mono

import (
	"testing"
	"time"
)

func TestLineKeepsUpWithTheKernels(t *testing.T) {
	c := NewLine(Take())
	if c.span == 0 {
		t.Log("there is no counter to read, so it is the kernel's clock")
	}
	began := Now()
	for now := began; now-began < int64(50*time.Millisecond); {
		before := Now()
		now = c.Now()
		after := Now()
		slack := 1000 + (after-began)/1000 // ns, and twice what NTP may change
		if now < before-slack || now > after+slack {
			t.Fatalf("%d ns on, the clock says %d; the kernel's said %d before and %d after", after-began, now, before, after)
		}
	}
}

func BenchmarkLine(b *testing.B) {
	for name, c := range map[string]*Line{"kernel": {}, "counter": NewLine(Take())} {
		b.Run(name, func(b *testing.B) {
			if name == "counter" && c.span == 0 {
				b.Skip("the kernel does not tell the time by a counter that can be read here")
			}
			var sum int64
			for b.Loop() {
				sum += c.Now()
			}
			_ = sum
		})
	}
}
