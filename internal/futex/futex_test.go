package futex

import (
	"sync/atomic"
	"testing"
	"time"
)

func TestWaitAndWake(t *testing.T) {
	var word atomic.Uint32
	Wait(&word, 1, time.Hour)        // it is not 1: returns at once, or the test hangs
	Wait(&word, 0, time.Microsecond) // nobody wakes us
	woken := make(chan struct{})
	go func() {
		for word.Load() == 0 {
			Wait(&word, 0, time.Hour)
		}
		close(woken)
	}()
	time.Sleep(time.Millisecond) // it sleeps by then, mostly; the other order must work too
	word.Store(1)
	Wake(&word)
	<-woken
}
