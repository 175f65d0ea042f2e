package engine

import (
	"slices"
	"syscall"

	"github.com/unknot/unknot/engine/notify"
)

// admit gives a received call its place in the ring, by the policy.
func (l *loop) admit(src *Source, c *cell) {
	s := &src.rx
	h := [1]uint64{handle(src, s.cell[0])}
	depth := src.ring.Load().Len()
	if n := int64(min(depth+1, src.opts.Queue)); n > src.high.Load() {
		src.high.Store(n)
	}
	if s.adapts {
		s.policy.Look(c.receivedAt, depth, s.pushed-s.shed-uint64(depth))
	}
	admit, evict := s.policy.Arrive(depth)
	switch {
	case !admit && src.ring.Load().Len() < s.policy.Depth() && src.ring.Load().Push(h[:]) == 1: // room came meanwhile
	case !admit:
		l.overflow(src, 1)
		l.hold(src, c) // its cell stays for the next RECV
		l.setTimer(src)
		return
	default:
		k := src.ring.Load().PushDrop(h[:], s.evicted)
		if s.adapts && evict > 0 { // the ring need not be full: what workers took meanwhile has not to go
			evict = min(evict, k+max(src.ring.Load().Len()-(depth+1-evict), 0))
		}
		if k < evict && (k > 0 || s.adapts) {
			k += src.ring.Load().TryPop(s.evicted[k:evict])
		}
		if k > 0 {
			l.overflow(src, k)
			l.evict(src, s.evicted[:k])
		}
	}
	s.hasCell = false
	if s.pushedAt != nil {
		s.pushedAt[s.pushed%uint64(len(s.pushedAt))] = c.receivedAt
	}
	s.pushed++
	if s.policy.Rests(src.ring.Load().Len()) {
		s.pauseUntil = 0
		if at, ok := s.policy.RestsUntil(c.receivedAt); ok {
			s.pauseUntil = at
		}
		// Announced before the second look: a worker that makes room after
		// it sees the announcement.
		n := src.pause.begin()
		if s.policy.Resumes(src.ring.Load().Len()) {
			src.pause.end(n)
		}
	}
	if s.pushedAt != nil {
		l.setTimer(src)
	}
}

// overflow counts calls that give way because the ring is full.
func (l *loop) overflow(src *Source, n int) {
	l.t.overflowed.Add(uint64(n))
	src.overflowed.Add(uint64(n))
}

// evict holds the calls of handles that the receive thread has claimed.
func (l *loop) evict(src *Source, hs []uint64) {
	src.rx.shed += uint64(len(hs))
	for _, h := range hs {
		l.hold(src, src.slab.At(uint32(h)))
		src.slab.Keep(uint32(h))
	}
	l.setTimer(src)
}

// hold drops the call in a cell, but does not tell it yet.
func (l *loop) hold(src *Source, c *cell) {
	s := &src.rx
	s.dropped++
	l.rx.held.Add(1)
	src.held.Add(1)
	l.answer(src, s.policy.Room(1))
	s.policy.Hold(now(), 1)
	s.held[(s.first+s.policy.Held()-1)%len(s.held)] = l.rx.e.drops(&c.notif, c.stats, c.receivedAt)
}

// answer tells the n oldest held calls.
func (l *loop) answer(src *Source, n int) {
	s := &src.rx
	for range n {
		h := &s.held[s.first]
		s.first = (s.first + 1) % len(s.held)
		l.rx.sendDrop(l.t, src, h)
		s.policy.Answered(1)
		l.rx.held.Add(-1)
		src.held.Add(-1)
	}
}

// setTimer has the loop look after src's held and aging calls.
func (l *loop) setTimer(src *Source) {
	if !src.rx.timed {
		src.rx.timed = true
		l.timers = append(l.timers, src)
	}
}

// runTimers answers the held calls whose time has come, drops those that are too old,
// and reports when it must look again.
func (l *loop) runTimers() (deadline int64, timed bool) {
	if len(l.timers) == 0 {
		return 0, false
	}
	at := now()
	kept := l.timers[:0]
	for _, src := range l.timers {
		s := &src.rx
		l.expire(src, at)
		n := s.policy.Release(at, src.ring.Load().Len(), src.served(), s.dry)
		s.dry = true // unless the next look finds a call
		if src.leaving.Load() {
			n = s.policy.Held()
		}
		l.answer(src, min(n, timerBatch))
		next, more := s.policy.Deadline()
		if n > timerBatch {
			next = at // the rest after the next RECV
		}
		if number, on := src.pause.now(); on && s.pauseUntil != 0 {
			if at >= s.pauseUntil {
				src.pause.end(number)
			} else if !more || s.pauseUntil < next {
				next, more = s.pauseUntil, true
			}
		}
		if oldest, ok := l.oldest(src); ok {
			oldest += int64(l.rx.e.cfg.MaxAge)
			if !more || oldest < next {
				next, more = oldest, true
			}
		}
		if !more {
			s.timed = false
			continue
		}
		kept = append(kept, src)
		if !timed || next < deadline {
			deadline, timed = next, true
		}
	}
	l.timers = kept
	return deadline, timed
}

// oldest is when the oldest call in src's ring was received, if calls can be too
// old. The thread is the only one to push, so it knows what it pushed when.
func (l *loop) oldest(src *Source) (at int64, ok bool) {
	s := &src.rx
	n := uint64(src.ring.Load().Len())
	if s.pushedAt == nil || n == 0 {
		return 0, false
	}
	return s.pushedAt[(s.pushed-n)%uint64(len(s.pushedAt))], true
}

// expire drops what has been in src's ring for too long. A worker that takes
// calls at the same moment may have it drop as many that were not quite so old.
func (l *loop) expire(src *Source, at int64) {
	for {
		oldest, ok := l.oldest(src)
		if !ok || at-oldest < int64(l.rx.e.cfg.MaxAge) {
			return
		}
		k := src.ring.Load().TryPop(src.rx.evicted[:1])
		l.t.expired.Add(uint64(k))
		src.expired.Add(uint64(k))
		l.evict(src, src.rx.evicted[:k])
		// No worker takes what was dropped here, so that none would end a pause.
		if number, on := src.pause.now(); on && src.rx.policy.Resumes(src.ring.Load().Len()) {
			src.pause.end(number)
		}
	}
}

// forget drops src from the timers: it goes to another receiver, and nothing of it is outstanding.
func (l *loop) forget(src *Source) {
	l.timers = slices.DeleteFunc(l.timers, func(s *Source) bool { return s == src })
	src.rx.timed = false
}

// answerHeld tells all held calls; the thread is about to end.
func (l *loop) answerHeld() {
	for _, src := range l.timers {
		l.answer(src, src.rx.policy.Held())
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
