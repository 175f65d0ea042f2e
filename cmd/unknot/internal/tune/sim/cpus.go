package sim

import (
	"container/heap"
	"time"
)

// A thread is what the simulated CPUs run: a worker, the receive thread or a
// target. It runs one burst at a time.
type thread struct {
	then  func()  // when the burst is over
	need  int64   // ns of CPU left of the burst; 0: it does not want a CPU
	vtime float64 // ns of CPU it has had, as fairness counts them
	pin   int     // the CPU it must run on, plus 1; 0: any
	on    *cpu    // where it runs
}

// cpus are the machine's CPUs and the threads that want one. Each thread gets
// its fair share: a thread that wakes up takes the CPU from one that has had
// more than it, by more than grain; and one that runs on gives way to others
// once its slice is over. With no CPUs (endless) a thread never waits for one.
type cpus struct {
	s       *sim
	endless bool
	all     []cpu
	queue   threadHeap
	first   bool // pinned threads come first
	grain   float64
	slice   int64
	idle    int64   // ns until a CPU that idled runs a thread
	floor   float64 // vtime below which no waking thread comes
}

type cpu struct {
	index int
	cur   *thread
	since int64 // what cur has had is accounted for up to here
	until int64 // of its slice
	ev    *event
	end   func()
}

func newCPUs(s *sim, n int, m Model) *cpus {
	c := &cpus{s: s, endless: n == 0, all: make([]cpu, n), idle: int64(m.Idle), grain: float64(m.Grain), slice: max(int64(m.Slice), int64(time.Microsecond)), first: m.ReceiverFirst}
	for i := range c.all {
		c.all[i].index = i
		c.all[i].end = func() { c.ended(&c.all[i]) }
	}
	return c
}

// run has t use a CPU for need ns and then calls t.then.
func (c *cpus) run(t *thread, need int64) {
	t.need = max(need, 1)
	if c.endless {
		c.s.after(t.need, func() { t.need = 0; t.then() })
		return
	}
	if t.on != nil {
		return // it goes on where it is: ended looks at need
	}
	t.vtime = max(t.vtime, c.floor)
	if c.first && t.pin > 0 {
		t.vtime = c.floor - c.grain - float64(c.slice)
	}
	var victim *cpu
	for i := range c.all {
		p := &c.all[i]
		if t.pin > 0 && t.pin-1 != i {
			continue
		}
		if p.cur == nil {
			t.need += c.idle
			c.start(p, t)
			return
		}
		if v := c.vtimeOf(p); v-t.vtime > c.grain && (victim == nil || v > c.vtimeOf(victim)) {
			victim = p
		}
	}
	if victim != nil && victim.cur.need > 0 {
		old := victim.cur
		c.account(victim)
		c.s.cancel(victim.ev)
		victim.ev = nil
		old.on = nil
		heap.Push(&c.queue, old)
		c.start(victim, t)
		return
	}
	heap.Push(&c.queue, t)
	// Who ran alone until now may have to give way at the end of its slice.
	for i := range c.all {
		if p := &c.all[i]; p.cur != nil && p.cur.need > 0 && (t.pin == 0 || t.pin-1 == i) {
			c.aim(p)
		}
	}
}

func (c *cpus) vtimeOf(p *cpu) float64 { return p.cur.vtime + float64(c.s.now-p.since) }

// account books what p's thread has used so far.
func (c *cpus) account(p *cpu) {
	d := c.s.now - p.since
	p.since = c.s.now
	p.cur.vtime += float64(d)
	p.cur.need -= min(d, p.cur.need)
	c.s.busy += d
}

func (c *cpus) start(p *cpu, t *thread) {
	p.cur, t.on = t, p
	p.since, p.until = c.s.now, c.s.now+c.slice
	c.aim(p)
}

// aim sets p's next event: the end of the burst, or of the slice if others wait.
func (c *cpus) aim(p *cpu) {
	c.account(p)
	c.s.cancel(p.ev)
	at := c.s.now + p.cur.need
	if len(c.queue) > 0 && p.until < at {
		at = max(p.until, c.s.now)
	}
	p.ev = c.s.at(at, p.end)
}

// ended is the end of the burst or of the slice of p's thread.
func (c *cpus) ended(p *cpu) {
	p.ev = nil
	t := p.cur
	c.account(p)
	if t.need == 0 {
		t.then() // may run t again
	}
	next := c.next(p)
	if t.need > 0 && (next < 0 || c.s.now < p.until && t.vtime-c.queue[next].vtime <= c.grain) {
		if c.s.now >= p.until {
			p.until = c.s.now + c.slice
		}
		c.aim(p)
		return
	}
	t.on, p.cur = nil, nil
	if next >= 0 {
		n := c.queue[next]
		heap.Remove(&c.queue, next)
		c.floor = max(c.floor, n.vtime)
		c.start(p, n)
	}
	if t.need > 0 {
		heap.Push(&c.queue, t)
	}
}

// next is the place in the queue of the thread that p runs next, -1 if there is none.
func (c *cpus) next(p *cpu) int {
	best := -1
	for i, t := range c.queue {
		if t.pin > 0 && t.pin-1 != p.index {
			continue
		}
		if i == 0 {
			return 0
		}
		if best < 0 || t.vtime < c.queue[best].vtime {
			best = i
		}
	}
	return best
}

// threadHeap has the thread that has had least first.
type threadHeap []*thread

func (h threadHeap) Len() int           { return len(h) }
func (h threadHeap) Less(i, j int) bool { return h[i].vtime < h[j].vtime }
func (h threadHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *threadHeap) Push(x any)        { *h = append(*h, x.(*thread)) }
func (h *threadHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	*h = old[:len(old)-1]
	return t
}
