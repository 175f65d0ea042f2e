package engine

import (
	"syscall"

	"github.com/unknot/unknot/engine/notify"
)

// admit gives a received call its place in the ring, by the policy.
func (rx *receiver) admit(src *Source, c *cell) {
	s := &src.rx
	h := [1]uint64{handle(src, s.cell[0])}
	admit, evict := s.policy.Arrive(src.ring.Len())
	switch {
	case !admit && src.ring.Push(h[:]) == 1: // room came meanwhile
	case !admit:
		rx.hold(src, c) // its cell stays for the next RECV
		rx.tendTo(src)
		return
	default:
		k := src.ring.PushDrop(h[:], rx.evicted)
		if k > 0 && k < evict {
			k += src.ring.TryPop(rx.evicted[k:evict])
		}
		if k > 0 {
			rx.evict(src, rx.evicted[:k])
		}
	}
	s.hasCell = false
	if s.pushedAt != nil {
		s.pushedAt[s.pushed%uint64(len(s.pushedAt))] = c.receivedAt
		s.pushed++
	}
	if s.policy.Rests(src.ring.Len()) {
		s.restUntil = 0
		if at, ok := s.policy.RestsUntil(c.receivedAt); ok {
			s.restUntil = at
		}
		// Announced before the second look: a worker that makes room after
		// it sees the announcement.
		n := src.rest.begin()
		if s.policy.Resumes(src.ring.Len()) {
			src.rest.end(n)
		}
	}
	if s.pushedAt != nil {
		rx.tendTo(src)
	}
}

// evict holds the calls of handles that the receive thread has claimed.
func (rx *receiver) evict(src *Source, hs []uint64) {
	for _, h := range hs {
		rx.hold(src, src.slab.At(uint32(h)))
		src.slab.Keep(uint32(h))
	}
	rx.tendTo(src)
}

// hold drops the call in a cell, but does not tell it yet.
func (rx *receiver) hold(src *Source, c *cell) {
	s := &src.rx
	s.dropped++
	rx.e.held.Add(1)
	rx.answer(src, s.policy.Room(1))
	s.policy.Hold(now(), 1)
	s.held[(s.first+s.policy.Held()-1)%len(s.held)] = rx.e.drops(&c.notif, c.stats, c.receivedAt)
}

// answer tells the n oldest held calls.
func (rx *receiver) answer(src *Source, n int) {
	s := &src.rx
	for range n {
		h := &s.held[s.first]
		s.first = (s.first + 1) % len(s.held)
		rx.e.sendDrop(rx.t, src, h)
		s.policy.Answered(1)
		rx.e.held.Add(-1)
	}
}

// tendTo has the loop look after src's held and aging calls.
func (rx *receiver) tendTo(src *Source) {
	if !src.rx.tended {
		src.rx.tended = true
		rx.tended = append(rx.tended, src)
	}
}

// tend answers the held calls whose time has come, drops those that are too old,
// and reports when it must look again.
func (rx *receiver) tend() (deadline int64, timed bool) {
	if len(rx.tended) == 0 {
		return 0, false
	}
	at := now()
	kept := rx.tended[:0]
	for _, src := range rx.tended {
		s := &src.rx
		rx.expire(src, at)
		n := s.policy.Release(at, src.ring.Len(), src.served(), s.dry)
		s.dry = true // unless the next look finds a call
		if src.retiring.Load() {
			n = s.policy.Held()
		}
		rx.answer(src, min(n, tendBatch))
		next, more := s.policy.Deadline()
		if n > tendBatch {
			next = at // the rest after the next RECV
		}
		if rest, on := src.rest.now(); on && s.restUntil != 0 {
			if at >= s.restUntil {
				src.rest.end(rest)
			} else if !more || s.restUntil < next {
				next, more = s.restUntil, true
			}
		}
		if oldest, ok := rx.oldest(src); ok {
			oldest += int64(rx.e.cfg.MaxAge)
			if !more || oldest < next {
				next, more = oldest, true
			}
		}
		if !more {
			s.tended = false
			continue
		}
		kept = append(kept, src)
		if !timed || next < deadline {
			deadline, timed = next, true
		}
	}
	rx.tended = kept
	return deadline, timed
}

// oldest is when the oldest call in src's ring was received, if calls can be too
// old. The thread is the only one to push, so it knows what it pushed when.
func (rx *receiver) oldest(src *Source) (at int64, ok bool) {
	s := &src.rx
	n := uint64(src.ring.Len())
	if s.pushedAt == nil || n == 0 {
		return 0, false
	}
	return s.pushedAt[(s.pushed-n)%uint64(len(s.pushedAt))], true
}

// expire drops what has been in src's ring for too long. A worker that takes
// calls at the same moment may have it drop as many that were not quite so old.
func (rx *receiver) expire(src *Source, at int64) {
	for {
		oldest, ok := rx.oldest(src)
		if !ok || at-oldest < int64(rx.e.cfg.MaxAge) {
			return
		}
		k := src.ring.TryPop(rx.evicted[:1])
		rx.t.aged.Add(uint64(k))
		rx.evict(src, rx.evicted[:k])
	}
}

// answerHeld tells all held calls; the thread is about to end.
func (rx *receiver) answerHeld() {
	for _, src := range rx.tended {
		rx.answer(src, src.rx.policy.Held())
	}
}

// maxDropErrnos bounds the system call numbers with a drop errno of their own.
const maxDropErrnos = 1024

// dropErrno is what a dropped call is answered.
func (e *Engine) dropErrno(d *notify.Data) syscall.Errno {
	if e.dropErrnos != nil && uint32(d.NR) < maxDropErrnos && d.Arch == notify.NativeArch {
		if errno := e.dropErrnos[d.NR]; errno != 0 {
			return errno
		}
	}
	return e.cfg.DropErrno
}
