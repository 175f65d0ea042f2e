package policy

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// A server is workers that always have something to do, and a machine that is told of calls that come.
type server struct {
	m       *Machine
	workers int
	r       *rand.Rand
	now     int64
	free    []int64 // when each worker takes its next call
	taken   uint64
	limits  []float64 // at each call
	service time.Duration
	varies  bool // exponentially
}

func newServer(t *testing.T, target time.Duration, workers, capacity int) *server {
	m := machine(t, Config{Capacity: capacity, WaitTarget: target, Workers: workers})
	return &server{m: m, workers: workers, r: rand.New(rand.NewPCG(1, 2)), free: make([]int64, workers)}
}

// run has calls come, one for each that leaves on average, for that long.
func (s *server) run(d time.Duration) {
	s.limits = s.limits[:0]
	for end := s.now + int64(d); s.now < end; {
		s.now += int64(s.r.ExpFloat64() * float64(s.service) / float64(s.workers))
		for i := range s.free {
			for s.free[i] <= s.now {
				x := float64(s.service)
				if s.varies {
					x *= s.r.ExpFloat64()
				}
				s.free[i] += int64(x)
				s.taken++
			}
		}
		s.m.Look(s.now, s.m.Depth(), s.taken)
		s.limits = append(s.limits, float64(s.m.Depth()))
	}
}

// bound is the depth that the target allows.
func (s *server) bound(target time.Duration) float64 {
	return float64(s.workers)*float64(target)/float64(s.service) + float64(s.workers-1)
}

func TestLimitIsWithinTheBound(t *testing.T) {
	for _, c := range []struct {
		target, service time.Duration
		workers         int
		varies          bool
	}{
		{time.Millisecond, 50 * time.Microsecond, 2, false}, {time.Millisecond, 50 * time.Microsecond, 2, true},
		{time.Millisecond, 5 * time.Microsecond, 2, true}, {20 * time.Millisecond, time.Millisecond, 1, true},
		{20 * time.Millisecond, 500 * time.Microsecond, 8, false}, {time.Second, 20 * time.Millisecond, 4, true},
	} {
		s := newServer(t, c.target, c.workers, 1024)
		s.service, s.varies = c.service, c.varies
		s.run(max(50*time.Millisecond, 40*c.service))
		s.run(max(500*time.Millisecond, 200*c.service))
		// What was measured is off by chance, and the limit follows it a little late.
		bound := s.bound(c.target)
		sum, squares := 0., 0.
		for _, x := range s.limits {
			if x > 1.25*bound+1 {
				t.Fatalf("%+v: a limit of %v, the bound is %.1f", c, x, bound)
			}
			sum += x
			squares += x * x
		}
		n := float64(len(s.limits))
		mean := sum / n
		cv := math.Sqrt(max(0, squares/n-mean*mean)) / mean
		l := s.m.Limit()
		t.Logf("%+v: bound %.1f, limit %.1f on average, CV %.2f; service %v, changed %d times", c, bound, mean, cv, l.Service, l.Changes)
		if least := bound * .55; mean > bound || mean < least {
			t.Errorf("%+v: limits of %.1f on average, want %.1f to %.1f", c, mean, least, bound)
		}
		if cv > .2 {
			t.Errorf("%+v: it oscillates: CV %.2f", c, cv)
		}
		if !c.varies && l.Changes > 10 {
			t.Errorf("%+v: changed %d times", c, l.Changes)
		}
		if off := float64(l.Service) / float64(c.service); off < .6 || off > 1.6 {
			t.Errorf("%+v: service %v", c, l.Service)
		}
	}
}

// After a step the limit is what it would be without a past, within 50 ms or 20 services, whichever is more.
func TestLimitFollowsTheService(t *testing.T) {
	for _, varies := range []bool{false, true} {
		for _, from := range []time.Duration{20 * time.Microsecond, 100 * time.Microsecond, 400 * time.Microsecond, 4 * time.Millisecond} {
			for _, factor := range []float64{4, .25, 1.5} {
				const target = 40 * time.Millisecond
				to := time.Duration(float64(from) * factor)
				if to > 8*time.Millisecond {
					continue
				}
				s := newServer(t, target, 2, 1<<16)
				s.service, s.varies = from, varies
				s.run(max(300*time.Millisecond, 100*from))
				s.service = to
				s.run(max(50*time.Millisecond, 20*to))
				fresh := newServer(t, target, 2, 1<<16)
				fresh.service, fresh.varies = to, varies
				fresh.run(max(300*time.Millisecond, 100*to))
				got, want := float64(s.m.Depth()), float64(fresh.m.Depth())
				near := .15
				if varies && to >= time.Millisecond {
					near = .6 // of some 40 calls
				}
				if math.Abs(math.Log(got/want)) > near {
					t.Errorf("%v to %v, varies %v: limit %v, want about %v (service %v)", from, to, varies, got, want, s.m.Limit().Service)
				}
			}
		}
	}
}

// A step by much shows in what few calls take, and the window forgets what was before.
func TestLimitSeesStepsAtOnce(t *testing.T) {
	for _, factor := range []float64{8, 1. / 8} {
		s := newServer(t, 40*time.Millisecond, 2, 1<<16)
		s.service = 200 * time.Microsecond
		s.run(300 * time.Millisecond)
		s.service = time.Duration(float64(s.service) * factor)
		s.run(30 * time.Millisecond)
		if off := float64(s.m.Depth()) / s.bound(40*time.Millisecond); off < .6 || off > 1.2 {
			t.Errorf("by %v: limit %d after 30 ms, the bound is %.1f", factor, s.m.Depth(), s.bound(40*time.Millisecond))
		}
	}
}

// While callers are rare nothing says how fast workers would be, and the limit stays.
func TestLimitStaysWhileWorkersIdle(t *testing.T) {
	s := newServer(t, time.Millisecond, 2, 1024)
	s.service = 20 * time.Microsecond
	s.run(100 * time.Millisecond)
	was := s.m.Limit()
	for range 10000 {
		s.now += int64(time.Millisecond)
		s.taken++
		s.m.Look(s.now, 0, s.taken)
	}
	if is := s.m.Limit(); is != was {
		t.Errorf("calls that wait for nobody: %+v, was %+v", is, was)
	}
}

// Workers that were slow, and now find nothing to do for want of depth, raise it by how much they do.
func TestLimitRisesFromTheFloor(t *testing.T) {
	s := newServer(t, time.Millisecond, 2, 1024)
	s.service = 5 * time.Millisecond
	s.run(300 * time.Millisecond)
	if d := s.m.Depth(); d != 2 {
		t.Fatalf("limit %d with a service of five targets, want one call for each worker", d)
	}
	for range 1000 { // always found empty
		s.now += int64(25 * time.Microsecond)
		s.taken++
		s.m.Look(s.now, 0, s.taken)
	}
	if l := s.m.Limit(); l.Depth < 20 {
		t.Errorf("40000 calls leave in a second, and the limit is %+v", l)
	}
}

func TestLimitAllocatesNothing(t *testing.T) {
	s := newServer(t, time.Millisecond, 2, 1024)
	s.service, s.varies = 50*time.Microsecond, true
	s.run(100 * time.Millisecond)
	s.limits = make([]float64, 0, 1<<20)
	if n := testing.AllocsPerRun(100, func() { s.run(time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations in a millisecond of calls", n)
	}
}

// Whatever comes, one call waits for each worker, the queue has room for what is let in, and no more than the
// limit waits once calls come.
func TestLimitInAnyStorm(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 3))
		cfg := Config{Kind: Kind(r.IntN(3)), Capacity: 1 + r.IntN(200), WaitTarget: time.Duration(1 + r.IntN(int(10*ms))), Workers: 1 + r.IntN(8), Batch: 0}
		if r.IntN(3) == 0 {
			cfg.Batch = 1 + r.IntN(cfg.Capacity)
		}
		m := machine(t, cfg)
		var now int64
		depth, taken := 0, uint64(0)
		for range 5000 {
			now += int64(r.ExpFloat64() * float64(ms) * math.Pow(10, float64(r.IntN(4))-3))
			if n := r.IntN(depth + 1); r.IntN(2) == 0 {
				depth -= n
				taken += uint64(n)
			}
			m.Look(now, depth, taken)
			limit := m.Depth()
			if limit < min(cfg.Workers, cfg.Capacity) || limit > cfg.Capacity {
				t.Fatalf("seed %d: limit %d, %d workers, capacity %d", seed, limit, cfg.Workers, cfg.Capacity)
			}
			if cfg.Kind == Block && depth >= cfg.Capacity {
				continue // it rests
			}
			before := depth
			admit, evict := m.Arrive(depth)
			if evict > depth || evict > m.cfg.MaxEvict() {
				t.Fatalf("seed %d: evicts %d of %d", seed, evict, depth)
			}
			if admit {
				depth += 1 - evict
			}
			switch {
			case depth > cfg.Capacity:
				t.Fatalf("seed %d: %d wait, the capacity is %d", seed, depth, cfg.Capacity)
			case cfg.Kind == DropOldest && depth > limit && depth >= before:
				t.Fatalf("seed %d: %d wait and %d did, the limit is %d", seed, depth, before, limit)
			case depth < min(before, cfg.Workers, limit):
				t.Fatalf("seed %d: an overflow leaves %d of %d for %d workers, the limit is %d", seed, depth, before, cfg.Workers, limit)
			case cfg.Kind == Block && !admit:
				t.Fatalf("seed %d: block drops", seed)
			}
			if m.Rests(depth) && m.Resumes(depth) {
				t.Fatalf("seed %d: rests and resumes at a depth of %d, the limit is %d", seed, depth, limit)
			}
		}
	}
}

func TestBadTargets(t *testing.T) {
	for _, c := range []Config{{Capacity: 4, WaitTarget: -1, Workers: 1}, {Capacity: 4, WaitTarget: 1}} {
		if c.Fill() == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}
