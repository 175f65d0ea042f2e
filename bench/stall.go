package bench

import (
	"sync/atomic"
	"time"
)

// A stall holds up one handler, once, in the middle of what is measured.
type stall struct {
	length     time.Duration
	at         atomic.Int64 // when, by now(); 0: not yet known
	begun, end atomic.Int64 // when it was
}

// maybe is called by every handler.
func (s *stall) maybe() {
	if s == nil {
		return
	}
	at := s.at.Load()
	if at == 0 || now() < at || !s.at.CompareAndSwap(at, 0) {
		return
	}
	s.begun.Store(now())
	Work{Time: s.length, Sleep: true}.Do()
	s.end.Store(now())
}
