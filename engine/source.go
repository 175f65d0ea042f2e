package engine

import (
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/policy"
	"github.com/unknot/unknot/ring"
)

// A Source is a listener in the engine. Each has a ring of its own, so that the
// noisiest listener loses first and a quiet one keeps its wait: workers take
// from the rings in turn.
type Source struct {
	e       *Engine
	l       *notify.Listener
	index   int
	owner   atomic.Pointer[receiver] // whose listener it is
	gone    atomic.Bool              // the receive thread is done with it
	leaving atomic.Bool              // somebody is taking it out, or to another receiver
	drained chan struct{}            // capacity 1: all that was received is answered
	ended   chan struct{}            // closed once the listener is closed or handed back

	// Guarded by registry.mu.
	retired  bool          // it is being taken out for good
	unwanted bool          // and somebody else wants it closed
	moved    chan struct{} // it goes to another receiver; closed when that is over

	received atomic.Uint64 // calls
	finished atomic.Uint64 // of these, answered or found gone

	// Of the queue path.
	ring  atomic.Pointer[ring.Ring[uint64]] // another one with each owner
	slab  *ring.Slab[cell]
	pause pause // nothing is received until a worker ends it
	rx    sourceRx

	caller atomic.Uint32 // thread id of a target, for the controller; 0: none yet
	seen   sourceSeen    // by the controller
}

// sourceRx is what only the owner's receive thread looks at.
type sourceRx struct {
	policy     *policy.Machine
	cell       [1]uint32 // the cell that the next RECV fills
	hasCell    bool
	dropped    uint64 // evicted or refused, answered or held
	held       []heldCall
	first      int // of held, a circular buffer; the policy knows how many there are
	timed      bool
	pauseUntil int64   // or until then, if not 0
	dry        bool    // there was nothing to receive at the last look
	pushedAt   []int64 // with MaxAge, when the last calls were received; circular
	pushed     uint64  // into the ring, so far
}

// A pause is a time in which nothing is received. Pauses are numbered: a worker that found room, and
// then was kept from its CPU, must not end the next one, in which there is none.
type pause struct{ n atomic.Uint32 } // odd during a pause

// now reports whether there is a pause, and its number.
func (p *pause) now() (number uint32, on bool) {
	number = p.n.Load()
	return number, number%2 == 1
}

// on reports whether there is a pause.
func (p *pause) on() bool {
	_, on := p.now()
	return on
}

// begin begins a pause, a new one if there is one. Only the receive thread does.
func (p *pause) begin() (number uint32) {
	n, on := p.now()
	if on && p.n.CompareAndSwap(n, n+2) {
		return n + 2
	}
	return p.n.Add(1)
}

// end ends that pause, and reports whether it was still on.
func (p *pause) end(number uint32) bool { return p.n.CompareAndSwap(number, number+1) }

// A cell holds a notification on its way through the ring. The receive ioctl
// writes straight into it.
type cell struct {
	notif      notify.Notif
	stats      *syscallEntry
	receivedAt int64
	_          [32]byte // to 128 bytes: a worker reads one cell while RECV writes the next
}

// A heldCall is one that was dropped and has not been told so.
type heldCall struct {
	id         uint64
	stats      *syscallEntry
	receivedAt int64
	errno      syscall.Errno
}

// drops is the call n, received at the given time, as one to be told that it was dropped.
func (e *Engine) drops(n *notify.Notif, stats *syscallEntry, receivedAt int64) heldCall {
	return heldCall{id: n.ID, stats: stats, receivedAt: receivedAt, errno: e.dropErrno(&n.Data)}
}

// A handle names a cell of a source: the source's index and the cell's.
func handle(s *Source, cell uint32) uint64 { return uint64(s.index)<<32 | uint64(cell) }

// newSource returns a source at an index of the table, which has no owner yet.
func (e *Engine) newSource(l *notify.Listener, index int) *Source {
	s := &Source{e: e, l: l, index: index, drained: make(chan struct{}, 1), ended: make(chan struct{})}
	if e.cfg.Inline {
		return s
	}
	p := e.cfg.policyConfig()
	_ = p.Fill() // Config.fill has checked it
	// A cell for each place in the ring, for each handle between Pop and Put,
	// the batch being dropped and the one that RECV fills.
	s.slab = ring.NewSlab[cell](e.cfg.Queue + e.cfg.Workers + p.MaxEvict() + 2)
	s.rx.policy = policy.New(p)
	s.rx.held = make([]heldCall, max(p.MaxHeld, p.MaxEvict()))
	if e.cfg.MaxAge > 0 {
		s.rx.pushedAt = make([]int64, e.cfg.Queue)
	}
	return s
}

// own makes rx the owner of s, of which nothing is outstanding. The caller holds registry.mu.
func (s *Source) own(rx *receiver) {
	if rx.rings != nil {
		s.ring.Store(rx.rings.Add(rx.e.cfg.Queue, ring.SingleProducer()))
	}
	s.owner.Store(rx)
	rx.setListeners(func(all []*Source) []*Source { return append(all, s) })
}

// enter is own, and has s watched.
func (s *Source) enter(rx *receiver) error {
	s.own(rx)
	if err := rx.attach(s.l.FD(), s.index); err != nil {
		s.exit()
		return err
	}
	return nil
}

// exit takes s from its owner, which has nothing of it any more.
func (s *Source) exit() {
	rx := s.owner.Load()
	rx.setListeners(func(all []*Source) []*Source {
		return slices.DeleteFunc(all, func(o *Source) bool { return o == s })
	})
	if r := s.ring.Load(); r != nil {
		rx.rings.Remove(r)
	}
}

// setListeners changes rx's table. The caller holds registry.mu.
func (rx *receiver) setListeners(change func([]*Source) []*Source) {
	all := change(slices.Clone(*rx.listeners.Load()))
	rx.listeners.Store(&all)
}

// Listener returns the source's listener, which is the engine's to close.
func (s *Source) Listener() *notify.Listener { return s.l }

// Engine is the engine that the source belongs to.
func (s *Source) Engine() *Engine { return s.e }

// Done is closed when the engine has closed the listener or handed it back:
// because no target was left, it was removed, or the engine stopped.
func (s *Source) Done() <-chan struct{} { return s.ended }

// receivable reports whether the receive thread may still turn to s on its own
// account. What is being taken out stays in the table until it is answered.
func (s *Source) receivable() bool { return !s.gone.Load() && !s.leaving.Load() }

// outstanding is how many notifications are between RECV and answer.
func (s *Source) outstanding() uint64 {
	done := s.finished.Load() // first: what is answered was received
	return s.received.Load() - done
}

// done counts an answer, so that a listener is not closed before its last.
func (s *Source) done() {
	if s.finished.Add(1) == s.received.Load() && s.leaving.Load() {
		select {
		case s.drained <- struct{}{}:
		default:
		}
	}
}

// served is how many calls left the ring for a worker and are done with. Only
// for the receive thread.
func (s *Source) served() uint64 {
	// Held calls are outstanding and dropped: they count on both sides.
	return s.finished.Load() - s.rx.dropped + uint64(s.rx.policy.Held())
}
