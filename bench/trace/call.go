package trace

import "time"

// A Call is one answered call, with what explains the time it took.
type Call struct {
	ID      uint64        // of its notification
	NR      int           // the system call's number
	Target  int           // thread ids in the tracer's PID namespace; 0: it has none there
	Handler int           // the thread that dispatched it, or else received it
	Before  time.Duration // the target's own time before the trap
	Causes  []Cause       // in the order of time; together Total
}

// A Cause is a part of a call's time and what it was spent on.
type Cause struct {
	Name string
	Time time.Duration
}

// Causes, as reports name them.
const (
	causeAsleep      = "receiver asleep"
	causeScheduled   = "receiver waits for a CPU"
	causeBusy        = "receiver busy elsewhere"
	causeRecv        = "RECV"
	causeQueue       = "queue"
	causeHandler     = "handler runs"
	causeHandlerWait = "handler waits for a CPU"
	causeHandlerIdle = "handler asleep"
	causeHandlers    = "queue and handlers" // of several threads, without dispatch
	causeSend        = "SEND"
	causeTargetWait  = "target waits for a CPU"
	causeReturn      = "target returns"
)

// Total is the time from the trap until the target is back from the system call,
// or, if the call continues, until it begins.
func (c *Call) Total() (t time.Duration) {
	for _, p := range c.Causes {
		t += p.Time
	}
	return t
}

// slowest returns the longest call of the CPUs' longest.
func slowest(cpus []kernelSlow) *Call {
	var w *kernelSlow
	for i := range cpus {
		if c := &cpus[i]; c.Total > 0 && (w == nil || c.Total > w.Total) {
			w = c
		}
	}
	if w == nil {
		return nil
	}
	c := &Call{ID: w.Id, NR: int(w.Nr), Target: int(w.Target), Handler: int(w.Handler)}
	c.Before = time.Duration(w.Trapped - w.Exited)
	c.explain(w)
	return c
}

// unknown is a usage that the kernel's side could not tell.
const unknown = ^uint64(0)

// explain splits the call. Each part is cut to what the parts before it left, so
// that they add up whatever order the CPUs' clocks saw.
func (c *Call) explain(w *kernelSlow) {
	at := w.Trapped
	add := func(name string, d uint64) {
		c.Causes = append(c.Causes, Cause{name, time.Duration(d)})
	}
	until := func(t uint64) uint64 { // what is left until t, and on to t
		if t <= at {
			return 0
		}
		d := t - at
		at = t
		return d
	}

	c.receiver(w, add)
	at = max(at, w.Received)
	handler := causeHandlers
	if w.Dispatched != 0 {
		add(causeQueue, until(w.Dispatched))
		handler = causeHandler
	}
	d := until(w.Answered)
	if w.HandlerBusy == unknown {
		add(handler, d)
	} else {
		run := min(w.HandlerBusy, d)
		wait := min(w.HandlerWait, d-run)
		add(causeHandler, run)
		add(causeHandlerWait, wait)
		add(causeHandlerIdle, d-run-wait)
	}
	add(causeSend, until(w.Woken))
	add(causeTargetWait, until(w.Ran))
	add(causeReturn, until(w.End))
}

// receiver splits the time from the trap until RECV returned.
func (c *Call) receiver(w *kernelSlow, add func(string, uint64)) {
	if w.Received <= w.Trapped {
		return
	}
	all := w.Received - w.Trapped
	// The last stretch on a CPU, inside RECV.
	recv := w.Received - min(w.Received, max(w.ReceiverEntered, w.ReceiverRan, w.Trapped))
	var asleep, wait uint64
	switch {
	case w.ReceiverBusy <= all && w.ReceiverWait <= all-w.ReceiverBusy:
		wait = w.ReceiverWait
		asleep = all - w.ReceiverBusy - wait
	case w.ReceiverRan > w.Trapped:
		// It is not known what the receiver did at the trap: only its last
		// stretch off the CPU is told from what it did elsewhere.
		ran := min(w.ReceiverRan, w.Received)
		off := min(max(w.ReceiverOff, w.Trapped), ran)
		woken := min(max(w.ReceiverWoken, off), ran)
		asleep, wait = woken-off, ran-woken
	}
	rest := all - min(all, asleep+wait)
	recv = min(recv, rest)
	add(causeAsleep, asleep)
	add(causeScheduled, wait)
	add(causeBusy, rest-recv)
	add(causeRecv, recv)
}
