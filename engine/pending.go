package engine

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// A Pending is a request that outlives its handler: [Request.Detach] makes it. All methods of
// a Request are its own, and stay its own when Handle has returned, from any goroutine. Its Request may be
// handed to what takes one.
//
// It must be answered, as any request. Past the handler's deadline (Config.HandlerDeadline, from dispatch
// on), or when a stop has waited long enough, the engine answers by default, and Return
// and its like fail with [ErrAnswered]. Without a deadline, one that is forgotten keeps its target
// waiting until the engine stops, or its listener's removal for as long.
type Pending struct {
	Request
	over chan struct{}
}

// A pending is what the slot of a detached request has in addition.
type pending struct {
	rx   *receiver
	over chan struct{} // closed once it is answered
	kept atomic.Bool   // whom Go runs has detached it in turn
}

// errDetached is what a request's answers are once it was detached.
var errDetached = fmt.Errorf("%w: it was detached, and its Pending answers", ErrAnswered)

// Detach makes r a [Pending], so that its handler may return without an answer, and its
// worker go on. From then on r itself answers nothing any more, but reads as before
// until Handle returns. The engine counts it as detached, and no longer as in a handler.
//
// A request that has had its answer, or is spent, is detached for nothing: the Pending's answers
// fail as its own. Detach allocates some 400 bytes, which the path of other requests does not.
func (r Request) Detach() *Pending {
	s := r.s
	if s != nil && s.pending != nil {
		s.pending.kept.Store(true)
		return &Pending{r, s.pending.over}
	}
	if s == nil || !s.state.CompareAndSwap(r.seq, r.seq-running+answering) {
		return &Pending{r, closed}
	}
	const first = 1<<phaseBits | running
	// The owner stays the same until there is nothing outstanding.
	p := &pending{rx: s.src.owner.Load(), over: make(chan struct{})}
	d := &slot{notif: s.notif, src: s.src, stats: s.stats, receivedAt: s.receivedAt, dispatchedAt: s.dispatchedAt,
		seq: first, t: s.t, e: s.e, pending: p}
	d.limits.Store(s.limits.Load())
	d.state.Store(first)
	p.rx.detached.Add(1)
	s.src.detached.Add(1)
	s.e.life.detached.add(d)
	s.giveBack()
	at := now()
	s.answeredFrom, s.endedAt = at, at
	s.state.Store(r.seq - running + detached)
	return &Pending{Request{d, first}, p.over}
}

// Done is closed once the call has its answer, whoever gave it, or is known to need none any
// more. That its target died nobody tells: ask [Request.Alive].
func (p *Pending) Done() <-chan struct{} { return p.over }

var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// end says that the request in s has its answer.
func (p *pending) end(s *slot) {
	p.rx.detached.Add(-1)
	s.src.detached.Add(-1)
	s.e.life.detached.remove(s)
	close(p.over)
}

// Go returns a handler that has h handle each call on a goroutine of its own, by [Request.Detach], so that its
// workers go on: for calls that wait for something else. No more than most run at once; a
// call beyond that is handled by the worker itself, which is then busy. A panic
// of h is counted and answered for, as a handler's. It panics if most is less than one.
func Go(h Handler, most int) Handler {
	if most < 1 {
		panic(fmt.Sprintf("engine: Go: %d goroutines at most: must be 1 or more", most))
	}
	places := make(chan struct{}, most)
	return HandlerFunc(func(r Request) {
		if r.s != nil && r.s.pending != nil { // it is on a goroutine already
			h.Handle(r)
			return
		}
		select {
		case places <- struct{}{}:
		default:
			h.Handle(r)
			return
		}
		p := r.Detach()
		if p.s == nil || p.s.pending == nil { // it was answered for meanwhile
			<-places
			return
		}
		go func() {
			defer func() { <-places }()
			p.s.run(h)
		}()
	})
}

// run has h handle a detached request, and survives it.
func (s *slot) run(h Handler) {
	returned := false
	defer func() {
		if returned {
			if !s.pending.kept.Load() {
				s.answerDefault(false)
			}
			return
		}
		p := recover()
		if p == nil {
			p = "runtime.Goexit"
		}
		s.panicked(p)
	}()
	h.Handle(Request{s, s.seq})
	returned = true
}

// pendings are an engine's detached requests that have no answer yet.
type pendings struct {
	mu   sync.Mutex
	all  map[*slot]struct{}
	gone chan struct{}
}

func (p *pendings) add(s *slot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = map[*slot]struct{}{}
	}
	p.all[s] = struct{}{}
}

func (p *pendings) remove(s *slot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.all, s)
	if len(p.all) == 0 && p.gone != nil {
		close(p.gone)
		p.gone = nil
	}
}

// allGone returns a channel that is closed once there are none.
func (p *pendings) allGone() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.all) == 0 {
		return closed
	}
	if p.gone == nil {
		p.gone = make(chan struct{})
	}
	return p.gone
}

// expire answers for those whose deadline is over at the given time, or for all that were dispatched before it if so
// said, and says for which.
func (p *pendings) expire(at int64, any bool) (answered []lateness) {
	p.mu.Lock()
	all := slices.Collect(maps.Keys(p.all))
	p.mu.Unlock()
	for _, s := range all {
		if s.overdue(s.dispatchedAt, at, any) && s.state.CompareAndSwap(s.seq, s.seq-running+late) {
			l := s.late()
			s.state.Store(s.seq - running + l.then)
			answered = append(answered, l)
		}
	}
	return answered
}

// stopped is what a stop says of those that it does not wait for any more.
func (p *pendings) stopped() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.all); n > 0 {
		return fmt.Errorf("engine: stop: %w: %d detached requests without an answer", ErrStopTimeout, n)
	}
	return nil
}
