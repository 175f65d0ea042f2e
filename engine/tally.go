package engine

import (
	"sync/atomic"
	"syscall"

	"github.com/unknot/unknot/engine/hist"
)

// A tally is what one thread of the engine counts. Each term is counted by the
// result of the ioctl that made it so, never by subtraction.
type tally struct {
	_ [64]byte // tallies of different threads do not share a cache line

	received atomic.Uint64
	answered atomic.Uint64
	dropped  atomic.Uint64
	stale    atomic.Uint64
	failed   atomic.Uint64

	continued  atomic.Uint64
	defaulted  atomic.Uint64
	panicked   atomic.Uint64
	late       atomic.Uint64
	unanswered atomic.Uint64
	duplicate  atomic.Uint64
	spent      atomic.Uint64
	refused    atomic.Uint64
	recvStale  atomic.Uint64
	recvFailed atomic.Uint64
	expired    atomic.Uint64
	overflowed atomic.Uint64

	wait, service, answer, drop hist.Hist

	errnos errnos

	_ [64]byte
}

// Counters are the engine's counts since it started. At rest
//
//	Received = Answered + Dropped + Stale + Failed + Queued + Held + InHandlers + Detached
//
// holds exactly; while it runs, the two sides differ by at most the
// notifications in transition between two terms, of which there is at most one
// for each worker, and one on the receive thread.
type Counters struct {
	Received   uint64 // RECV succeeded
	Answered   uint64 // SEND of a handler's or a default answer succeeded
	Dropped    uint64 // SEND of the drop errno succeeded
	Stale      uint64 // the target was gone when it was dispatched, answered or dropped
	Failed     uint64 // SEND failed for another reason: a bug, or the listener was closed under us
	Queued     uint64 // in the ring now
	Held       uint64 // dropped, but not yet answered
	InHandlers uint64 // in handlers now
	Detached   uint64 // without an answer now, and nobody's but their Pending's

	Continued        uint64 // of Answered: the kernel ran the call
	Defaulted        uint64 // of Answered: the engine answered for the handler
	Panicked         uint64 // handlers that panicked or called runtime.Goexit
	Late             uint64 // handlers that exceeded their deadline
	Unanswered       uint64 // handlers that returned without an answer, although the target waited for one
	DuplicateAnswers uint64 // answers refused because there was one already
	Spent            uint64 // answers refused because the handler had returned: it kept its Request
	Refused          uint64 // answers that the kernel refused (Continue before Linux 5.5); the default one followed

	Expired    uint64 // of Dropped and Held, or stale when told: waited longer than Config.MaxAge
	Overflowed uint64 // of Dropped and Held, or stale when told: gave way when the ring was full
	Procs      uint64 // what the engine has added to GOMAXPROCS, now

	Gone       uint64 // RECV found the target gone (ENOENT): never received
	RecvFailed uint64 // RECV failed for another reason

	Added  uint64 // listeners that the engine was given
	HungUp uint64 // of these, had no target left
}

// Balance returns the left side of the equation less the right side.
func (c *Counters) Balance() int64 {
	return int64(c.Received) - int64(c.Answered+c.Dropped+c.Stale+c.Failed+c.Queued+c.Held+c.InHandlers+c.Detached)
}

// Counters returns the counts as of one instant as nearly as can be had
// without stopping anyone: a pass during which something was received is
// repeated, up to a bound.
func (e *Engine) Counters() Counters {
	c := e.receivers.count()
	c.Procs = uint64(e.control.procs.Load())
	c.Added, c.HungUp = e.registry.added.Load(), e.registry.hungUp.Load()
	return c
}

// count counts all of them together.
func (r *receivers) count() Counters { return countAll(r.all()) }

func countAll(all []*receiver) Counters {
	var best Counters
	bestMoved := ^uint64(0)
	for range 64 {
		var before, after, c Counters
		for _, rx := range all {
			rx.moved(&before)
		}
		for _, rx := range all {
			rx.count(&c)
		}
		for _, rx := range all {
			rx.moved(&after)
		}
		moved := after.Received - before.Received + after.Answered - before.Answered
		c.Received = before.Received
		if moved < bestMoved {
			best, bestMoved = c, moved
		}
		if moved == 0 {
			break
		}
	}
	return best
}

// moved adds what was received to Received, and what had its answer, of any kind, to Answered.
func (rx *receiver) moved(c *Counters) {
	for i := range rx.tallies {
		t := &rx.tallies[i]
		c.Received += t.received.Load()
		c.Answered += t.answered.Load() + t.dropped.Load() + t.stale.Load() + t.failed.Load()
	}
}

func (rx *receiver) count(c *Counters) {
	if rx.rings != nil {
		for _, s := range *rx.listeners.Load() {
			if r := s.ring.Load(); r != nil {
				c.Queued += uint64(r.Len())
			}
		}
	}
	c.Held += uint64(rx.held.Load())
	c.Detached += uint64(rx.detached.Load())
	for _, w := range rx.crew.all() {
		if p := phaseOf(w.req.state.Load()); p != idle && p < answered {
			c.InHandlers++
		}
	}
	for i := range rx.tallies {
		t := &rx.tallies[i]
		c.Answered += t.answered.Load()
		c.Dropped += t.dropped.Load()
		c.Stale += t.stale.Load()
		c.Failed += t.failed.Load()
		c.Continued += t.continued.Load()
		c.Defaulted += t.defaulted.Load()
		c.Panicked += t.panicked.Load()
		c.Late += t.late.Load()
		c.Unanswered += t.unanswered.Load()
		c.DuplicateAnswers += t.duplicate.Load()
		c.Spent += t.spent.Load()
		c.Refused += t.refused.Load()
		c.Gone += t.recvStale.Load()
		c.RecvFailed += t.recvFailed.Load()
		c.Expired += t.expired.Load()
		c.Overflowed += t.overflowed.Load()
	}
}

// Latencies are the engine's stages by its own clock, in ns.
type Latencies struct {
	Wait    *hist.Snapshot // RECV returned → dispatched to a handler
	Service *hist.Snapshot // dispatched → the handler has answered, SEND included
	Answer  *hist.Snapshot // SEND
	Drop    *hist.Snapshot // RECV returned → dropped
}

// Latencies returns the stages' histograms so far.
func (e *Engine) Latencies() Latencies {
	l := newLatencies()
	for _, rx := range e.receivers.all() {
		rx.latencies(&l)
	}
	return l
}

func newLatencies() Latencies {
	return Latencies{new(hist.Snapshot), new(hist.Snapshot), new(hist.Snapshot), new(hist.Snapshot)}
}

func (rx *receiver) latencies(l *Latencies) {
	for i := range rx.tallies {
		t := &rx.tallies[i]
		t.wait.AddTo(l.Wait)
		t.service.AddTo(l.Service)
		t.answer.AddTo(l.Answer)
		t.drop.AddTo(l.Drop)
	}
}

// errnos counts errors by errno.
type errnos [maxErrnos + 1]atomic.Uint64

const maxErrnos = 133 // EHWPOISON, the greatest of Linux

// OtherErrnos stands for all errnos that Linux does not name, in [Engine.Errnos].
const OtherErrnos syscall.Errno = 4095

// add counts an answer's error, which is negative.
func (n *errnos) add(err int32) { n[min(uint32(-err), maxErrnos+1)-1].Add(1) }

func (n *errnos) addTo(all map[syscall.Errno]uint64) {
	for i := range n {
		if c := n[i].Load(); c > 0 && i == maxErrnos {
			all[OtherErrnos] += c
		} else if c > 0 {
			all[syscall.Errno(i+1)] += c
		}
	}
}

// Errnos are the answers that were errors, by errno: those of handlers, default ones, and those to dropped calls.
func (e *Engine) Errnos() map[syscall.Errno]uint64 {
	all := map[syscall.Errno]uint64{}
	for _, rx := range e.receivers.all() {
		for i := range rx.tallies {
			rx.tallies[i].errnos.addTo(all)
		}
	}
	return all
}
