//go:build fakekernel

// Package futex, under the tag fakekernel: threads are goroutines, and sleep on channels, since in virtual
// time nobody may sleep in Linux.
package futex

import (
	"sync"
	"sync/atomic"
	"time"
)

// sleepers are those in Wait.
var (
	sleepersMu sync.Mutex
	sleepers   = map[*atomic.Uint32][]chan struct{}{}
)

// Wait sleeps while *word is old, for at most d, or as long as it takes if d is 0.
func Wait(word *atomic.Uint32, old uint32, d time.Duration) {
	sleepersMu.Lock()
	if word.Load() != old {
		sleepersMu.Unlock()
		return
	}
	c := make(chan struct{}, 1)
	sleepers[word] = append(sleepers[word], c)
	sleepersMu.Unlock()
	var over <-chan time.Time
	if d != 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		over = t.C
	}
	select {
	case <-c:
	case <-over:
		sleepersMu.Lock()
		defer sleepersMu.Unlock()
		all := sleepers[word]
		for i := range all {
			if all[i] == c {
				sleepers[word] = append(all[:i:i], all[i+1:]...)
			}
		}
		if len(sleepers[word]) == 0 {
			delete(sleepers, word)
		}
	}
}

// Wake wakes one that sleeps on word.
func Wake(word *atomic.Uint32) {
	sleepersMu.Lock()
	defer sleepersMu.Unlock()
	if all := sleepers[word]; len(all) > 0 {
		all[0] <- struct{}{}
		if sleepers[word] = all[1:]; len(all) == 1 {
			delete(sleepers, word)
		}
	}
}
