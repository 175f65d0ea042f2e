package sim

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

	// Looked and Waited, if not nil, are told what the wait target has come to at each call, and how long
	// each call waited, with the time in ns and the listener's number.
	Looked func(at int64, listener int, l policy.Limit)
	Waited func(at int64, listener int, wait int64)
}

// An Outcome is what a storm is expected to measure, or did.
type Outcome struct {
	Elapsed  float64 // s
	Received uint64
	Served   uint64
	Dropped  uint64 // told so
	Late     uint64 // arrivals of an open loop that found no idle thread
	Wait     *hist.Snapshot
	InFlight float64      // calls that are received or wait to be, on average
	CPU      float64      // CPUs in use, on average
	Limit    policy.Limit // at the end

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

	set     Setting
	costs   Model
	cpus    *cpus
	rx      receiver
	sources []*source
	workers []*worker
	parked  []*worker
	turns   int // whose ring workers look at first

	counting bool
	run      Run
}

// A source is a listener with its targets.
type source struct {
	s       *sim
	index   int
	load    Load
	service func(at int64) float64
	rng     *rand.Rand
	idle    []*target // of an open loop

	pending, ring, held fifo
	m                   *policy.Machine
	resting             bool
	restUntil           int64
	timed               bool // the receive thread looks after its held calls
	dry                 bool

	out       Outcome
	received  uint64
	dropped   uint64
	taken     uint64 // by workers
	open      uint64 // received, not answered
	flight    int    // on the kernel's list
	flightInt int64
	flightAt  int64
	ringAt    int64
	systemAt  int64
}

type receiver struct {
	thread
	blocked bool // in epoll, ppoll or RECV
	nudged  bool
	next    int // whose calls it looks for first
	timer   *event
}

type worker struct {
	thread
	src  *source
	call *call
}

// Simulate runs the engine's policy under a load.
func Simulate(l Load, set Setting, costs Model, run Run) (*Outcome, error) {
	all, err := SimulateListeners([]Load{l}, set, costs, run)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// SimulateListeners is Simulate with several listeners, each with a load and a ring of its own, which share
// the receive thread and the workers. The outcomes are of each; CPU is of all together.
func SimulateListeners(loads []Load, set Setting, costs Model, run Run) ([]*Outcome, error) {
	set.Config.Workers = set.Workers
	for _, l := range loads {
		if err := l.Check(); err != nil {
			return nil, err
		}
	}
	if err := set.Fill(); err != nil {
		return nil, err
	}
	if set.Workers < 1 || set.CPUs < 0 || run.Length <= 0 || len(loads) == 0 {
		return nil, fmt.Errorf("simulate %d workers on %d CPUs for %v, %d listeners: must be positive", set.Workers, set.CPUs, run.Length, len(loads))
	}
	s := &sim{set: set, costs: costs, run: run}
	s.cpus = newCPUs(s, set.CPUs, costs)
	s.rx.blocked = true
	s.rx.pin = set.CPUs // the last one
	for range set.Workers {
		w := &worker{}
		s.workers = append(s.workers, w)
		s.parked = append(s.parked, w)
	}
	for i, l := range loads {
		if err := s.listen(l, run, uint64(i)); err != nil {
			return nil, err
		}
	}
	s.runUntil(int64(run.WarmUp))
	var before []Outcome
	var flight []int64
	for _, src := range s.sources {
		src.tally()
		before, flight = append(before, src.out), append(flight, src.flightInt)
	}
	s.counting = true
	busy := s.busyNow()
	s.runUntil(int64(run.WarmUp + run.Length))
	var all []*Outcome
	for i, src := range s.sources {
		src.tally()
		o := &src.out
		o.Elapsed = run.Length.Seconds()
		o.Received -= before[i].Received
		o.Served -= before[i].Served
		o.Dropped -= before[i].Dropped
		o.Late -= before[i].Late
		o.InFlight = float64(src.flightInt-flight[i]) / float64(run.Length)
		o.CPU = float64(s.busyNow()-busy) / float64(run.Length)
		o.Limit = src.m.Limit()
		// What is still there has been there until now.
		for _, c := range src.ring.calls[src.ring.first:] {
			o.RingSum += s.now - c.pushedAt
			o.SystemSum += s.now - c.receivedAt
		}
		for _, c := range src.held.calls[src.held.first:] {
			o.SystemSum += s.now - c.receivedAt
		}
		all = append(all, o)
	}
	for _, w := range s.workers {
		if w.call != nil {
			w.src.out.SystemSum += s.now - w.call.receivedAt
		}
	}
	return all, nil
}

// listen adds a listener; n is how many there are already.
func (s *sim) listen(l Load, run Run, n uint64) error {
	src := &source{s: s, index: int(n), load: l, rng: rand.New(rand.NewPCG(run.Seed, 0x7e57+n<<16)), m: policy.New(s.set.Config)}
	src.service = l.Service.stepped(rand.New(rand.NewPCG(run.Seed, 0x5e41+n<<16)))
	src.out.Wait = new(hist.Snapshot)
	s.sources = append(s.sources, src)
	targets := make([]target, l.Targets)
	for i := range targets {
		t := &targets[i]
		if l.Arrivals.Open() {
			src.idle = append(src.idle, t)
			continue
		}
		src.thinkAgain(t)
	}
	if l.Arrivals.Open() {
		as, err := l.Arrivals.Calls.Schedule(run.WarmUp+run.Length, run.Seed+n<<32)
		if err != nil {
			return err
		}
		src.arrivals(as)
	}
	return nil
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
func (src *source) tally() {
	src.ringChanges()
	src.systemChanges()
	src.flightChanges(0)
}

func (src *source) ringChanges() {
	src.out.RingIntegral += int64(src.ring.len()) * (src.s.now - src.ringAt)
	src.ringAt = src.s.now
}

func (src *source) systemChanges() {
	src.out.SystemIntegral += int64(src.open) * (src.s.now - src.systemAt)
	src.systemAt = src.s.now
}

func (src *source) flightChanges(by int) {
	src.flightInt += int64(src.flight) * (src.s.now - src.flightAt)
	src.flightAt = src.s.now
	src.flight += by
}

// cost is that of an ioctl now.
func (src *source) cost(base float64) int64 {
	return int64(base + src.s.costs.PerCall*float64(src.flight))
}

// The targets.

// calls has t make a call.
func (src *source) calls(t *target) {
	src.flightChanges(1)
	src.pending.push(&call{target: t})
	if !src.resting {
		src.s.wake(false)
	}
}

// thinkAgain has a target of the closed loop come to its next call.
func (src *source) thinkAgain(t *target) {
	s, a := src.s, src.load.Arrivals
	think := int64(a.Think.Draw(src.rng))
	cost := int64(s.costs.Target)
	switch {
	case think > 0 && !a.ThinkComputes:
		s.compute(&t.thread, cost/2, func() {
			s.after(think, func() { s.compute(&t.thread, cost/2, func() { src.calls(t) }) })
		})
	default:
		s.compute(&t.thread, cost+think, func() { src.calls(t) })
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
func (src *source) answered(c *call) {
	src.systemChanges()
	src.open--
	src.flightChanges(-1)
	src.out.SystemSum += src.s.now - c.receivedAt
	t := c.target
	if src.load.Arrivals.Open() {
		src.s.compute(&t.thread, int64(src.s.costs.Timed)/2, func() { src.idle = append(src.idle, t) })
		return
	}
	src.thinkAgain(t)
}

// arrivals makes the calls of an open loop.
func (src *source) arrivals(as []storm.Arrival) {
	if len(as) == 0 {
		return
	}
	s, i := src.s, 0
	var arrive func()
	arrive = func() {
		if n := len(src.idle); n > 0 {
			t := src.idle[n-1]
			src.idle = src.idle[:n-1]
			s.compute(&t.thread, int64(s.costs.Timed)/2, func() { src.calls(t) })
		} else {
			src.out.Late++
		}
		if i++; i < len(as) {
			s.at(int64(as[i].At), arrive)
		}
	}
	s.at(int64(as[0].At), arrive)
}

// The receive thread: engine/loop.go and engine/overload.go.

// wake wakes it if it waits for what came: a call, or a nudge.
func (s *sim) wake(nudge bool) {
	rx := &s.rx
	if nudge {
		rx.nudged = true
	}
	if !rx.blocked {
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
	s.rx.nudged = false
	s.runTimers(0, 0, false)
}

// runTimers looks after the held calls of the sources from i on, of which those before must be looked at again
// by the deadline, and goes on.
func (s *sim) runTimers(i int, deadline int64, timed bool) {
	for ; i < len(s.sources) && !s.sources[i].timed; i++ {
	}
	if i == len(s.sources) {
		s.look(deadline, timed)
		return
	}
	src := s.sources[i]
	n := min(src.m.Release(s.now, src.ring.len(), src.served(), src.dry), tendBatch)
	src.dry = true
	src.tell(n, func() {
		next, more := src.m.Deadline()
		if src.resting {
			if s.now >= src.restUntil && src.restUntil != 0 {
				src.resting = false
			} else if src.restUntil != 0 && (!more || src.restUntil < next) {
				next, more = src.restUntil, true
			}
		}
		src.timed = more
		if more && (!timed || next < deadline) {
			deadline, timed = next, true
		}
		s.runTimers(i+1, deadline, timed)
	})
}

// tendBatch is the engine's: answers to held calls between two RECVs.
const tendBatch = 32

// tell answers the n oldest held calls and goes on.
func (src *source) tell(n int, then func()) {
	if n == 0 {
		then()
		return
	}
	src.s.compute(&src.s.rx.thread, src.cost(src.s.costs.Drop), func() {
		c := src.held.pop()
		src.m.Answered(1)
		src.out.Dropped++
		src.answered(c)
		src.tell(n-1, then)
	})
}

// look receives, or waits for something to receive.
func (s *sim) look(deadline int64, timed bool) {
	rx := &s.rx
	if rx.nudged {
		s.compute(&rx.thread, int64(s.costs.Nudge), s.turn)
		return
	}
	resting := false
	for i := range s.sources {
		src := s.sources[(rx.next+i)%len(s.sources)]
		if !src.resting && src.pending.len() > 0 {
			rx.next = (rx.next + i + 1) % len(s.sources)
			src.dry = false
			s.compute(&rx.thread, src.cost(s.costs.Recv), src.receive)
			return
		}
		resting = resting || src.resting
	}
	rx.blocked = true
	if timed {
		if !resting { // epoll_wait counts in whole ms
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

// receive takes the oldest call from the kernel, as loop.admit does.
func (src *source) receive() {
	s := src.s
	c := src.pending.pop()
	c.receivedAt = s.now
	src.systemChanges()
	src.open++
	src.received++
	src.out.Received++
	if src.m.Adapts() {
		src.m.Look(s.now, src.ring.len(), src.taken)
		if s.run.Looked != nil {
			s.run.Looked(s.now, src.index, src.m.Limit())
		}
	}
	admit, evict := src.m.Arrive(src.ring.len())
	if !admit {
		src.hold(c)
		s.turn()
		return
	}
	src.ringChanges()
	for range evict {
		old := src.ring.pop()
		src.out.RingSum += s.now - old.pushedAt
		src.hold(old)
	}
	c.pushedAt = s.now
	src.ring.push(c)
	if n := len(s.parked); n > 0 {
		w := s.parked[n-1]
		s.parked = s.parked[:n-1]
		s.compute(&w.thread, 1, func() { s.take(w) })
	}
	if src.m.Rests(src.ring.len()) {
		src.restUntil = 0
		if at, ok := src.m.RestsUntil(s.now); ok {
			src.restUntil = at
		}
		src.resting = !src.m.Resumes(src.ring.len())
		src.timed = src.timed || src.resting && src.restUntil != 0
	}
	s.turn()
}

// hold drops a call that is not told yet.
func (src *source) hold(c *call) {
	src.dropped++
	for range src.m.Room(1) {
		old := src.held.pop()
		src.m.Answered(1)
		src.out.Dropped++
		src.answered(old)
	}
	src.m.Hold(src.s.now, 1)
	src.held.push(c)
	src.timed = true
}

// served is Source.served.
func (src *source) served() uint64 {
	return src.received - src.dropped + uint64(src.m.Held()) - src.open
}

// The workers: engine/worker.go.

// take has a worker take its next call, from the rings in turn.
func (s *sim) take(w *worker) {
	src := s.waiting()
	if src == nil {
		for _, src := range s.sources {
			if src.m.Held() > 0 && !s.rx.nudged {
				s.wake(true)
			}
		}
		if src = s.waiting(); src == nil {
			s.parked = append(s.parked, w)
			return
		}
	}
	src.ringChanges()
	c := src.ring.pop()
	src.taken++
	src.out.RingSum += s.now - c.pushedAt
	w.src, w.call = src, c
	if s.counting {
		src.out.Wait.Add(s.now-c.receivedAt, 1)
		if s.run.Waited != nil {
			s.run.Waited(s.now, src.index, s.now-c.receivedAt)
		}
	}
	if src.resting && src.m.Resumes(src.ring.len()) {
		src.resting = false
		s.wake(true)
	}
	d := int64(math.Round(src.service(s.now - int64(s.run.WarmUp))))
	if src.load.Service.Sleeps {
		s.after(d, func() { s.send(w) })
		return
	}
	s.compute(&w.thread, d, func() { s.send(w) })
}

// waiting is the next source whose ring has a call, in turn; nil if none has.
func (s *sim) waiting() *source {
	for i := range s.sources {
		n := (s.turns + i) % len(s.sources)
		if src := s.sources[n]; src.ring.len() > 0 {
			s.turns = n + 1
			return src
		}
	}
	return nil
}

// send answers a worker's call.
func (s *sim) send(w *worker) {
	s.compute(&w.thread, w.src.cost(s.costs.Send), func() {
		c, src := w.call, w.src
		w.call = nil
		src.out.Served++
		src.answered(c)
		s.take(w)
	})
}

func sqrt(x float64) float64 { return math.Sqrt(max(x, 0)) }
