// Package placement decides where the threads of an engine run, and how many: it is
// told what receive threads observed and says what shall be.
//
// A [Machine] is a pure state machine over (time, observation), one for each receiver. It
// never looks at a clock, the kernel or a thread, and holds no pointer: the controller of the engine
// asks it and engine/apply.go does what it says. Which receiver has which listener is decided here,
// too: [Receivers], [Deal] and [Balancer].
//
// # The states of a receiver
//
// Inline there is one, Fixed: the receive thread stays on its CPU. By the queue:
//
//		            handlers are short                 many call at once, all over the CPUs
//		 ┌────────┐ ─────────────────────► ┌──────┐ ─────────────────────────────────────► ┌──────┐
//		 │Parallel│                        │ Near │                                        │ Pair │
//		 └────────┘ ◄───────────────────── └──────┘ ◄───────────────────────────────────── └──────┘
//		     ▲      long; held up; a pause             fewer or more, or not all the time     │
//		     └────────────────────────────────────────────────────────────────────────────────┘
//		                              long; held up; a pause
//
//	  - Parallel: all workers, wherever the scheduler has them. An engine begins so.
//	  - Near: one worker, on the CPU of the receive thread, which is a batch thread (SCHED_BATCH) and so
//	    does not preempt the worker when a call comes: calls gather.
//	  - Pair: two workers, and neither they nor the receive thread are kept to a CPU.
//
// Where [Facts.Place] or the kind of workers leaves no choice, the state is Fixed by the queue, too.
//
// Beside the state there are three rules. Targets and receive thread are together on a CPU: by
// SYNC_WAKE_UP targets come to it, and where they may not, a receive thread that is the only one goes to theirs
// (colocate). While many targets of an only receiver call all the time, it depends on the machine
// whether they had better be apart, so an experiment finds that out: inline and in state Near. And where
// the user asked for it, the receive thread is raised in priority while many call and handlers are short.
//
// What each of it gains, and what was tried and left out: docs/decisions/20-adaptivity.md.
package placement

import (
	"fmt"
	"strings"
	"time"
)

// Anywhere is the CPU of a thread that the scheduler places.
const Anywhere = -1

// All is the number of workers in use where it is all of them.
const All = 1<<31 - 1

// A Place is where the configuration wants workers.
type Place uint8

const (
	PlaceAuto Place = iota
	PlaceNear
	PlaceAnywhere
)

// Facts are what does not change while a receiver works, but for Receivers.
type Facts struct {
	Inline    bool
	Workers   int // of the receiver
	Threads   bool
	Place     Place
	Home      int  // the receive thread's own CPU, or Anywhere
	Movable   bool // the configuration leaves the receive thread's CPU to the engine
	Sync      bool // SYNC_WAKE_UP is in use
	Try       bool // and may be left out
	Raise     bool // its priority may be raised
	Receivers int  // in use
}

// A Concurrency is a band of how many targets call: about 10 and 125 lie between them.
type Concurrency uint8

const (
	Low Concurrency = iota
	Medium
	High
)

// A Length is a band of what a typical handler takes.
type Length uint8

const (
	UnknownLength Length = iota
	Short                // below ShortBelow
	Middling
	Long // above LongAbove
)

const (
	// ShortBelow is what a handler takes whose worker costs more to wake than it works.
	ShortBelow = 10 * time.Microsecond
	// LongAbove is from where on handlers run in parallel, with Ps of their own.
	LongAbove = 20 * time.Microsecond
)

// LengthOf is the band of a typical handler; 0 is not known.
func LengthOf(typical time.Duration) Length {
	switch {
	case typical <= 0:
		return UnknownLength
	case typical < ShortBelow:
		return Short
	case typical > LongAbove:
		return Long
	}
	return Middling
}

// An Affinity is what is known of the CPU masks of a receiver's targets.
type Affinity uint8

const (
	UnknownAffinity Affinity = iota
	Everywhere               // they may run wherever the engine may
	Here                     // some CPUs, the receive thread's own among them
	Elsewhere                // not on the receive thread's own
)

// An Observation is what a receive thread saw in its last window of calls, and what the controller saw of
// its worker.
type Observation struct {
	At          int64 // ns, when the window ended
	Concurrency Concurrency
	Busy        bool // calls come in quick succession
	Handlers    Length
	Stuck       bool // the only active worker is still in the handler that it was in at the last look
	Idle        bool // no call has come for some time
	Affinity    Affinity
	TargetCPU   int    // with Elsewhere: where the targets and the engine may run, or Anywhere
	OtherCPU    int    // with Here: where the engine may run, and no target, or Anywhere
	Calls       uint64 // received so far
}

// StaleAfter is how old a window may be to say how many call, and how fast.
const StaleAfter = 50 * time.Millisecond

// ParallelFor is for how long all workers run at least, once the only active one was held up.
const ParallelFor = 100 * time.Millisecond

// A State is what a receiver does; see the package's chart.
type State uint8

const (
	Fixed State = iota
	Parallel
	Near
	Pair
)

var stateNames = [...]string{"fixed", "parallel", "near", "pair"}

func (s State) String() string { return stateNames[s] }

// A Plan is what shall be. Plans are comparable.
type Plan struct {
	State     State
	CPU       int  // of the receive thread, or Anywhere
	Colocated bool // it is one of its targets'
	Apart     bool // no SYNC_WAKE_UP, and on a CPU that is none of its targets', if there is one
	Trying    bool // an experiment is under way: Step wants to be called again within SettleFor
	Active    int  // workers in use, or All
	WorkerCPU int  // or Anywhere
	Batch     bool // the receive thread is a batch thread
	Raise     bool // the receive thread and a lone worker are raised in priority
	// Procs is how many Ps of the Go scheduler handlers get beyond one for each thread that is always there.
	Procs int
	Why   string // the last transition
}

func (p Plan) String() string {
	cpu := func(n int) string {
		if n == Anywhere {
			return "any"
		}
		return fmt.Sprint(n)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%v cpu=%s", p.State, cpu(p.CPU))
	if p.Active != All {
		fmt.Fprintf(&b, " active=%d", p.Active)
	}
	if p.Active != 0 {
		fmt.Fprintf(&b, " worker=%s", cpu(p.WorkerCPU))
	}
	for _, f := range []struct {
		is   bool
		name string
	}{{p.Colocated, "colocated"}, {p.Apart, "apart"}, {p.Trying, "trying"}, {p.Batch, "batch"}, {p.Raise, "raise"}, {p.Procs > 0, fmt.Sprintf("procs=%d", p.Procs)}} {
		if f.is {
			b.WriteString(" " + f.name)
		}
	}
	return b.String() + ": " + p.Why
}

// A Machine decides for one receiver. The zero Machine is at its beginning. It is not safe for
// concurrent use.
type Machine struct {
	state State
	begun bool
	until int64 // Parallel until then, at least
	procs int
	why   string
	apart experiment
}

// Step decides at the given time, in ns, upon an observation that is no older than the last one's.
func (m *Machine) Step(now int64, o Observation, f Facts) Plan {
	if now-o.At > int64(StaleAfter) {
		o.Concurrency, o.Busy = Low, false
	}
	if !m.begun {
		m.begun = true
		m.to(Fixed, "as configured")
		switch {
		case f.Inline:
			m.why = "inline"
		case f.adaptive():
			m.to(Parallel, "no handler was seen yet")
		}
	}
	m.next(now, &o, &f)
	m.setProcs(now, &o, &f)
	return m.plan(now, &o, &f)
}

// adaptive reports whether there is a choice by the queue.
func (f *Facts) adaptive() bool {
	return !f.Inline && f.Threads && f.Place == PlaceAuto && f.Home != Anywhere
}

// pairs reports whether two workers, all over the CPUs, may do.
func (f *Facts) pairs() bool { return f.Receivers == 1 && f.Workers >= 2 && f.Movable && f.Sync }

// colocates reports whether the receive thread can go to its targets' CPU, and they cannot come to its own.
func (f *Facts) colocates(o *Observation) bool {
	return f.Home != Anywhere && f.Movable && f.Receivers == 1 && o.Affinity == Elsewhere && o.TargetCPU != Anywhere
}

// question is what an experiment may ask about.
func (m *Machine) question(o *Observation, f *Facts) question {
	q := question{o.Concurrency, o.Affinity, m.state, false}
	comes := f.Home != Anywhere && (o.Affinity == Everywhere || o.Affinity == Here)
	q.asked = f.Try && f.Receivers == 1 && o.Busy && o.Concurrency != Low && (f.Inline || m.state == Near) && (comes || f.colocates(o))
	return q
}

func (m *Machine) to(s State, why string) { m.state, m.why = s, why }

func (m *Machine) next(now int64, o *Observation, f *Facts) {
	switch m.state {
	case Parallel:
		if o.Handlers == Short && !o.Idle && now >= m.until {
			m.to(Near, "handlers are short")
		}
		return
	case Fixed:
		return
	}
	many := o.Concurrency == Medium && o.Busy && o.Affinity == Everywhere && f.pairs()
	switch {
	case o.Handlers == Long:
		m.to(Parallel, "handlers take long")
	case o.Stuck:
		m.until = now + int64(ParallelFor)
		m.to(Parallel, "a handler is held up")
	case o.Idle:
		m.to(Parallel, "after a pause calls may be different")
	case m.state == Near && many:
		m.to(Pair, "many targets call all the time, all over the CPUs")
	case m.state == Pair && !many:
		m.to(Near, "no longer many targets that call all the time, all over the CPUs")
	}
}

// setProcs gives handlers Ps of their own while they take long, and leaves it so until there is another sign.
func (m *Machine) setProcs(now int64, o *Observation, f *Facts) {
	switch {
	case f.Inline:
	case m.state == Near, m.state == Pair, m.state == Fixed && o.Handlers == Short:
		m.procs = 0
	case o.Handlers == Long, now < m.until:
		m.procs = f.Workers + 1 // and the receive thread
	}
}

func (m *Machine) plan(now int64, o *Observation, f *Facts) Plan {
	p := Plan{State: m.state, CPU: f.Home, Active: All, WorkerCPU: Anywhere, Procs: m.procs, Why: m.why}
	p.Apart = m.apart.step(now, o.Calls, m.question(o, f))
	p.Trying = m.apart.arm != 0
	switch {
	case f.colocates(o) && !p.Apart:
		p.CPU, p.Colocated = o.TargetCPU, true
	case p.Apart && o.Affinity == Here && f.Movable && o.OtherCPU != Anywhere:
		p.CPU = o.OtherCPU
	}
	switch m.state {
	case Fixed:
		if f.Inline {
			p.Active = 0
		} else if f.Place == PlaceNear {
			p.WorkerCPU = p.CPU
		}
	case Near:
		p.Active, p.WorkerCPU, p.Batch = 1, p.CPU, true
	case Pair:
		p.Active, p.CPU = 2, Anywhere
	}
	// By the queue more than a medium number is served faster, too; inline it is the same, with a worse tail.
	if f.Raise {
		switch {
		case f.Inline:
			p.Raise = o.Concurrency == Medium && o.Handlers == Short
		case m.state == Near:
			p.Raise = o.Concurrency != Low
		}
	}
	return p
}
