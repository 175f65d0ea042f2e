package engine

import (
	"sync/atomic"

	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/engine/mono"
)

// A tally is what one thread of the engine counts. Each term is counted by the
// result of the ioctl that made it so, never by subtraction.
//
// Not taken: plain instead of locked writes where only one thread counts (13 instructions of
// 5 ns for a call). Inline it served 1.01 times as much at 1 target, 1.00 at 64; by the queue 0.99 and 1.00.
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
	twice      atomic.Uint64
	spent      atomic.Uint64
	recvStale  atomic.Uint64
	recvFailed atomic.Uint64
	aged       atomic.Uint64

	wait, service, answer, drop hist.Hist

	_ [64]byte
}

// Counters are the engine's counts since it started. At rest
//
//	Received = Answered + Dropped + Stale + Failed + Queued + Held + InHandlers
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

	Continued  uint64 // of Answered: the kernel ran the call
	Defaulted  uint64 // of Answered: the engine answered for the handler
	Panicked   uint64 // handlers that panicked or called runtime.Goexit
	Late       uint64 // handlers that exceeded their deadline
	Unanswered uint64 // handlers that returned without an answer
	Twice      uint64 // answers refused because there was one already
	Spent      uint64 // answers refused because the handler had returned: it kept its Request

	Aged      uint64 // of Dropped and Held: waited longer than Config.MaxAge
	Switches  uint64 // changes of a listener's wake-up mode since it was added
	Procs     uint64 // what the engine has added to GOMAXPROCS, now
	Paired    uint64 // times that the receive thread left its CPU, for two workers to run anywhere
	Joined    uint64 // times that the receive thread went to the CPU that its targets are kept to
	Gathered  uint64 // times that many targets were told to come to the receive thread's CPU
	Unwatched uint64 // times that a busy listener was taken out of epoll
	Lulls     uint64 // times that the receive thread slept for a crowd of targets to catch up
	Priority  uint64 // nice levels by which the engine has raised the receive thread, now

	Vanished   uint64 // RECV found the target gone (ENOENT): never received
	RecvFailed uint64 // RECV failed for another reason
}

// Balance returns the left side of the equation less the right side.
func (c *Counters) Balance() int64 {
	return int64(c.Received) - int64(c.Answered+c.Dropped+c.Stale+c.Failed+c.Queued+c.Held+c.InHandlers)
}

func (e *Engine) received() (n uint64) {
	for i := range e.tallies {
		n += e.tallies[i].received.Load()
	}
	return n
}

// Counters returns the counts as of one instant as nearly as can be had
// without stopping anyone: a pass during which something was received is
// repeated, up to a bound.
func (e *Engine) Counters() Counters {
	var best Counters
	bestMoved := ^uint64(0)
	for range 64 {
		before, done := e.received(), e.finished()
		var c Counters
		e.count(&c)
		moved := e.received() - before + e.finished() - done
		c.Received = before
		if moved < bestMoved {
			best, bestMoved = c, moved
		}
		if moved == 0 {
			break
		}
	}
	return best
}

func (e *Engine) finished() (n uint64) {
	for i := range e.tallies {
		t := &e.tallies[i]
		n += t.answered.Load() + t.dropped.Load() + t.stale.Load() + t.failed.Load()
	}
	return n
}

func (e *Engine) count(c *Counters) {
	if !e.cfg.Inline {
		for _, s := range *e.sources.Load() {
			if s != nil {
				c.Queued += uint64(s.ring.Len())
			}
		}
	}
	c.Switches = e.switches.Load()
	c.Procs = uint64(e.procs.Load())
	c.Paired = e.paired.Load()
	c.Joined = e.joinings.Load()
	c.Gathered = e.gathered.Load()
	c.Lulls = e.lulled.Load()
	c.Unwatched = e.takenOut.Load()
	c.Priority = uint64(e.priority.Load())
	c.Held = uint64(e.held.Load())
	for _, w := range *e.workers.Load() {
		if p := phaseOf(w.req.state.Load()); p != idle && p != answered {
			c.InHandlers++
		}
	}
	for i := range e.tallies {
		t := &e.tallies[i]
		c.Answered += t.answered.Load()
		c.Dropped += t.dropped.Load()
		c.Stale += t.stale.Load()
		c.Failed += t.failed.Load()
		c.Continued += t.continued.Load()
		c.Defaulted += t.defaulted.Load()
		c.Panicked += t.panicked.Load()
		c.Late += t.late.Load()
		c.Unanswered += t.unanswered.Load()
		c.Twice += t.twice.Load()
		c.Spent += t.spent.Load()
		c.Vanished += t.recvStale.Load()
		c.RecvFailed += t.recvFailed.Load()
		c.Aged += t.aged.Load()
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
	l := Latencies{new(hist.Snapshot), new(hist.Snapshot), new(hist.Snapshot), new(hist.Snapshot)}
	for i := range e.tallies {
		t := &e.tallies[i]
		t.wait.AddTo(l.Wait)
		t.service.AddTo(l.Service)
		t.answer.AddTo(l.Answer)
		t.drop.AddTo(l.Drop)
	}
	return l
}

// clock is all engines' of the process, whose keepers adjust it. It costs half of what the kernel's clock does, which
// made 1.04 times the calls inline at 1 target, 1.02 at 64.
var clock mono.Clock

func now() int64 { return clock.Now() }
