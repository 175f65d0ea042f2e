// Package top draws what a status page tells, for a terminal: what a running engine did in the last interval.
package top

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/unknot/unknot/cmd/unknot/internal/status"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/hist"
)

// figures are those of an interval, and of the moment at its end.
type figures struct {
	at       *status.Snapshot
	interval time.Duration // 0: there is no earlier snapshot, and all counts are since the start
	counters engine.Counters
	wait     hist.Snapshot
	service  hist.Snapshot
	drop     hist.Snapshot
	high     int
	rows     []row
	targets  bool // some have a wait target
	calls    []callRow
	threads  []threadRow
}

// A row is the listeners of one name.
type row struct {
	name              string
	listeners         int
	depth, capacity   uint64
	high              int
	received, dropped uint64 // in the interval
	droppedEver       uint64
	timed             bool
	wait, service     hist.Snapshot
	target, busy      time.Duration // wait target, and service while workers are busy: the longest of its listeners
	changes           uint64        // of the limits, in all the time
}

type callRow struct {
	name                     string
	received, dropped, stale uint64
	wait, roundTrip          hist.Snapshot
}

type threadRow struct {
	status.Receiver
	received uint64
	busy     float64 // of a CPU
}

// between returns the figures of the time between two snapshots of one engine. Without an earlier one, or where it is
// another process's, they are all of the time until now.
func between(was, is *status.Snapshot) *figures {
	if was != nil && (was.Info.PID != is.Info.PID || !was.Info.Started.Equal(is.Info.Started) || !was.Time.Before(is.Time)) {
		was = nil
	}
	f := &figures{at: is}
	var none status.Snapshot
	if was != nil {
		f.interval = is.Time.Sub(was.Time)
	} else {
		was = &none
	}
	f.counters = minus(is.Counters, was.Counters)
	f.wait = less(&is.Wait, &was.Wait)
	f.service = less(&is.Service, &was.Service)
	f.drop = less(&is.Drop, &was.Drop)
	f.sources(was, is)
	f.syscalls(was, is)
	for i, r := range is.Receivers {
		t := threadRow{Receiver: r, received: r.Received}
		used := r.CPUTime
		if i < len(was.Receivers) && was.Receivers[i].TID == r.TID {
			t.received -= min(t.received, was.Receivers[i].Received)
			used -= min(used, was.Receivers[i].CPUTime)
		}
		t.busy = used.Seconds() / f.seconds()
		f.threads = append(f.threads, t)
	}
	return f
}

// seconds is how long the interval was.
func (f *figures) seconds() float64 {
	d := f.interval
	if d == 0 {
		d = f.at.Time.Sub(f.at.Info.Started)
	}
	return max(d.Seconds(), 1e-3)
}

func (f *figures) rate(n uint64) float64 { return float64(n) / f.seconds() }

// minus takes away what an earlier snapshot counted. A count never falls, but two are not read at one instant.
func minus(is, was engine.Counters) engine.Counters {
	for _, p := range []struct{ is, was *uint64 }{
		{&is.Received, &was.Received}, {&is.Answered, &was.Answered}, {&is.Dropped, &was.Dropped}, {&is.Stale, &was.Stale}, {&is.Failed, &was.Failed},
		{&is.Continued, &was.Continued}, {&is.Defaulted, &was.Defaulted}, {&is.Panicked, &was.Panicked}, {&is.Late, &was.Late},
		{&is.Unanswered, &was.Unanswered}, {&is.DuplicateAnswers, &was.DuplicateAnswers}, {&is.Spent, &was.Spent}, {&is.Refused, &was.Refused},
		{&is.Expired, &was.Expired}, {&is.Overflowed, &was.Overflowed}, {&is.Gone, &was.Gone}, {&is.RecvFailed, &was.RecvFailed},
		{&is.Added, &was.Added}, {&is.HungUp, &was.HungUp},
	} {
		*p.is -= min(*p.is, *p.was)
	}
	return is
}

// faults is what handlers and the kernel did wrong.
func faults(c *engine.Counters) uint64 {
	return c.Failed + c.Panicked + c.Late + c.Unanswered + c.DuplicateAnswers + c.Spent + c.Refused + c.RecvFailed
}

func less(is, was *status.Histogram) hist.Snapshot {
	h := is.Snapshot
	if was == nil || was.Count > h.Count {
		return h
	}
	for i, n := range was.Counts {
		h.Counts[i] -= min(n, h.Counts[i])
	}
	h.Count = 0
	for _, n := range h.Counts {
		h.Count += n
	}
	h.Sum -= was.Sum
	h.Max = 0 // that of the interval is not known
	return h
}

func (f *figures) sources(was, is *status.Snapshot) {
	earlier := map[uint64]*status.Source{}
	for i := range was.Sources {
		earlier[was.Sources[i].ID] = &was.Sources[i]
	}
	byName := map[string]*row{}
	for i := range is.Sources {
		s := &is.Sources[i]
		r := byName[s.Name]
		if r == nil {
			r = &row{name: s.Name}
			byName[s.Name] = r
		}
		old := earlier[s.ID]
		if old == nil {
			old = &status.Source{}
		}
		n := minus(s.Counters, old.Counters)
		r.listeners++
		r.depth += s.Counters.Queued
		if t := s.Target; t != nil { // its limit is what the depth is held against
			f.targets = true
			r.capacity += uint64(t.Limit)
			r.target, r.busy, r.changes = max(r.target, t.Target), max(r.busy, t.Service), r.changes+t.Changes
		} else {
			r.capacity += uint64(s.Queue)
		}
		r.high = max(r.high, s.HighWater)
		f.high = max(f.high, s.HighWater)
		r.received += n.Received
		r.dropped += n.Dropped
		r.droppedEver += s.Counters.Dropped
		if s.Wait != nil && s.Service != nil {
			r.timed = true
			wait, service := less(s.Wait, old.Wait), less(s.Service, old.Service)
			r.wait.Merge(&wait)
			r.service.Merge(&service)
		}
	}
	for _, r := range byName {
		if len(byName) == 1 && !r.timed { // the engine's are its own
			r.timed, r.wait, r.service = true, f.wait, f.service
		}
		f.rows = append(f.rows, *r)
	}
}

func (f *figures) syscalls(was, is *status.Snapshot) {
	earlier := map[[2]string]*status.Call{}
	for i := range was.Calls {
		earlier[[2]string{was.Calls[i].Name, was.Calls[i].ABI}] = &was.Calls[i]
	}
	for i := range is.Calls {
		c := &is.Calls[i]
		old := earlier[[2]string{c.Name, c.ABI}]
		if old == nil {
			old = &status.Call{}
		}
		r := callRow{name: c.Name, wait: less(&c.Wait, &old.Wait), roundTrip: less(&c.RoundTrip, &old.RoundTrip)}
		if c.ABI != "x86_64" && c.ABI != "aarch64" {
			r.name += " (" + c.ABI + ")"
		}
		r.received = c.Received - min(c.Received, old.Received)
		r.dropped = c.Dropped - min(c.Dropped, old.Dropped)
		r.stale = c.Stale - min(c.Stale, old.Stale)
		f.calls = append(f.calls, r)
	}
	slices.SortFunc(f.calls, func(a, b callRow) int {
		return cmp.Or(cmp.Compare(b.received, a.received), strings.Compare(a.name, b.name))
	})
}

// An Order is how listeners are sorted.
type Order int

// The orders.
const (
	ByRate Order = iota
	ByDrops
	ByDepth
	ByName
	orders
)

var orderNames = [...]string{"calls", "drops", "depth", "name"}

func (o Order) String() string { return orderNames[o] }

// ParseOrder is the order of that name.
func ParseOrder(name string) (o Order, ok bool) {
	i := slices.Index(orderNames[:], name)
	return Order(max(0, i)), i >= 0
}

// Next is the order after o.
func (o Order) Next() Order { return (o + 1) % orders }

func (f *figures) sort(o Order) {
	slices.SortFunc(f.rows, func(a, b row) int {
		first := 0
		switch o {
		case ByDrops:
			first = cmp.Or(cmp.Compare(b.dropped, a.dropped), cmp.Compare(b.droppedEver, a.droppedEver))
		case ByDepth:
			first = cmp.Compare(b.depth, a.depth)
		case ByRate:
			first = cmp.Compare(b.received, a.received)
		}
		return cmp.Or(first, strings.Compare(a.name, b.name))
	})
}

// quantile is one of a histogram in ns; NaN where it is empty.
func quantile(h *hist.Snapshot, q float64) float64 {
	if h.Count == 0 {
		return math.NaN()
	}
	return h.Quantile(q)
}
