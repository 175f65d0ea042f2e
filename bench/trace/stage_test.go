package trace

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Every call's stages are seen, and add up to the target's cycle.
func TestStagesAddUp(t *testing.T) {
	needTracing(t)
	const threads, calls = 12, 300
	for _, c := range []struct {
		name string
		s    *supervisor
	}{
		{"inline", &supervisor{}},
		{"queue", &supervisor{workers: 2, queue: 64, work: spin(20 * time.Microsecond)}},
		{"overload", &supervisor{workers: 2, queue: 2, work: untilDrop}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newTargets(t, threads, calls, true)
			tr := newTracer(t, Config{TGID: os.Getpid(), Explain: true}, btfVariant)
			supervise(t, g, c.s)
			r := report(t, tr)
			if err := compareCounts(r, c.s); err != nil {
				t.Error(err)
			}
			seen := r.Stages[StageCycle].Count
			// A target that is killed, or that never slept, cannot be joined.
			if seen+r.Unjoined+r.Broken != r.Answered || seen < r.Answered*9/10 {
				t.Errorf("%d calls in stages (%d unjoined, %d broken) of %d answered", seen, r.Unjoined, r.Broken, r.Answered)
			}
			var sum, cycle int64
			for s, h := range r.Stages {
				switch {
				case !Stage(s).Part():
				case Stage(s) == stageExecute:
					if h.Count != 0 {
						t.Errorf("%d calls continued", h.Count)
					}
				case Stage(s) == StageWait:
					if want := c.s.workers > 0; want != (h.Count == seen) {
						t.Errorf("%d waits of %d calls", h.Count, seen)
					}
				case h.Count != seen:
					t.Errorf("%v: %d calls, not %d", Stage(s), h.Count, seen)
				}
				if Stage(s).Part() {
					sum += h.Sum
				}
			}
			if cycle = r.Stages[StageCycle].Sum; sum != cycle {
				t.Errorf("stages take %d ns, cycles %d", sum, cycle)
			}
			if r.Slowest == nil {
				t.Fatal("no slowest call")
			}
			if end := r.Slowest.Total(); end < time.Duration(r.Stages[stageRoundTrip].Max) {
				t.Errorf("the slowest call took %v, the longest round trip %v: %+v", end, time.Duration(r.Stages[stageRoundTrip].Max), *r.Slowest)
			}
			for _, p := range r.Slowest.Causes {
				if p.Time < 0 {
					t.Errorf("%s: %v", p.Name, p.Time)
				}
			}
			t.Logf("slowest: %+v; awake %d", *r.Slowest, r.Awake)
		})
	}
}

// What the stages add up to is the time that the targets themselves measured, of
// the same calls: within bounds that hold however busy the machine is.
func TestStagesAddUpToTheTargetsTime(t *testing.T) {
	needTracing(t)
	for _, threads := range []int{1, 16, 64} {
		for _, s := range []*supervisor{{}, {workers: 2, queue: 64, work: spin(20 * time.Microsecond)}} {
			t.Run(fmt.Sprintf("targets=%d/workers=%d", threads, s.workers), func(t *testing.T) {
				g := newTargets(t, threads, 3200/threads, true)
				tr := newTracer(t, Config{TGID: os.Getpid(), Stages: true}, btfVariant)
				supervise(t, g, s)
				took, err := g.took()
				if err != nil {
					t.Fatal(err)
				}
				r := report(t, tr)
				parts, _ := r.Sum()
				n := r.Stages[StageCycle].Count
				sum := time.Duration(parts * float64(n))
				t.Logf("stages of %d calls: %v, by the targets' clocks: %v (%+.2f%%), from first to last answer: %v",
					n, sum, took.Most, 100*(float64(sum)/float64(took.Most)-1), took.Least)
				// Where CPUs poll for work, or are emulated, an answer may come before its target slept.
				without := 3200/uint64(threads)*uint64(threads) - n
				if without != r.Unjoined || without > n/100+r.unwoken {
					t.Errorf("%d calls in stages, %d unjoined, of which %d unwoken, %d broken, %d missed", n, r.Unjoined, r.unwoken, r.Broken, r.Missed)
				}
				// Two CPUs' clocks may differ a little.
				slack := took.Most / 1000
				if sum < took.Least-slack-took.Least/time.Duration(n)*time.Duration(without) || sum > took.Most+slack {
					t.Errorf("stages take %v, the targets took between %v and %v", sum, took.Least, took.Most)
				}
			})
		}
	}
}

// Whatever the CPUs' clocks say of the order, the causes add up to the total.
func TestCausesAddUp(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	near := func(v uint64) uint64 {
		if rnd.IntN(8) == 0 {
			return 0
		}
		return v + rnd.Uint64N(300) - 100
	}
	usage := func() uint64 {
		if rnd.IntN(4) == 0 {
			return unknown
		}
		return rnd.Uint64N(400)
	}
	for range 20000 {
		w := kernelSlow{Trapped: 1000, Received: 1000 + rnd.Uint64N(300)}
		w.Answered = w.Received + rnd.Uint64N(300)
		w.End = w.Answered + rnd.Uint64N(300)
		w.Dispatched, w.Woken, w.Ran = near(w.Received), near(w.Answered), near(w.Answered)
		w.ReceiverRan, w.ReceiverEntered, w.ReceiverOff, w.ReceiverWoken = near(1000), near(1000), near(1000), near(1000)
		w.ReceiverBusy, w.ReceiverWait, w.HandlerBusy, w.HandlerWait = usage(), usage(), usage(), usage()
		w.Ran, w.Woken, w.Dispatched = min(w.Ran, w.End), min(w.Woken, w.End), min(w.Dispatched, w.Answered)
		w.Total = w.End - w.Trapped
		if w.Total == 0 {
			continue
		}
		c := slowest([]kernelSlow{w})
		if c.Total() != time.Duration(w.Total) {
			t.Fatalf("%+v add up to %v, not %d: %+v", c.Causes, c.Total(), w.Total, w)
		}
		for _, p := range c.Causes {
			if p.Time < 0 {
				t.Fatalf("%+v: %+v", c.Causes, w)
			}
		}
	}
}

// One in n is followed, whole, and the rest is counted.
func TestSampling(t *testing.T) {
	needTracing(t)
	const threads, calls, n = 4, 2000, 8
	g := newTargets(t, threads, calls, true)
	tr := newTracer(t, Config{TGID: os.Getpid(), Stages: true, Sample: n}, btfVariant)
	s := &supervisor{}
	supervise(t, g, s)
	r := report(t, tr)
	if r.Seen != s.received.Load() {
		t.Errorf("saw %d of %d calls", r.Seen, s.received.Load())
	}
	// By chance: 30 more or fewer are one standard deviation.
	if r.Received < threads*calls/n*8/10 || r.Received > threads*calls/n*12/10 {
		t.Errorf("followed %d of %d, want one in %d", r.Received, r.Seen, n)
	}
	if r.Received != r.Answered+r.Stale || r.Unmatched != 0 || r.Stages[StageCycle].Count < r.Answered*9/10 {
		t.Errorf("received %d, answered %d, stale %d, unmatched %d, in stages %d", r.Received, r.Answered, r.Stale, r.Unmatched, r.Stages[StageCycle].Count)
	}
}

// orphans counts the rows that belong to a thread which is no more: what others on the
// machine have is theirs for as long as they live.
func orphans(t *testing.T, tr *Tracer) (n int) {
	t.Helper()
	var k uint32
	var row kernelThread
	for all := tr.coll.Maps[kernelMapRows].Iterate(); all.Next(&k, &row); {
		if row.Owner != 0 && unix.Kill(int(row.Pid), 0) == unix.ESRCH {
			n++
		}
	}
	return n
}

// Threads whose row belongs to another are followed all the same.
func TestDisplacedThreads(t *testing.T) {
	needTracing(t)
	const threads, calls = 8, 200
	for _, sample := range []int{1, 4} {
		g := newTargets(t, threads, calls, true)
		tr := newTracer(t, Config{TGID: os.Getpid(), Explain: true, Sample: sample}, btfVariant)
		rows := tr.coll.Maps[kernelMapRows]
		for k := range rows.MaxEntries() {
			if err := rows.Put(k, kernelThread{Owner: 1}); err != nil {
				t.Fatal(err)
			}
		}
		s := &supervisor{workers: 2, queue: 64}
		supervise(t, g, s)
		r := report(t, tr)
		if sample == 1 {
			if err := compareCounts(r, s); err != nil {
				t.Error(err)
			}
		}
		if n := r.Stages[StageCycle].Count; n+r.Unjoined+r.Broken != r.Answered || n < uint64(threads*calls/sample/2) {
			t.Errorf("sample %d: %d calls in stages (%d unjoined, %d broken) of %d answered", sample, n, r.Unjoined, r.Broken, r.Answered)
		}
		var displacing bool
		if err := tr.coll.Variables[kernelVarDisplacing].Get(&displacing); err != nil || !displacing {
			t.Errorf("nobody was displaced (%v)", err)
		}
	}
}

// Rows are free again when their threads have ended.
func TestRowsAreFreed(t *testing.T) {
	needTracing(t)
	const threads = 100
	tr := newTracer(t, Config{TGID: os.Getpid(), Stages: true}, btfVariant)
	before := orphans(t, tr)
	g := newTargets(t, threads, 20, true)
	supervise(t, g, &supervisor{workers: 2, queue: 64})
	if r := report(t, tr); r.Stages[StageCycle].Count < threads*10 {
		t.Fatalf("%d calls in stages", r.Stages[StageCycle].Count)
	}
	g.stop()
	// Others on the machine may just have ended.
	if after := orphans(t, tr); after > before+threads/2 {
		t.Errorf("%d rows of threads that are no more before, %d after %d threads have ended", before, after, threads)
	}
}

func TestTakeLosesNothing(t *testing.T) {
	needTracing(t)
	g := newTargets(t, 8, 1000, true)
	tr := newTracer(t, Config{TGID: os.Getpid(), Stages: true}, btfVariant)
	s := &supervisor{workers: 1, queue: 16}
	done := make(chan struct{})
	var all *Report
	go func() { supervise(t, g, s); close(done) }()
	for over := false; !over; {
		select {
		case <-done:
			over = true
		case <-time.After(5 * time.Millisecond):
		}
		r, err := tr.Take()
		if err != nil {
			t.Fatal(err)
		}
		if all == nil {
			all = r
		} else {
			all.Merge(r)
		}
	}
	if err := missed(all); err != nil && preemptible() {
		t.Skip(err)
	}
	if err := compareCounts(all, s); err != nil {
		t.Error(err)
	}
	if n, err := tr.InFlight(); n != 0 || err != nil {
		t.Errorf("%d in flight, %v", n, err)
	}
}

func TestOccupancy(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var o Occupancy
	if m, _ := o.Mean(); !math.IsNaN(m) {
		t.Error("a mean of nothing")
	}
	n := 10
	for range 20000 { // a random walk between 5 and 15
		n = min(15, max(5, n+rnd.IntN(3)-1))
		o.Look(n)
	}
	m, e := o.Mean()
	if math.Abs(m-10) > 4*e || e < 0.01 || e > 1 || o.Looks() != 20000 {
		t.Errorf("%v ± %v of %d looks", m, e, o.Looks())
	}
	if !o.Agrees(10) || o.Agrees(13) || o.Agrees(7) {
		t.Error("10 in flight must agree, 13 and 7 must not")
	}
}
