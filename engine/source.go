package engine

import (
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
	l        *notify.Listener
	index    int
	gone     atomic.Bool // the receive thread is done with it
	retiring atomic.Bool // somebody is taking it out
	unwanted bool        // and somebody else wants it closed; guarded by Engine.mu
	open     atomic.Int64
	drained  chan struct{} // capacity 1: open fell to 0
	ended    chan struct{} // closed once the listener is closed or handed back

	// Of the queue path.
	ring *ring.Ring[uint64]
	slab *ring.Slab[cell]
	rest rest // nothing is received until a worker ends it
	rx   sourceRx

	wakeUp  atomic.Uint32 // the mode asked for: Sync or Async
	asked   WakeUp        // the mode that the kernel was last asked for; guarded by Engine.mu
	applied atomic.Uint32 // the mode that it is in
	targets estimator     // the receive thread's
	caller  atomic.Uint32 // thread id of a target, for the keeper; 0: none yet
	masked  bool          // the keeper has looked at a target's CPU mask; guarded by Engine.mu
}

// sourceRx is what only the receive thread looks at.
type sourceRx struct {
	policy    *policy.Machine
	cell      [1]uint32 // the cell that the next RECV fills
	hasCell   bool
	received  uint64
	dropped   uint64 // evicted or refused, answered or held
	held      []heldCall
	first     int // of held, a circular buffer; the policy knows how many there are
	tended    bool
	restUntil int64      // or until then, if not 0
	dry       bool       // there was nothing to receive at the last look
	pushedAt  []int64    // with MaxAge, when the last calls were received; circular
	pushed    uint64     // into the ring, so far
	lull      trial      // without lulls, and with
	join      trial      // apart from the targets, and on one CPU with them
	tried     *trialKind // of join,
	triedAt   int32      // where the targets were
	gather    bool       // many targets shall come to our CPU
}

// A rest is a time in which nothing is received. Rests are numbered: a worker that found room, and
// then was kept from its CPU, must not end the next one, in which there is none.
type rest struct{ n atomic.Uint32 } // odd during a rest

// now reports whether there is a rest, and its number.
func (r *rest) now() (number uint32, on bool) {
	number = r.n.Load()
	return number, number%2 == 1
}

// on reports whether there is a rest.
func (r *rest) on() bool {
	_, on := r.now()
	return on
}

// begin begins a rest, a new one if there is one. Only the receive thread does.
func (r *rest) begin() (number uint32) {
	n, on := r.now()
	if on && r.n.CompareAndSwap(n, n+2) {
		return n + 2
	}
	return r.n.Add(1)
}

// end ends that rest, and reports whether it was still on.
func (r *rest) end(number uint32) bool { return r.n.CompareAndSwap(number, number+1) }

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

// newSource returns a source at an index of the table. On the queue path its
// ring joins the engine's.
func (e *Engine) newSource(l *notify.Listener, index int) *Source {
	s := &Source{l: l, index: index, drained: make(chan struct{}, 1), ended: make(chan struct{})}
	if e.cfg.Inline {
		return s
	}
	p := e.cfg.policyConfig()
	_ = p.Fill() // Config.fill has checked it
	s.ring = e.rings.Add(e.cfg.Queue, ring.SingleProducer())
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

// lone is the only source in the table; nil if there are more, or none.
func lone(table []*Source) (only *Source) {
	for _, s := range table {
		switch {
		case s == nil:
		case only != nil:
			return nil
		default:
			only = s
		}
	}
	return only
}

// Listener returns the source's listener, which is the engine's to close.
func (s *Source) Listener() *notify.Listener { return s.l }

// Done is closed when the engine has closed the listener or handed it back:
// because no target was left, it was removed, or the engine stopped.
func (s *Source) Done() <-chan struct{} { return s.ended }

// receivable reports whether the receive thread may still turn to s on its own
// account. What is being taken out stays in the table until it is answered.
func (s *Source) receivable() bool { return !s.gone.Load() && !s.retiring.Load() }

// WakeUp is the listener's wake-up mode as it is now, Sync or Async.
func (s *Source) WakeUp() WakeUp { return WakeUp(s.wakeUp.Load()) }

// add and done count the notifications between RECV and answer, so that a
// listener is not closed before its last answer.
func (s *Source) add() { s.open.Add(1) }

func (s *Source) done() {
	if s.open.Add(-1) == 0 && s.retiring.Load() {
		select {
		case s.drained <- struct{}{}:
		default:
		}
	}
}

// served is how many calls left the ring for a worker and are done with. Only
// for the receive thread.
func (s *Source) served() uint64 {
	// Held calls are open and dropped: they count on both sides.
	return s.rx.received - s.rx.dropped + uint64(s.rx.policy.Held()) - uint64(s.open.Load())
}
