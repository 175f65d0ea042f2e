package slowstop

import (
	"sync"
	"testing"
	"time"
)

// TestPulse: a heart beats while there are sleepers and stops without, however they come and go.
func TestPulse(t *testing.T) {
	h := NewHeart(time.Millisecond)
	until := func(what string, is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(100 * time.Microsecond) {
			if time.Now().After(deadline) {
				panic(what + " takes more than a minute") // from whichever goroutine
			}
		}
	}
	for range 20 {
		h.Begin()
		from := h.beats.Load()
		until("beating for one sleeper", func() bool { return h.beats.Load() >= from+2 })
		h.End()
		until("stopping", func() bool { return !h.beating.Load() })
	}
	var sleepers sync.WaitGroup
	for range 4 {
		sleepers.Go(func() {
			for range 300 {
				h.Begin()
				from := h.beats.Load()
				until("beating beside others", func() bool { return h.beats.Load() != from })
				h.End()
			}
		})
	}
	sleepers.Wait()
	until("stopping at the end", func() bool { return !h.beating.Load() })
}
