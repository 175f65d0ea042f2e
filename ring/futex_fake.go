//go:build fakekernel

package ring

import (
	"sync"
	"sync/atomic"
)

// Under the tag fakekernel, which is the engine's, threads are goroutines, and sleep on channels: in virtual time nobody may sleep
// in Linux.
var (
	sleepersMu sync.Mutex
	sleepers   = map[*atomic.Uint32]chan struct{}{}
)

func sysFutexWait(word *atomic.Uint32, old uint32) {
	sleepersMu.Lock()
	if word.Load() != old {
		sleepersMu.Unlock()
		return
	}
	c := make(chan struct{})
	sleepers[word] = c // a word has one sleeper, its waiter's owner
	sleepersMu.Unlock()
	<-c
}

func sysFutexWake(word *atomic.Uint32) {
	sleepersMu.Lock()
	defer sleepersMu.Unlock()
	if c := sleepers[word]; c != nil {
		close(c)
		delete(sleepers, word)
	}
}
