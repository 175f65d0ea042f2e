package tune

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/engine/policy"
)

// A Model is the machine and the programs on it: what a call costs beside its
// handler, in ns of CPU, and how the scheduler shares the CPUs out.
type Model struct {
	Recv    float64 // the receive thread, for a call, its wake-up included
	Send    float64 // a worker, for a call: to take it and to answer it
	Drop    float64 // the receive thread, to answer a dropped call
	Nudge   float64 // the receive thread, to be woken for nothing but to look
	Target  float64 // a target, from its answer to its next call
	Timed   float64 // the same in an open loop, where it sleeps until it is time
	Idle    float64 // until a CPU that idled runs a thread
	PerCall float64 // what each call in flight adds to each of Recv, Send and Drop

	// A thread that wakes up takes the CPU from one that has had more than it, by
	// more than Grain; one that runs gives way to others after a Slice.
	Grain, Slice time.Duration
	// ReceiverFirst says that the receive thread never waits for its CPU: it
	// sleeps more than others, which the scheduler makes up for.
	ReceiverFirst bool
}

// A Setting is how the engine is set up.
type Setting struct {
	policy.Config
	Workers int
	CPUs    int // of the machine; 0: endless, nobody ever waits for one
}

// A Run says how long to simulate.
type Run struct {
	Seed   uint64
	WarmUp time.Duration // not counted
	Length time.Duration // counted
}

// An Outcome is what a storm is expected to measure, or did.
type Outcome struct {
	Elapsed  float64 // s
	Received uint64
	Served   uint64
	Dropped  uint64 // told so
	Late     uint64 // arrivals of an open loop that found no idle thread
	Wait     *hist.Snapshot
	InFlight float64 // calls that are received or wait to be, on average
	CPU      float64 // CPUs in use, on average

	// Of a simulation, from the first call on: the integral over time of the
	// calls in the ring, in ns, and the sum of the times that calls spent there;
	// the same for calls between RECV and their answer. Little's law says that
	// they are equal.
	RingIntegral, RingSum     int64
	SystemIntegral, SystemSum int64
}

// DropRate is the part of the received calls that were dropped.
func (o *Outcome) DropRate() float64 {
	if o.Served+o.Dropped == 0 {
		return 0
	}
	return float64(o.Dropped) / float64(o.Served+o.Dropped)
}

// Goodput is in served calls per second.
func (o *Outcome) Goodput() float64 { return float64(o.Served) / o.Elapsed }

// P99 is the 99th percentile of the wait in ns.
func (o *Outcome) P99() float64 { return o.Wait.Quantile(.99) }

// A call is one notification.
type call struct {
	target               *target
	receivedAt, pushedAt int64
}

type target struct {
	thread
}

// sim is one simulation. The engine's receive loop and workers are those of
// package engine, event for event; the decisions are made by policy.Machine itself.
type sim struct {
	now    int64
	seq    uint64
	events events
	spare  *event
	busy   int64 // ns of CPU used

	load    Load
	set     Setting
	costs   Model
	cpus    *cpus
	service func() float64
	rng     *rand.Rand
	idle    []*target // of an open loop

	pending, ring, held fifo
	m                   *policy.Machine
	rx                  receiver
	workers             []*worker
	parked              []*worker

	out       Outcome
	counting  bool
	received  uint64
	dropped   uint64
	open      uint64 // received, not answered
	flight    int    // on the kernel's list
	flightInt int64
	flightAt  int64
	ringAt    int64
	systemAt  int64
}

type receiver struct {
	thread
	blocked   bool // in epoll, ppoll or RECV
	nudged    bool
	resting   bool
	restUntil int64
	tended    bool
	dry       bool
	timer     *event
}

type worker struct {
	thread
	call *call
}

// Simulate runs the engine's policy under a load.
func Simulate(l Load, set Setting, costs Model, run Run) (*Outcome, error) {
	if err := l.Check(); err != nil {
		return nil, err
	}
	if err := set.Fill(); err != nil {
		return nil, err
	}
	if set.Workers < 1 || set.CPUs < 0 || run.Length <= 0 {
		return nil, fmt.Errorf("simulate %d workers on %d CPUs for %v: must be positive", set.Workers, set.CPUs, run.Length)
	}
	s := &sim{load: l, set: set, costs: costs, rng: rand.New(rand.NewPCG(run.Seed, 0x7e57)), m: policy.New(set.Config)}
	s.service = l.Service.sampler(rand.New(rand.NewPCG(run.Seed, 0x5e41)))
	s.cpus = newCPUs(s, set.CPUs, costs)
	s.out.Wait = new(hist.Snapshot)
	s.rx.blocked = true
	s.rx.pin = set.CPUs // the last one
	for range set.Workers {
		w := &worker{}
		s.workers = append(s.workers, w)
		s.parked = append(s.parked, w)
	}
	targets := make([]target, l.Targets)
	for i := range targets {
		t := &targets[i]
		if l.Arrivals.Open() {
			s.idle = append(s.idle, t)
			continue
		}
		s.thinkAgain(t)
	}
	if l.Arrivals.Open() {
		as, err := l.Arrivals.Calls.Schedule(run.WarmUp+run.Length, run.Seed)
		if err != nil {
			return nil, err
		}
		s.arrivals(as)
	}
	s.runUntil(int64(run.WarmUp))
	s.tally()
	before := s.out
	s.counting = true
	busy := s.busyNow()
	flight := s.flightInt
	s.runUntil(int64(run.WarmUp + run.Length))
	s.tally()
	o := &s.out
	o.Elapsed = run.Length.Seconds()
	o.Received -= before.Received
	o.Served -= before.Served
	o.Dropped -= before.Dropped
	o.Late -= before.Late
	o.InFlight = float64(s.flightInt-flight) / float64(run.Length)
	o.CPU = float64(s.busyNow()-busy) / float64(run.Length)
	// What is still there has been there until now.
	for _, c := range s.ring.calls[s.ring.first:] {
		o.RingSum += s.now - c.pushedAt
		o.SystemSum += s.now - c.receivedAt
	}
	for _, c := range s.held.calls[s.held.first:] {
		o.SystemSum += s.now - c.receivedAt
	}
	for _, w := range s.workers {
		if w.call != nil {
			o.SystemSum += s.now - w.call.receivedAt
		}
	}
	return o, nil
}

func (s *sim) busyNow() int64 {
	for i := range s.cpus.all {
		if p := &s.cpus.all[i]; p.cur != nil {
			s.cpus.account(p)
		}
	}
	return s.busy
}

// tally brings the integrals up to now.
func (s *sim) tally() {
	s.ringChanges()
	s.systemChanges()
	s.flightChanges(0)
}

func (s *sim) ringChanges() {
	s.out.RingIntegral += int64(s.ring.len()) * (s.now - s.ringAt)
	s.ringAt = s.now
}

func (s *sim) systemChanges() {
	s.out.SystemIntegral += int64(s.open) * (s.now - s.systemAt)
	s.systemAt = s.now
}

func (s *sim) flightChanges(by int) {
	s.flightInt += int64(s.flight) * (s.now - s.flightAt)
	s.flightAt = s.now
	s.flight += by
}

// cost is that of an ioctl now.
func (s *sim) cost(base float64) int64 { return int64(base + s.costs.PerCall*float64(s.flight)) }

// The targets.

// calls has t make a call.
func (s *sim) calls(t *target) {
	s.flightChanges(1)
	s.pending.push(&call{target: t})
	s.wake(false)
}

// thinkAgain has a target of the closed loop come to its next call.
func (s *sim) thinkAgain(t *target) {
	a := s.load.Arrivals
	think := int64(a.Think.Draw(s.rng))
	cost := int64(s.costs.Target)
	switch {
	case think > 0 && !a.ThinkComputes:
		s.compute(&t.thread, cost/2, func() {
			s.after(think, func() { s.compute(&t.thread, cost/2, func() { s.calls(t) }) })
		})
	default:
		s.compute(&t.thread, cost+think, func() { s.calls(t) })
	}
}

// compute has a thread use a CPU. Without a cost it happens at once, so that the
// closed forms, which know no such cost, are met exactly.
func (s *sim) compute(t *thread, ns int64, then func()) {
	if ns <= 0 {
		then()
		return
	}
	t.then = then
	s.cpus.run(t, ns)
}

// answered is the end of a call.
func (s *sim) answered(c *call) {
	s.systemChanges()
	s.open--
	s.flightChanges(-1)
	s.out.SystemSum += s.now - c.receivedAt
	t := c.target
	if s.load.Arrivals.Open() {
		s.compute(&t.thread, int64(s.costs.Timed)/2, func() { s.idle = append(s.idle, t) })
		return
	}
	s.thinkAgain(t)
}

// arrivals makes the calls of an open loop.
func (s *sim) arrivals(as []storm.Arrival) {
	if len(as) == 0 {
		return
	}
	i := 0
	var arrive func()
	arrive = func() {
		if n := len(s.idle); n > 0 {
			t := s.idle[n-1]
			s.idle = s.idle[:n-1]
			s.compute(&t.thread, int64(s.costs.Timed)/2, func() { s.calls(t) })
		} else {
			s.out.Late++
		}
		if i++; i < len(as) {
			s.at(int64(as[i].At), arrive)
		}
	}
	s.at(int64(as[0].At), arrive)
}

// The receive thread: engine/receive.go and engine/overload.go.

// wake wakes it if it waits for what came: a call, or a nudge.
func (s *sim) wake(nudge bool) {
	rx := &s.rx
	if nudge {
		rx.nudged = true
	}
	if !rx.blocked || rx.resting && !nudge {
		return
	}
	rx.blocked = false
	s.cancel(rx.timer)
	rx.timer = nil
	if nudge {
		s.compute(&rx.thread, int64(s.costs.Nudge), s.turn)
		return
	}
	s.turn()
}

// turn is one turn of its loop.
func (s *sim) turn() {
	rx := &s.rx
	rx.nudged = false
	if !rx.tended {
		s.look(0, false)
		return
	}
	n := min(s.m.Release(s.now, s.ring.len(), s.served(), rx.dry), tendBatch)
	rx.dry = true
	s.tell(n, func() {
		deadline, timed := s.m.Deadline()
		if rx.resting {
			if s.now >= rx.restUntil && rx.restUntil != 0 {
				rx.resting = false
			} else if rx.restUntil != 0 && (!timed || rx.restUntil < deadline) {
				deadline, timed = rx.restUntil, true
			}
		}
		rx.tended = timed
		s.look(deadline, timed)
	})
}

// tendBatch is the engine's: answers to held calls between two RECVs.
const tendBatch = 32

// tell answers the n oldest held calls and goes on.
func (s *sim) tell(n int, then func()) {
	if n == 0 {
		then()
		return
	}
	s.compute(&s.rx.thread, s.cost(s.costs.Drop), func() {
		c := s.held.pop()
		s.m.Answered(1)
		s.out.Dropped++
		s.answered(c)
		s.tell(n-1, then)
	})
}

// look receives, or waits for something to receive.
func (s *sim) look(deadline int64, timed bool) {
	rx := &s.rx
	switch {
	case rx.nudged:
		s.compute(&rx.thread, int64(s.costs.Nudge), s.turn)
	case !rx.resting && s.pending.len() > 0:
		rx.dry = false
		s.compute(&rx.thread, s.cost(s.costs.Recv), func() { s.receive() })
	default:
		rx.blocked = true
		if timed {
			if !rx.resting { // epoll_wait counts in whole ms
				const ms = int64(time.Millisecond)
				deadline = s.now + (max(deadline-s.now, 0)+ms-1)/ms*ms
			}
			rx.timer = s.at(deadline, func() {
				rx.timer = nil
				rx.blocked = false
				s.compute(&rx.thread, int64(s.costs.Nudge), s.turn)
			})
		}
	}
}

// receive takes the oldest call from the kernel, as receiver.admit does.
func (s *sim) receive() {
	rx := &s.rx
	c := s.pending.pop()
	c.receivedAt = s.now
	s.systemChanges()
	s.open++
	s.received++
	s.out.Received++
	admit, evict := s.m.Arrive(s.ring.len())
	if !admit {
		s.hold(c)
		s.turn()
		return
	}
	s.ringChanges()
	for range evict {
		old := s.ring.pop()
		s.out.RingSum += s.now - old.pushedAt
		s.hold(old)
	}
	c.pushedAt = s.now
	s.ring.push(c)
	if n := len(s.parked); n > 0 {
		w := s.parked[n-1]
		s.parked = s.parked[:n-1]
		s.compute(&w.thread, 1, func() { s.take(w) })
	}
	if s.m.Rests(s.ring.len()) {
		rx.restUntil = 0
		if at, ok := s.m.RestsUntil(s.now); ok {
			rx.restUntil = at
		}
		rx.resting = !s.m.Resumes(s.ring.len())
		rx.tended = rx.tended || rx.resting && rx.restUntil != 0
	}
	s.turn()
}

// hold drops a call that is not told yet.
func (s *sim) hold(c *call) {
	s.dropped++
	for range s.m.Room(1) {
		old := s.held.pop()
		s.m.Answered(1)
		s.out.Dropped++
		s.answered(old)
	}
	s.m.Hold(s.now, 1)
	s.held.push(c)
	s.rx.tended = true
}

// served is Source.served.
func (s *sim) served() uint64 {
	return s.received - s.dropped + uint64(s.m.Held()) - s.open
}

// The workers: engine/worker.go.

// take has a worker take its next call.
func (s *sim) take(w *worker) {
	if s.ring.len() == 0 {
		if s.m.Held() > 0 && !s.rx.nudged {
			s.wake(true)
		}
		if s.ring.len() == 0 {
			s.parked = append(s.parked, w)
			return
		}
	}
	s.ringChanges()
	c := s.ring.pop()
	s.out.RingSum += s.now - c.pushedAt
	w.call = c
	if s.counting {
		s.out.Wait.Add(s.now-c.receivedAt, 1)
	}
	if s.rx.resting && s.m.Resumes(s.ring.len()) {
		s.rx.resting = false
		s.wake(true)
	}
	d := int64(math.Round(s.service()))
	if s.load.Service.Sleeps {
		s.after(d, func() { s.send(w) })
		return
	}
	s.compute(&w.thread, d, func() { s.send(w) })
}

// send answers a worker's call.
func (s *sim) send(w *worker) {
	s.compute(&w.thread, s.cost(s.costs.Send), func() {
		c := w.call
		w.call = nil
		s.out.Served++
		s.answered(c)
		s.take(w)
	})
}

func sqrt(x float64) float64 { return math.Sqrt(max(x, 0)) }
