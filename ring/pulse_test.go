//go:build !ringmodel

package ring

import (
	"sync"
	"testing"
	"time"
)

// TestPulse: a heart beats while there are sleepers and stops without, however they come and go.
func TestPulse(t *testing.T) {
	h := newHeart(time.Millisecond)
	until := func(what string, is func() bool) {
		t.Helper()
		within(t, 10*time.Second, what, func() {
			for !is() {
				time.Sleep(100 * time.Microsecond)
			}
		})
	}
	for range 20 {
		h.begin()
		from := h.beats.Load()
		until("beating for one sleeper", func() bool { return h.beats.Load() >= from+2 })
		h.end()
		until("stopping", func() bool { return !h.beating.Load() })
	}
	var sleepers sync.WaitGroup
	for range 4 {
		sleepers.Go(func() {
			for range 300 {
				h.begin()
				from := h.beats.Load()
				until("beating beside others", func() bool { return h.beats.Load() != from })
				h.end()
			}
		})
	}
	sleepers.Wait()
	until("stopping at the end", func() bool { return !h.beating.Load() })
}

// TestPulseOfThreads: wired consumers that sleep have the timer of the process running.
func TestPulseOfThreads(t *testing.T) {
	r := New[uint64](8)
	var ended sync.WaitGroup
	from := pulse.beats.Load()
	ended.Go(func() { r.ThreadConsumer().Pop(make([]uint64, 1)) })
	within(t, 20*time.Second, "a beat", func() {
		for pulse.beats.Load() == from {
			time.Sleep(10 * time.Millisecond)
		}
	})
	r.Close()
	within(t, 10*time.Second, "waking up", ended.Wait)
}
