package engine

import (
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/unknot/unknot/engine/hist"
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

	opts    SourceOptions
	handler Handler
	inline  bool
	inliner Inliner // handler, if it wants some calls inline and the source is not; else nil

	received            atomic.Uint64 // calls
	ends                ends          // of these
	held                atomic.Int64  // dropped and not told yet
	detached            atomic.Int64  // without an answer, whose handlers have returned
	high                atomic.Int64  // the greatest depth of the ring so far
	expired, overflowed atomic.Uint64 // why calls were dropped
	stats               *sourceStats  // with Config.BySource

	// Of the queue path.
	ring  atomic.Pointer[ring.Ring[uint64]] // another one with each owner
	slab  *ring.Slab[cell]
	pause pause // nothing is received until a worker ends it
	rx    sourceRx

	caller atomic.Uint32 // thread id of a target, for the controller; 0: none yet
	seen   sourceSeen    // by the controller
}

// ends are the calls that are done with, by how.
type ends struct{ answered, dropped, stale, failed atomic.Uint64 }

func (n *ends) sum() uint64 {
	return n.answered.Load() + n.dropped.Load() + n.stale.Load() + n.failed.Load()
}

// sourceStats are a listener's own.
type sourceStats struct {
	wait, service, answer, drop hist.Hist
	errnos                      errnos
}

// sourceRx is what only the owner's receive thread looks at.
type sourceRx struct {
	policy     *policy.Machine
	cell       [1]uint32 // the cell that the next RECV fills
	hasCell    bool
	dropped    uint64 // evicted or refused, answered or held
	held       []heldCall
	evicted    []uint64
	first      int // of held, a circular buffer; the policy knows how many there are
	timed      bool
	pauseUntil int64   // or until then, if not 0
	dry        bool    // there was nothing to receive at the last look
	pushedAt   []int64 // with MaxAge, when the last calls were received; circular
	pushed     uint64  // into the ring, so far
	shed       uint64  // of these, taken out again by the receive thread
	adapts     bool    // there is a wait target
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
func (e *Engine) newSource(l *notify.Listener, o SourceOptions, index int) (*Source, error) {
	if err := o.fill(&e.cfg); err != nil {
		return nil, err
	}
	s := &Source{e: e, l: l, opts: o, handler: o.Handler, inline: o.Inline, index: index, drained: make(chan struct{}, 1), ended: make(chan struct{})}
	if e.cfg.BySource {
		s.stats = new(sourceStats)
	}
	if s.inline {
		return s, nil
	}
	s.inliner, _ = s.handler.(Inliner)
	p := e.cfg.policyConfig()
	p.Capacity, p.WaitTarget = o.Queue, o.WaitTarget
	if o.MaxInHandlers > 0 {
		p.Workers = min(p.Workers, o.MaxInHandlers)
	}
	if err := p.Fill(); err != nil {
		return nil, err
	}
	// A cell for each place in the ring, for each handle between Pop and Put,
	// the batch being dropped and the one that RECV fills.
	s.slab = ring.NewSlab[cell](o.Queue + e.cfg.Workers + p.MaxEvict() + 2)
	s.rx.policy = policy.New(p)
	s.rx.adapts = s.rx.policy.Adapts()
	s.rx.held = make([]heldCall, max(p.MaxHeld, p.MaxEvict()))
	s.rx.evicted = make([]uint64, p.MaxEvict())
	if e.cfg.MaxAge > 0 {
		s.rx.pushedAt = make([]int64, o.Queue)
	}
	return s, nil
}

// own makes rx the owner of s, of which nothing is outstanding. The caller holds registry.mu.
func (s *Source) own(rx *receiver) {
	if !s.inline {
		s.ring.Store(rx.rings.Add(s.opts.Queue, ring.SingleProducer(), ring.Rationed(ring.NoRation)))
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
	queued := 0
	for _, s := range all {
		if !s.inline {
			queued++
		}
	}
	for _, s := range all {
		if !s.inline {
			s.ring.Load().SetRation(s.share(queued == 1))
		}
	}
}

// share is how many of the receiver's workers may be at s's calls at once.
func (s *Source) share(alone bool) int {
	switch {
	case s.opts.MaxInHandlers > 0:
		return s.opts.MaxInHandlers
	case alone:
		return ring.NoRation
	}
	return max(1, s.e.cfg.Workers-1)
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
	done := s.ends.sum() // first: what is answered was received
	return s.received.Load() - done
}

// done comes after a call was counted as ended, so that a listener is not closed before its last answer.
func (s *Source) done() {
	if s.leaving.Load() && s.outstanding() == 0 {
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
	return s.ends.sum() - s.rx.dropped + uint64(s.rx.policy.Held())
}

// Counters are the listener's own: the terms of the equation, and why calls were dropped (Expired, Overflowed). At
// rest they balance as the engine's do.
func (s *Source) Counters() Counters {
	c := Counters{
		Answered: s.ends.answered.Load(), Dropped: s.ends.dropped.Load(), Stale: s.ends.stale.Load(), Failed: s.ends.failed.Load(),
		Held: uint64(max(0, s.held.Load())), Detached: uint64(max(0, s.detached.Load())),
		Expired: s.expired.Load(), Overflowed: s.overflowed.Load(),
	}
	c.Received = s.received.Load() // last: what ended was received
	if r := s.ring.Load(); r != nil {
		c.Queued, c.InHandlers = uint64(r.Len()), uint64(r.Out())
	} else {
		c.InHandlers = uint64(max(0, c.Balance())) // inline there is nowhere else
	}
	return c
}

// HighWater is the greatest number of calls that there were in the listener's ring at once; 0 inline.
func (s *Source) HighWater() int { return int(s.high.Load()) }

// Latencies are the listener's own histograms; all nil without [Config.BySource].
func (s *Source) Latencies() Latencies {
	if s.stats == nil {
		return Latencies{}
	}
	return Latencies{s.stats.wait.Snapshot(), s.stats.service.Snapshot(), s.stats.answer.Snapshot(), s.stats.drop.Snapshot()}
}

// Errnos are the answers to the listener's calls that were errors, by errno, as [Engine.Errnos]; nil without [Config.BySource].
func (s *Source) Errnos() map[syscall.Errno]uint64 {
	if s.stats == nil {
		return nil
	}
	all := map[syscall.Errno]uint64{}
	s.stats.errnos.addTo(all)
	return all
}

// Tag is what the listener was added with; nil by [Engine.Add].
func (s *Source) Tag() any { return s.opts.Tag }

// Options are those that the listener was added with, with what was left open filled in.
func (s *Source) Options() SourceOptions { return s.opts }

// log is how the source is called in the log.
func (s *Source) log() slog.Attr {
	if s.opts.Tag == nil {
		return slog.Int("listener", s.l.FD())
	}
	return slog.Group("", slog.Int("listener", s.l.FD()), slog.Any("tag", s.opts.Tag))
}

// SourceOptions say how a listener differs from the engine's others, from its first call on.
// The zero value is [Engine.Add]'s.
type SourceOptions struct {
	// Tag is whatever handlers shall know of the listener: [Request.Source], then [Source.Tag]. It is in the log, too.
	Tag any
	// Handler handles the listener's calls; nil: Config.Handler.
	Handler Handler
	// Inline has the receive thread call the handler, in an engine that queues other listeners' calls. The
	// fields below then mean nothing. While such a handler runs, nothing is received from the
	// receiver's other listeners, and their dropped calls are not told.
	Inline bool
	// Queue is the capacity of the listener's ring; 0: Config.Queue.
	Queue int
	// WaitTarget is as Config.WaitTarget, which is what 0 means.
	WaitTarget time.Duration
	// MaxInHandlers is how many workers may be at the listener's calls at once; others wait in its ring. So
	// slow handlers of one listener leave workers to others. Detached requests do not count, nor, after the listener
	// moved to another receiver, those that workers of the first have in hand. 0: all workers of
	// the receiver while it has no other listener, else all but one: one listener cannot stop the others, two
	// can. With several slow ones say less, or have more workers.
	MaxInHandlers int
}

func (o *SourceOptions) fill(c *Config) error {
	if o.Handler == nil {
		o.Handler = c.Handler
	}
	o.Inline = o.Inline || c.Inline
	if o.Queue == 0 {
		o.Queue = c.Queue
	}
	if o.Queue < 1 || o.Queue > MaxQueue {
		return fmt.Errorf("queue of %d: must be 1 to %d", o.Queue, MaxQueue)
	}
	if o.WaitTarget == 0 {
		o.WaitTarget = c.WaitTarget
	}
	if o.MaxInHandlers < 0 {
		return fmt.Errorf("%d calls in handlers at most: must not be negative; 0 leaves it to the engine", o.MaxInHandlers)
	}
	return nil
}
