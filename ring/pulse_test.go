//go:build !ringmodel

package ring

import (
	"sync"
	"testing"
	"time"
)

// TestPulseOfThreads: wired consumers that sleep have the timer of the process running.
func TestPulseOfThreads(t *testing.T) {
	r := New[uint64](8)
	var ended sync.WaitGroup
	from := pulse.Beats()
	ended.Go(func() { r.ThreadConsumer().Pop(make([]uint64, 1)) })
	within(t, time.Minute, "a beat", func() {
		for pulse.Beats() == from {
			time.Sleep(10 * time.Millisecond)
		}
	})
	r.Close()
	within(t, time.Minute, "waking up", ended.Wait)
}
