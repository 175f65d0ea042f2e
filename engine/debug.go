package engine

import (
	"fmt"
	"strings"
	"time"

	"github.com/unknot/unknot/engine/internal/placement"
	"github.com/unknot/unknot/engine/policy"
	"github.com/unknot/unknot/internal/osthread"
)

// A Receiver describes one of an engine's receive threads.
type Receiver struct {
	TID       int    // thread id; 0 before Run
	CPU       int    // where it is kept now, or -1
	Home      int    // its own CPU, or -1
	HomeWhy   string // why that one
	Listeners []ListenerState
	Direct    bool          // it receives from its only listener without epoll
	State     string        // fixed, parallel, near or pair: how it shares the work with its workers; "" before Run
	Plan      string        // what its threads are told, and why; "" before Run
	CPUTime   time.Duration // what the receive thread has used
	Counters  Counters
	Latencies Latencies `json:"-"`
}

// A ListenerState describes a listener in [Debug].
type ListenerState struct {
	FD          int
	Received    uint64       // calls
	Outstanding uint64       // of these, not yet answered
	Queued      int          // in its ring
	HighWater   int          // the greatest number that there was in it
	Tag         any          `json:"-"`
	Limit       policy.Limit // of the depth of its ring
	Rate        float64      // calls/s at the controller's last look; with one receiver it does not look
}

// A Debug is what an engine does and why, for people.
type Debug struct {
	WakeUp    WakeUp // Sync or Async: what listeners get
	Receivers []Receiver
	Counters  Counters
}

// Debug returns a snapshot. Its parts are read one after the other while threads go on: they are of one instant only
// when the engine is at rest. It costs time in proportion to the listeners.
func (e *Engine) Debug() Debug {
	d := Debug{Counters: e.Counters(), WakeUp: Sync}
	if e.cfg.WakeUp == Async || e.control.noSync.Load() {
		d.WakeUp = Async
	}
	plans := *e.control.debug.Load()
	for i, rx := range e.receivers.all() {
		r := Receiver{
			TID: int(rx.door.tid.Load()), CPU: int(rx.door.cpu.Load()), Home: rx.seat.cpu, HomeWhy: rx.seat.why,
			Direct: rx.observed.direct.Load(), Counters: countAll([]*receiver{rx}), Latencies: newLatencies(),
		}
		rx.latencies(&r.Latencies)
		r.CPUTime = rx.cpuTime()
		if i < len(plans) && plans[i] != (placement.Plan{}) {
			r.State, r.Plan = plans[i].State.String(), plans[i].String()
		}
		for _, s := range *rx.listeners.Load() {
			l := ListenerState{FD: s.l.FD(), Received: s.received.Load(), Outstanding: s.outstanding(), Rate: s.seen.load().Rate, HighWater: s.HighWater(), Tag: s.opts.Tag, Limit: s.Limit()}
			if ring := s.ring.Load(); ring != nil {
				l.Queued = ring.Len()
			}
			r.Listeners = append(r.Listeners, l)
		}
		d.Receivers = append(d.Receivers, r)
	}
	return d
}

// cpuTime is what the receive thread has used, also once it has ended, when its id may be another thread's.
func (rx *receiver) cpuTime() time.Duration {
	if tid := rx.thread(); tid != 0 {
		if used, err := osthread.CPUTime(tid); err == nil {
			rx.door.used.Store(int64(used))
		}
	}
	return time.Duration(rx.door.used.Load())
}

// String is a line for each receiver and each listener that has calls.
func (d Debug) String() string {
	var b strings.Builder
	for i, r := range d.Receivers {
		fmt.Fprintf(&b, "receiver %d: thread %d, CPU %d (home %d: %s), %d listeners, plan %s; received %d",
			i, r.TID, r.CPU, r.Home, r.HomeWhy, len(r.Listeners), r.Plan, r.Counters.Received)
		if w := r.Latencies.Wait; w.Count > 0 {
			fmt.Fprintf(&b, ", wait p99 %v", time.Duration(w.Quantile(.99)))
		}
		b.WriteByte('\n')
		for _, l := range r.Listeners {
			if l.Received > 0 {
				fmt.Fprintf(&b, "  listener %d: received %d, outstanding %d, queued %d, %.0f/s", l.FD, l.Received, l.Outstanding, l.Queued, l.Rate)
				if l.Limit.Service > 0 {
					fmt.Fprintf(&b, ", limit %d (service %v, changed %d times)", l.Limit.Depth, l.Limit.Service, l.Limit.Changes)
				}
				b.WriteByte('\n')
			}
		}
	}
	return b.String()
}
