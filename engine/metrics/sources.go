package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/hist"
)

// sources are the listeners' figures by name. A listener that is gone leaves what it counted with its name, so that
// counters do not fall.
type sources struct {
	most  int
	names map[string]*named
	known map[*engine.Source]string // the name under which it counts
	turn  uint64
}

type named struct {
	gone sourceFigures // of listeners that are gone
	live int
	last uint64 // the turn when one of them was there last
}

type sourceFigures struct {
	engine.Counters
	high, capacity int
	limit          int
	changes        uint64
	target, busy   time.Duration
	listeners      int
	timed          bool
	wait, service  hist.Snapshot
}

func newSources(most int) sources {
	return sources{most: most, names: map[string]*named{}, known: map[*engine.Source]string{}}
}

func (f *sourceFigures) add(s *engine.Source) {
	n := s.Counters()
	f.Received += n.Received
	f.Answered += n.Answered
	f.Dropped += n.Dropped
	f.Stale += n.Stale
	f.Failed += n.Failed
	f.Queued += n.Queued
	f.Held += n.Held
	f.InHandlers += n.InHandlers
	f.Detached += n.Detached
	f.Expired += n.Expired
	f.Overflowed += n.Overflowed
	f.listeners++
	if o := s.Options(); !o.Inline {
		f.capacity += o.Queue
		f.target = max(f.target, o.WaitTarget)
	}
	l := s.Limit()
	f.limit += l.Depth
	f.changes += l.Changes
	f.busy = max(f.busy, l.Service)
	f.high = max(f.high, s.HighWater())
	if l := s.Latencies(); l.Wait != nil {
		f.timed = true
		f.wait.Merge(l.Wait)
		f.service.Merge(l.Service)
	}
}

// update follows who came and went.
func (s *sources) update(all []*engine.Source, name func(*engine.Source) string) {
	s.turn++
	now := make(map[*engine.Source]bool, len(all))
	for _, src := range all {
		now[src] = true
	}
	for src, name := range s.known {
		if !now[src] {
			if n := s.names[name]; n != nil {
				n.gone.add(src)
				n.gone.Queued, n.gone.Held, n.gone.InHandlers, n.gone.Detached = 0, 0, 0, 0
				n.gone.listeners, n.gone.capacity, n.gone.limit, n.gone.target, n.gone.busy = 0, 0, 0, 0, 0
				n.live--
			}
			delete(s.known, src)
		}
	}
	for _, src := range all {
		is, known := s.known[src]
		if !known {
			is = s.place(name(src))
			s.known[src] = is
			s.names[is].live++
		}
		s.names[is].last = s.turn
	}
}

// place returns the name under which a listener of that name counts: another one's place may become its own.
func (s *sources) place(name string) string {
	if s.names[name] != nil {
		return name
	}
	own := len(s.names)
	if s.names[Other] != nil {
		own--
	}
	if own >= s.most && name != Other {
		oldest := ""
		for n, f := range s.names {
			if f.live == 0 && n != Other && (oldest == "" || f.last < s.names[oldest].last) {
				oldest = n
			}
		}
		if oldest == "" {
			name = Other
			if s.names[name] != nil {
				return name
			}
		} else {
			delete(s.names, oldest)
		}
	}
	s.names[name] = new(named)
	return name
}

func (c *Collector) collectSources(to sink, all []*engine.Source) {
	c.sources.update(all, c.o.Source)
	figures := map[string]*sourceFigures{}
	for name, n := range c.sources.names {
		f := n.gone // a copy
		figures[name] = &f
	}
	for src, name := range c.sources.known {
		figures[name].add(src)
	}
	for name, f := range figures {
		to.counter(c.sourceReceived, f.Received, name)
		to.outcomes(c.sourceOutcomes, &f.Counters, name)
		to.drops(c.sourceDrops, &f.Counters, name)
		to.now(c.sourceNow, &f.Counters, name)
		to.gauge(c.sourceListeners, uint64(f.listeners), name)
		to.gauge(c.sourceCapacity, uint64(f.capacity), name)
		to.gauge(c.sourceHigh, uint64(f.high), name)
		to.gauge(c.sourceLimit, uint64(f.limit), name)
		to.counter(c.sourceLimitChanges, f.changes, name)
		if f.target > 0 {
			to <- prometheus.MustNewConstMetric(c.sourceTarget, prometheus.GaugeValue, f.target.Seconds(), name)
			to <- prometheus.MustNewConstMetric(c.sourceLimitService, prometheus.GaugeValue, f.busy.Seconds(), name)
		}
		if f.timed {
			for d, h := range map[*prometheus.Desc]*hist.Snapshot{c.sourceWait: &f.wait, c.sourceService: &f.service} {
				to <- newHistogram(d, h, c.coarse, name)
			}
		}
	}
}
