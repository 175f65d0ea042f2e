//go:build ringmodel

package ring

import (
	"fmt"
	"slices"
	"strings"

	"github.com/unknot/unknot/ring/internal/model"
)

// The ring under the model checker. This file is part of package ring, and
// not of its tests, so that the copies of the package into which the tests put
// defects have it too.

// A scenario is a small program over rings of one set.
type scenario struct {
	name    string
	size    int // who runs it: an index of sizes
	caps    []int
	opts    []Option
	start   uint64 // first position
	threads [][]step
}

// A step is one operation of a thread.
type step struct {
	do   byte // p: Push, b: PushWait, d: PushDrop, t: TryPop, w: Pop, W: Pop until 0, L: Len, c: Close, C: Set.Close, r: Done, s: SetRation
	ring int
	n    int  // batch
	futx bool // w, W: ThreadConsumer
}

// parse reads a thread: "p2 d1 W1" is a push of two, a drop-oldest push of one,
// and Pop of one until the ring is closed. A trailing ' means the second ring, a
// trailing f a consumer that sleeps in a futex.
func parse(s string) []step {
	var out []step
	for _, w := range strings.Fields(s) {
		x := step{do: w[0]}
		for _, c := range w[1:] {
			switch {
			case c == '\'':
				x.ring++
			case c == 'f':
				x.futx = true
			default:
				x.n = x.n*10 + int(c-'0')
			}
		}
		out = append(out, x)
	}
	return out
}

func programs(threads ...string) [][]step {
	var out [][]step
	for _, t := range threads {
		out = append(out, parse(t))
	}
	return out
}

var (
	single   = []Option{SingleProducer()}
	light    = []Option{SingleProducer(), AsymmetricFence()}
	rationed = []Option{SingleProducer(), Rationed(1)}
)

// sizes are those of scenarios: seconds in all, a minute each at most, and minutes each.
var sizes = []string{"quick", "night", "large"}

const night, large = 1, 2

var scenarios = []scenario{
	// One producer. Without Close, a lost wake-up shows as a ring that is not
	// empty when nobody can go on.
	{name: "drop", caps: []int{2}, opts: single, threads: programs("p2 d1 d2 p1", "t1 t2")},
	{name: "chain", caps: []int{2}, opts: single, threads: programs("p2", "w1", "w1")},
	{name: "futex", caps: []int{1}, opts: single, threads: programs("p1 d1 p1", "W1f")},
	{name: "wrap", caps: []int{3}, opts: single, start: ^uint64(1), threads: programs("p2 d2 d1 p1", "W2")},
	{name: "len", caps: []int{1}, opts: single, threads: programs("p1 d1 d1", "t1 t1", "L L")},
	// Several producers exclude each other.
	{name: "producers2", caps: []int{2}, threads: programs("d1", "p1", "W1")},
	{name: "closers", caps: []int{2}, threads: programs("d1 d1", "c", "W1")},
	// Two rings, one set of consumers.
	{name: "set", caps: []int{1, 1}, opts: single, threads: programs("p1 d1", "p1'", "W1")},
	{name: "setclose", caps: []int{1, 1}, threads: programs("p1 p1' C", "W1")},
	// Producers that wait for room.
	{name: "room", caps: []int{1}, opts: single, threads: programs("b1 b1 b1", "w1 w1 w1")},
	{name: "roomhalf", caps: []int{2}, opts: single, threads: programs("b2 b2", "t1 t1 t1")},
	{name: "roomproducers", caps: []int{2}, threads: programs("b2 b1", "b1", "t2")},
	{name: "roomdrop", caps: []int{2}, opts: []Option{EvictAtLeast(2)}, threads: programs("b2 b1", "d1 d1")},
	{name: "roomclose", caps: []int{1}, threads: programs("b2 b1", "c", "t1")},
	{name: "roomwrap", caps: []int{2}, opts: single, start: ^uint64(1), threads: programs("b2 b2 b1", "W1")},
	{name: "lightroom", caps: []int{1}, opts: light, threads: programs("b1 b1 b1", "W1")},
	// A light fence for producers, and a heavy one for consumers.
	{name: "lightdrop", caps: []int{2}, opts: light, threads: programs("p2 d1 d2 p1", "t1 t2")},
	{name: "lightchain", caps: []int{2}, opts: light, threads: programs("p2", "w1", "w1")},
	{name: "lightclose", caps: []int{2}, opts: light, threads: programs("p1 p1 c", "W1")},
	{name: "lightfutex", caps: []int{1}, opts: light, threads: programs("p1 d1 p1", "W1f")},
	{name: "lightlen", caps: []int{2}, opts: light, threads: programs("p1 p1 d1", "t1", "L L")},
	// Batches that are given back. Who has one must, or others sleep for good.
	{name: "ration", caps: []int{2}, opts: rationed, threads: programs("p2", "w1 r", "w1 r")},
	{name: "rationempty", caps: []int{1}, opts: rationed, threads: programs("p1 p1", "t1", "w1 r")},
	// Longer ones come later, so that mutants are caught by others.
	{name: "set2", caps: []int{1, 1}, opts: single, threads: programs("p1 p1'", "w1", "w1")},
	{name: "futex2", caps: []int{2}, opts: single, threads: programs("p2", "W1f", "W1")},
	{name: "quantum", caps: []int{3}, opts: []Option{SingleProducer(), EvictAtLeast(2)}, threads: programs("p3 d1 d1", "t1 t2", "t1")},
	{name: "rationraised", caps: []int{2}, opts: rationed, threads: programs("p2 s2", "w1", "w1")},
	{name: "mixed", size: night, caps: []int{2}, opts: single, threads: programs("p1 d2", "W1", "t2 t1")},
	{name: "close", size: night, caps: []int{2}, opts: single, threads: programs("p1 c", "W1", "W1")},
	{name: "producers", size: night, caps: []int{1}, threads: programs("d1 p1", "d1", "W1")},
	{name: "lightset", size: night, caps: []int{1, 1}, opts: light, threads: programs("p1 d1", "p1'", "W1")},
	{name: "lightpark", size: night, caps: []int{2}, opts: light, threads: programs("p1 p1 d1", "W1", "t1")},
	{name: "park", size: night, caps: []int{2}, opts: single, threads: programs("p2 d1", "W1", "W2")},

	{name: "ration2", size: large, caps: []int{2}, opts: rationed, threads: programs("p1 p1", "w1 r w1 r", "w1 r")},
	{name: "rationset", size: large, caps: []int{1, 1}, opts: rationed, threads: programs("p1 p1'", "w1 r", "w1 r w1 r")},
	{name: "rationclose", size: large, caps: []int{2}, opts: rationed, threads: programs("p2 c", "w1 r w1", "w1 r w1")},
	{name: "park3", size: large, caps: []int{2}, opts: single, threads: programs("p2 d1", "W1", "W1", "W2")},
	{name: "park5", size: large, caps: []int{2}, opts: single, threads: programs("p1 p2 d1 d2", "W1", "W2")},
	{name: "mixed3", size: large, caps: []int{2}, opts: single, threads: programs("p2 d1 d2", "W1", "t2 t1")},
	{name: "close3", size: large, caps: []int{2}, opts: single, threads: programs("p2 d1 c", "W1", "W1")},
	{name: "futex3", size: large, caps: []int{1}, opts: single, threads: programs("p1 d1 p1", "W1f", "W1")},
	{name: "producers3", size: large, caps: []int{2}, threads: programs("d1 p2", "p1 d2", "W1")},
	{name: "set22", size: large, caps: []int{1, 1}, opts: single, threads: programs("p1", "p1'", "W1", "W1")},
	{name: "set3", size: large, caps: []int{1, 2}, opts: single, threads: programs("p1 d1", "p1' d1'", "W1", "W1")},
	{name: "room3", size: large, caps: []int{2}, opts: single, threads: programs("b2 b2 b1", "W1", "W2")},
	{name: "roomproducers3", size: large, caps: []int{1}, threads: programs("b1 b1", "b1", "w1 w1")},
	{name: "lightpark2", size: large, caps: []int{2}, opts: light, threads: programs("p2 d1", "W1", "W2")},
	{name: "lightset22", size: large, caps: []int{1, 1}, opts: light, threads: programs("p1", "p1'", "W1", "W1")},
	{name: "cap4", size: large, caps: []int{4}, opts: single, threads: programs("p3 d2 d4", "W2", "t3 t3")},
}

// ModelScenarios lists the scenarios of a size, and of those below.
func ModelScenarios(size string) []string {
	var names []string
	for _, s := range scenarios {
		if s.size <= slices.Index(sizes, size) {
			names = append(names, s.name)
		}
	}
	return names
}

// ModelCheck runs one scenario through all its schedules.
func ModelCheck(name string, limit int) (model.Result, error) {
	i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name })
	if i < 0 {
		return model.Result{}, fmt.Errorf("no scenario %q", name)
	}
	return model.Check(scenarios[i].setup, limit)
}

// ghost is what the checker knows about a ring beyond the ring's own words.
type ghost struct {
	r    *Ring[uint64]
	ids  map[uint64]uint64 // what was pushed at a position
	late map[uint64]uint64 // lags: what will be, when the store takes effect
}

// lags reports whether a push may take effect after its end. (Where there are
// several producers, letting go of the lock ends that.)
func (g *ghost) lags() bool { return g.r.calm == calm }

func (g *ghost) len() uint64 { return g.r.tail.Peek() - g.r.head.Peek() }

// tail is where the producer puts the next entry, whatever has taken effect.
func (g *ghost) tail() uint64 {
	if g.lags() {
		return g.r.next
	}
	return g.r.tail.Peek()
}

// actor is what the checker knows about a thread.
type actor struct {
	t       *model.Thread
	c       *Consumer[uint64]
	src     []uint64 // what it is pushing
	sent    uint64   // how much of it is in the ring
	do      byte     // what it is doing
	busy    bool     // it is in an operation
	ring    int      // of the operation
	hand    *ghost   // the ring of which it has a batch to give back
	claimed []uint64 // what its claims in this operation make it the owner of
	empty   bool     // TryPop: the ring was empty at one instant of the operation
	free    uint64   // Push: the least room there was during the operation
	lens    uint64   // Len: bit set of the lengths there were during the operation
}

func (sc *scenario) setup() *model.Program {
	set := NewSet[uint64]()
	var rings []*ghost
	l := &set.lot
	l.nwait.Register("nwait")
	l.closed.Register("closed")
	l.mu.Register("lot.mu")
	for i, c := range sc.caps {
		r := set.Add(c, sc.opts...)
		if len(sc.caps) == 1 {
			r.owned = true
		}
		r.startAt(sc.start)
		g := &ghost{r: r, ids: map[uint64]uint64{}, late: map[uint64]uint64{}}
		r.head.Register(fmt.Sprint("head", i))
		r.tail.Register(fmt.Sprint("tail", i))
		r.pmu.Register(fmt.Sprint("pmu", i))
		r.gate.resume.Register(fmt.Sprint("resume", i))
		r.gate.mu.Register(fmt.Sprint("gate.mu", i))
		r.gate.tok.Register(fmt.Sprint("producer", i))
		if r.rationed {
			r.ration.max.Register(fmt.Sprint("ration", i))
			r.ration.out.Register(fmt.Sprint("out", i))
		}
		for j := range r.slots.w {
			r.slots.w[j].Register(fmt.Sprint("slot", i, ".", j))
		}
		rings = append(rings, g)
	}
	actors := make([]*actor, len(sc.threads))
	for i := range actors {
		actors[i] = new(actor)
	}
	current := func() *actor { return actors[model.Current().ID] }

	// The abstract ring: a write of the tail pushes, a write of the head claims,
	// and whoever writes answers for it.
	for i, g := range rings {
		r := g.r
		r.tail.Write = func(old, new uint64) {
			a := current()
			if g.lags() {
				// The operation may be over; run looks at what it stored.
			} else if new-old > uint64(len(a.src))-a.sent || a.ring != i || !a.busy {
				a.t.Fail("moves the tail by %d", int64(new-old))
				return
			}
			if l.closed.Peek() != 0 {
				a.t.Fail("pushes when consumers have been told that nothing more comes")
			}
			if new-r.head.Peek() > r.limit {
				a.t.Fail("overfills the ring")
			}
			for p := old; p != new; p++ {
				if g.lags() {
					g.ids[p] = g.late[p]
				} else {
					g.ids[p] = a.src[a.sent+p-old]
				}
			}
			if !g.lags() {
				a.sent += new - old
			}
		}
		r.head.Write = func(old, new uint64) {
			a := current()
			if new-old > r.tail.Peek()-old || new == old {
				a.t.Fail("moves the head by %d with %d entries in the ring", int64(new-old), r.tail.Peek()-old)
				return
			}
			if a.src != nil {
				// An eviction is as small as possible.
				free := r.limit - g.len() - (new - old)
				n := uint64(len(a.src))
				if want := min(max(n-min(free, n), r.quantum), r.tail.Peek()-old); a.do != 'd' || free >= n || new-old != want {
					a.t.Fail("evicts %d, not %d", new-old, want)
				}
			}
			for p := old; p != new; p++ {
				a.claimed = append(a.claimed, g.ids[p])
				delete(g.ids, p)
			}
		}
	}
	observe := func() {
		for _, a := range actors {
			if !a.busy {
				continue
			}
			g := rings[a.ring]
			switch a.do {
			case 'p':
				a.free = min(a.free, g.r.limit-(g.tail()-g.r.head.Peek()))
			case 't':
				a.empty = a.empty || g.len() == 0
			case 'L':
				a.lens |= 1 << g.len()
			}
		}
	}

	p := &model.Program{}
	var consumers []*Consumer[uint64]
	id := uint64(0)
	for i, steps := range sc.threads {
		a := actors[i]
		var private func() uint64
		for _, x := range steps {
			if (x.do == 'W' || x.do == 'w') && a.c == nil {
				a.c = set.consumer(x.futx)
				a.c.w.tok.Register(fmt.Sprint("consumer", i))
				a.c.w.word.Register(fmt.Sprint("word", i))
				consumers = append(consumers, a.c)
			}
		}
		private = func() uint64 {
			if a.c == nil {
				return 0
			}
			return model.Mix(a.c.seen, uint64(a.c.turn))
		}
		base := id
		for _, x := range steps {
			if x.do == 'p' || x.do == 'd' {
				id += uint64(x.n)
			}
		}
		p.Threads = append(p.Threads, func(t *model.Thread) {
			a.t = t
			id := base
			for n, x := range steps {
				id = a.run(t, n, x, rings, set, id, private, observe)
			}
		})
	}

	p.Plain = func() uint64 {
		h := uint64(l.n)
		// Bounded, since a defective lot may be a circle.
		for w, n := l.top, 0; w != nil && n <= len(consumers); w, n = w.next, n+1 {
			for i, c := range consumers {
				if &c.w == w {
					h = model.Mix(h, uint64(i)+1)
				}
			}
		}
		for _, c := range consumers {
			h = model.Mix(h, c.seen)
			h = model.Mix(h, uint64(c.turn))
			for i, g := range rings {
				if g.r == c.from {
					h = model.Mix(h, uint64(i)+1)
				}
			}
		}
		for _, g := range rings {
			r := g.r
			h = model.Mix(h, r.next)
			h = model.Mix(h, r.end)
			h = model.Mix(h, r.strong)
			if r.shut {
				h++
			}
		}
		return h
	}
	p.Extra = func() uint64 {
		h := uint64(0)
		for _, g := range rings {
			r := g.r
			for p := r.head.Peek(); p != r.tail.Peek(); p++ {
				h = model.Mix(h, g.ids[p])
			}
		}
		for _, a := range actors {
			for i, g := range rings {
				if a.hand == g {
					h = model.Mix(h, uint64(i)+1)
				}
			}
			if !a.busy {
				continue
			}
			h = model.Mix(h, a.sent)
			h = model.Mix(h, a.free)
			h = model.Mix(h, a.lens)
			for _, id := range a.claimed {
				h = model.Mix(h, id)
			}
			if a.empty {
				h++
			}
		}
		return h
	}
	p.Step = func() error {
		observe()
		for _, g := range rings {
			if g.len() > g.r.limit {
				return fmt.Errorf("head %d, tail %d, capacity %d", g.r.head.Peek(), g.r.tail.Peek(), g.r.limit)
			}
			if out, most := g.r.ration.out.Peek(), g.r.ration.max.Peek(); g.r.rationed && out > most {
				return fmt.Errorf("%d batches out, %d at most", out, most)
			}
			hands := uint64(0)
			for _, a := range actors {
				if a.hand == g {
					hands++
				}
			}
			if g.r.rationed && hands > g.r.ration.out.Peek() {
				return fmt.Errorf("%d batches in hands, %d counted", hands, g.r.ration.out.Peek())
			}
		}
		if !l.mu.Held() && l.nwait.Peek()&^fenced != uint64(l.n) {
			return fmt.Errorf("nwait is %#x with %d sleepers", l.nwait.Peek(), l.n)
		}
		return nil
	}
	p.End = func() error {
		closed := l.closed.Peek() != 0
		for i, a := range actors {
			switch {
			case a.t.Done():
			case a.t.Blocks != "sleep" && !strings.HasPrefix(a.t.Blocks, "gate"): // at a gate one waits behind the other
				return fmt.Errorf("deadlock: thread %d waits for %s", i, a.t.Blocks)
			case closed:
				return fmt.Errorf("thread %d sleeps after Close", i)
			case a.do == 'b':
				// The gate opens when half of the ring is free.
				if g := rings[a.ring]; g.len() <= g.r.limit/2 {
					return fmt.Errorf("lost wake-up: thread %d waits for room with %d of %d places taken", i, g.len(), g.r.limit)
				}
			default:
				for _, g := range rings {
					if g.len() != 0 {
						return fmt.Errorf("lost wake-up: thread %d sleeps with %d entries in the ring", i, g.len())
					}
				}
			}
		}
		return nil
	}
	return p
}

// run performs one operation and compares its result with the specification.
func (a *actor) run(t *model.Thread, n int, x step, rings []*ghost, set *Set[uint64], id uint64, private func() uint64, observe func()) uint64 {
	r := rings[x.ring].r
	for {
		t.Op(n, private())
		a.busy, a.ring, a.do, a.src, a.sent, a.claimed = true, x.ring, x.do, nil, 0, a.claimed[:0]
		a.free, a.lens, a.empty = r.limit, 0, false
		observe()
		again := false
		switch x.do {
		case 'p', 'b', 'd':
			a.src = make([]uint64, x.n)
			for i := range a.src {
				id++
				a.src[i] = id
			}
			ev := make([]uint64, max(x.n, int(r.quantum)))
			tail := rings[x.ring].tail()
			for i, id := range a.src {
				rings[x.ring].late[tail+uint64(i)] = id
			}
			switch x.do {
			case 'p':
				got := r.Push(a.src)
				if got < x.n && a.free > uint64(got) && !r.shut {
					t.Fail("Push of %d = %d, but there was always room for %d", x.n, got, a.free)
				}
				if r.single && rings[x.ring].tail() != tail+uint64(got) {
					t.Fail("Push = %d, but appended %d", got, rings[x.ring].tail()-tail)
				}
			case 'b':
				got := r.PushWait(a.src)
				if got < x.n && !r.shut {
					t.Fail("PushWait of %d = %d, but the ring is open", x.n, got)
				}
				if r.single && rings[x.ring].tail() != tail+uint64(got) || !rings[x.ring].lags() && a.sent != uint64(got) {
					t.Fail("PushWait = %d, but appended %d", got, a.sent)
				}
			case 'd':
				a.pushDrop(t, rings[x.ring], ev, tail)
			}
		case 't':
			dst := make([]uint64, x.n)
			k := r.TryPop(dst)
			if !slices.Equal(dst[:k], a.claimed) {
				t.Fail("TryPop = %v, owns %v", dst[:k], a.claimed)
			}
			if k == 0 && !a.empty {
				t.Fail("TryPop = 0, but the ring was never empty")
			}
		case 'w', 'W':
			dst := make([]uint64, x.n)
			k := a.c.Pop(dst)
			if !slices.Equal(dst[:k], a.claimed) {
				t.Fail("Pop = %v, owns %v", dst[:k], a.claimed)
			}
			if k == 0 {
				if set.lot.closed.Peek() == 0 {
					t.Fail("Pop = 0, but the ring is open")
				}
				for i, g := range rings {
					if g.len() != 0 && !g.r.rationed { // else it is left to who has the ration
						t.Fail("Pop = 0 with %d entries left in ring %d", g.len(), i)
					}
				}
			}
			again = x.do == 'W' && k != 0
			if c := a.c.From(); k != 0 && c.rationed {
				for _, g := range rings {
					if g.r == c {
						a.hand = g
					}
				}
			}
		case 'r':
			if a.hand != nil { // else the ring is closed
				h := a.hand
				a.hand = nil
				h.r.Done()
			}
		case 's':
			r.SetRation(x.n)
		case 'L':
			if k := r.Len(); a.lens&(1<<k) == 0 {
				t.Fail("Len = %d, but it never was", k)
			}
		case 'c':
			r.Close()
		case 'C':
			set.Close()
		}
		a.busy = false
		if !again {
			return id
		}
	}
}

// pushDrop is PushDrop of a.src, the ring's tail being at tail.
func (a *actor) pushDrop(t *model.Thread, g *ghost, ev []uint64, tail uint64) {
	n := len(a.src)
	k := g.r.PushDrop(a.src, ev)
	switch {
	case len(a.claimed) == 0 && k == n && slices.Equal(ev[:k], a.src):
		if !g.r.shut {
			t.Fail("an open ring evicts what it is given")
		}
	case !slices.Equal(ev[:k], a.claimed):
		t.Fail("PushDrop evicted %v, owns %v", ev[:k], a.claimed)
	case g.r.single && g.tail() != tail+uint64(n):
		t.Fail("PushDrop appended %d of %d", g.tail()-tail, n)
	}
}
