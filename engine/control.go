package engine

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/unknot/unknot/engine/internal/placement"
)

// A controller does for receive threads what a confined thread may not, and what they
// have no time for. It is one goroutine: it retires listeners whose targets are gone, asks
// placement what each receiver shall be like and applies it, takes a thread out of RECV
// when no calls come, and moves listeners from busy receivers to others.
type controller struct {
	asks    chan struct{} // capacity 1: it shall look
	hangups chan *Source  // no target is left
	procs   atomic.Int32  // added to GOMAXPROCS
	noSync  atomic.Bool   // a listener has no SYNC_WAKE_UP
	moving  atomic.Bool   // a listener goes from one receiver to another
	debug   atomic.Pointer[[]placement.Plan]
}

func (c *controller) init() {
	c.asks = make(chan struct{}, 1)
	c.hangups = make(chan *Source, 64)
	c.debug.Store(&[]placement.Plan{})
}

// reconcile asks the controller to look.
func (c *controller) reconcile() {
	select {
	case c.asks <- struct{}{}:
	default: // it will look anyway
	}
}

const (
	// lookEvery is how soon it looks for a lone worker that is still at the request that it was at.
	lookEvery = 2 * time.Millisecond
	// idleAfter is how long no call must have come for a pause: then a receive thread goes back
	// to epoll from a blocked RECV, where it needs no signal to be woken, and where alone
	// kernels before 6.11 tell that the last target is gone. Hundreds of targets on one
	// CPU take milliseconds from one call to the next, which is none.
	idleAfter = 20 * time.Millisecond
	// pulse bounds how long Go 1.26 may take to stop the world: package slowstop says why. The
	// controller's ticker is the timer that it takes, and runs anyway.
	pulse = 200 * time.Millisecond
)

// A pilot is what the controller keeps of a receiver.
type pilot struct {
	rx       *receiver
	machine  placement.Machine
	applied  applied
	affinity affinity

	received uint64
	state    uint64        // of worker 1
	idle     time.Duration // without a call
	stuck    bool
}

// steer is the controller until ctx ends.
func (e *Engine) steer(ctx context.Context) {
	defer e.setProcs(0)
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	period := pulse
	var pilots []*pilot
	var b placement.Balancer
	var balanced time.Time
	clock.Adjust()
	e.step(&pilots)
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-e.control.hangups:
			e.cfg.Logger.Info("listener hangs up, no target is left", s.log())
			go func() { _ = e.retire(context.Background(), s, true) }()
		case <-e.control.asks:
			e.step(&pilots)
		case at := <-tick.C:
			clock.Adjust()
			if period != pulse {
				for _, p := range pilots {
					p.look(period)
				}
				e.step(&pilots)
			}
			if at.Sub(balanced) >= pulse {
				e.checkTargets()
				e.balance(&b, at.Sub(balanced))
				balanced = at
			}
		}
		if p := e.period(pilots); p != period {
			if period == pulse {
				for _, p := range pilots {
					p.received, p.state, p.idle = 0, 0, 0
				}
			}
			period = p
			tick.Reset(period)
		}
	}
}

// period is how soon the controller looks again; pulse if there is nothing to look after.
// Each look wakes threads of the Go scheduler, which take the CPU from the receive
// threads and the targets: there are no more of them than needed.
func (e *Engine) period(pilots []*pilot) time.Duration {
	period := pulse
	for _, p := range pilots {
		switch {
		case p.applied.plan.State == placement.Near, p.applied.plan.State == placement.Pair:
			return lookEvery
		case p.applied.plan.Trying:
			period = placement.SettleFor
		case p.rx.observed.direct.Load():
			period = min(period, idleAfter)
		}
	}
	return period
}

// look looks after the threads that a blocked system call or a handler may hold
// up: the receive thread in RECV, and the worker that is alone. The last look was
// a period ago.
func (p *pilot) look(period time.Duration) {
	n := p.rx.tallies[0].received.Load()
	if n == p.received {
		p.idle += period
	} else {
		p.idle = 0
	}
	p.received = n
	ws := p.rx.crew.all()
	state := ws[min(1, len(ws)-1)].req.state.Load()
	p.stuck = state == p.state && phaseOf(state) == running
	p.state = state
	if p.pauses() && p.rx.observed.direct.Load() {
		p.rx.interrupt()
	}
}

// pauses reports whether no call has come for some time.
func (p *pilot) pauses() bool { return p.idle >= idleAfter }

// step asks placement what each receiver shall be like, and applies it.
func (e *Engine) step(pilots *[]*pilot) {
	all := e.receivers.all()
	for _, rx := range all[len(*pilots):] {
		p := &pilot{rx: rx}
		p.applied = applied{cpu: rx.seat.cpu, order: order{placement.All, placement.Anywhere}}
		*pilots = append(*pilots, p)
	}
	inUse := e.receivers.inUse()
	e.lookAtMasks(*pilots)
	at, procs := now(), e.spareProcs(inUse)
	changed := len(*pilots) != len(*e.control.debug.Load())
	slow := 0
	for _, p := range *pilots {
		o := p.rx.observed.observation()
		o.Handlers = placement.Length(p.rx.crew.length.Load())
		o.Stuck, o.Idle, o.Calls = p.stuck, p.pauses(), p.rx.tallies[0].received.Load()
		o.Affinity, o.TargetCPU, o.OtherCPU = p.affinity.is.affinity, p.affinity.is.cpu, p.affinity.is.other
		p.stuck = false
		plan := p.machine.Step(at, o, e.facts(p.rx, inUse))
		changed = changed || plan != p.applied.plan
		p.rx.apply(&p.applied, plan)
		slow += plan.Procs
	}
	if changed {
		plans := make([]placement.Plan, len(*pilots))
		for i, p := range *pilots {
			plans[i] = p.applied.plan
		}
		e.control.debug.Store(&plans)
	}
	if !e.cfg.KeepProcs {
		e.setProcs(max(procs, slow))
	}
}

// facts are what placement is told of a receiver beside what was observed.
func (e *Engine) facts(rx *receiver, inUse int) placement.Facts {
	c := &e.cfg
	return placement.Facts{
		Inline: c.Inline, Workers: c.Workers, Threads: c.Kind != GoroutineWorkers, Place: placement.Place(c.Placement),
		Home: rx.seat.cpu, Movable: c.CPU == AutoCPU && (c.Inline || c.Placement == AutoPlacement), Sync: c.WakeUp != Async && !e.control.noSync.Load(),
		Try:   c.WakeUp == AutoWakeUp && !e.control.noSync.Load(),
		Raise: c.RaisePriority, Receivers: inUse,
	}
}

// balance moves a listener to another receiver where that evens out their loads, or its targets cannot
// come to its own. It is called at each pulse, the last one so long ago.
func (e *Engine) balance(b *placement.Balancer, since time.Duration) {
	all := e.receivers.all()
	if len(all) < 2 || e.control.moving.Load() {
		return
	}
	for s := range e.registry.each {
		s.seen.look(s, since)
	}
	rs, ss := e.loads()
	m, move := b.Look(rs)
	if !move {
		return
	}
	s, to := ss[m.From][m.Listener], all[m.To]
	e.control.moving.Store(true)
	go func() { // what it waits for may take a while
		defer e.control.moving.Store(false)
		if e.move(s, to) {
			e.cfg.Logger.Debug("listener goes to another receiver", "listener", s.l.FD(), "from", m.From, "to", m.To)
			e.control.reconcile()
		}
	}()
}
