package record

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

type heapOf []int64

func (h heapOf) Len() int           { return len(h) }
func (h heapOf) Less(i, j int) bool { return h[i] < h[j] }
func (h heapOf) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *heapOf) Push(x any)        { *h = append(*h, x.(int64)) }
func (h *heapOf) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

// newServers has c workers serve calls in the order in which they come, for exponential
// times, and returns when each call is answered.
func newServers(c int, service float64, r *rand.Rand) func(at int64) (dispatch, end int64) {
	free := make(heapOf, c)
	return func(at int64) (int64, int64) {
		start := max(at, heap.Pop(&free).(int64))
		end := start + int64(r.ExpFloat64()*service)
		heap.Push(&free, end)
		return start, end
	}
}

// closed is a recording of n threads that think for an exponential time.
func closed(n, workers int, think, service float64, calls int) *Recording {
	r := rand.New(rand.NewPCG(3, 4))
	serve := newServers(workers, service, r)
	next := make([]int64, n)
	for i := range next {
		next[i] = int64(r.ExpFloat64() * think)
	}
	rec := &Recording{CPUs: 2, Threads: n, Syscalls: []Syscall{{1, 1}}}
	for range calls {
		t := 0
		for i := range next {
			if next[i] < next[t] {
				t = i
			}
		}
		at := next[t]
		start, end := serve(at)
		rec.Calls = append(rec.Calls, Call{Arrival: at, Wait: start - at, Service: end - start, Thread: int32(t), Dispatch: Checked, Trapped: true})
		next[t] = end + int64(r.ExpFloat64()*think)
	}
	rec.Elapsed = time.Duration(rec.Calls[calls-1].Arrival + 1)
	return rec
}

// open is a recording of Poisson arrivals, in bursts if burst is above 1: then
// all calls come in the first part of each 10 ms.
func open(rate float64, burst float64, workers int, service float64, calls int) *Recording {
	r := rand.New(rand.NewPCG(5, 6))
	serve := newServers(workers, service, r)
	rec := &Recording{CPUs: 2, Threads: 500, Syscalls: []Syscall{{1, 1}}}
	at := 0.
	for i := range calls {
		at += r.ExpFloat64() * 1e9 / (rate * burst)
		if on := 1e7 / burst; math.Mod(at, 1e7) > on {
			at = (math.Floor(at/1e7) + 1) * 1e7
		}
		start, end := serve(int64(at))
		rec.Calls = append(rec.Calls, Call{Arrival: int64(at), Wait: start - int64(at), Service: end - start, Thread: int32(i % 500), Dispatch: Checked, Trapped: true})
	}
	rec.Elapsed = time.Duration(at + 1)
	return rec
}

func TestFeedbackTellsClosedFromOpenLoops(t *testing.T) {
	for _, c := range []struct {
		name string
		rec  *Recording
		want Loop
	}{
		{"one thread", closed(1, 2, 20e3, 10e3, 20000), ClosedLoop},
		{"16 threads that hardly think", closed(16, 2, 100, 10e3, 20000), ClosedLoop},
		{"16 threads, half busy", closed(16, 2, 160e3, 10e3, 20000), ClosedLoop},
		{"256 threads, overload", closed(256, 2, 100e3, 10e3, 50000), ClosedLoop},
		{"poisson, light", open(20e3, 1, 2, 10e3, 20000), openLoop},
		{"poisson, heavy", open(180e3, 1, 2, 10e3, 50000), openLoop},
		{"bursts", open(50e3, 3, 2, 10e3, 50000), openLoop},
		{"few calls", open(50e3, 1, 2, 10e3, callsToTell-1), Unclear},
	} {
		if f := c.rec.Feedback(); f.Loop != c.want {
			t.Errorf("%s: %v (%.2f ± %.2f), want %v", c.name, f.Loop, f.Fall, f.Err, c.want)
		}
	}
}

func TestLittlesLaw(t *testing.T) {
	for name, r := range map[string]*Recording{"closed": closed(16, 2, 50e3, 10e3, 20000), "open": open(100e3, 2, 2, 15e3, 20000)} {
		f := r.InFlight()
		var sum, time int64
		for i := range r.Calls {
			c := &r.Calls[i]
			sum += min(c.Arrival+c.Response(), int64(r.Elapsed)) - c.Arrival
		}
		arrivals := int64(0)
		for k := range f.Time {
			time += f.Time[k]
			arrivals += f.Arrivals[k]
		}
		if time != int64(r.Elapsed) || arrivals != int64(len(r.Calls)) {
			t.Errorf("%s: %d ns of %d, %d arrivals of %d", name, time, r.Elapsed, arrivals, len(r.Calls))
		}
		if want := float64(sum) / float64(r.Elapsed); math.Abs(f.Mean/want-1) > 1e-9 {
			t.Errorf("%s: %v in flight, the calls' times say %v", name, f.Mean, want)
		}
	}
	if f := closed(16, 2, 50e3, 10e3, 20000).InFlight(); f.Max > 16 {
		t.Errorf("%d of 16 threads in flight", f.Max)
	}
}

func TestRateGapsAndBursts(t *testing.T) {
	r := open(50e3, 1, 2, 10e3, 50000)
	if got := r.Rate(); math.Abs(got/50e3-1) > .02 {
		t.Errorf("rate %v", got)
	}
	var sum int64
	for _, g := range r.Gaps() {
		sum += g
	}
	if sum != r.Calls[len(r.Calls)-1].Arrival {
		t.Errorf("gaps add up to %d", sum)
	}
	for _, b := range r.Burstiness() {
		if b.Window <= 1e7 && math.Abs(b.Dispersion-1) > .25 {
			t.Errorf("Poisson arrivals: dispersion %v in windows of %v", b.Dispersion, time.Duration(b.Window))
		}
	}
	b := open(50e3, 5, 2, 10e3, 50000).Burstiness()
	if len(b) < 2 || b[0].Dispersion < 10 || b[0].Peak < 200e3 {
		t.Errorf("bursts of five times the rate: %+v", b)
	}
}

func TestThink(t *testing.T) {
	r := closed(16, 2, 50e3, 10e3, 20000)
	for i := range r.Calls {
		r.Calls[i].Slept = true
	}
	if th := r.Think(); math.Abs(th.Times.Mean()/50e3-1) > .05 || th.Slept != 1 {
		t.Errorf("thinks for %v, slept %v, want 50 µs and 1", th.Times.Mean(), th.Slept)
	}
}

func TestServiceIsKnownOnlyWhereDispatchIsSeen(t *testing.T) {
	r := closed(4, 2, 50e3, 10e3, 1000)
	r.Syscalls = append(r.Syscalls, Syscall{1, 2})
	of := func(d func(i int) Dispatch) Service {
		for i := range r.Calls {
			r.Calls[i].Dispatch = d(i)
			r.Calls[i].Blocked = i%2 == 0
		}
		return r.Service()
	}
	if s := of(func(int) Dispatch { return Unseen }); s.Times != nil || s.Known != 0 || s.Served != 1000 {
		t.Errorf("no dispatch: %+v", s)
	}
	if s := of(func(i int) Dispatch { return Dispatch(i%2) * Inline }); s.Times != nil {
		t.Errorf("half inline: %d known", s.Known)
	}
	if s := of(func(int) Dispatch { return Inline }); s.Known != 1000 || s.Dispatch != Inline {
		t.Errorf("inline: %d known", s.Known)
	}
	s := of(func(i int) Dispatch { return Inline - Dispatch(min(i%10, 1)) })
	if s.Known != 900 || s.Dispatch != Checked || math.Abs(s.Times.Mean()/10e3-1) > .1 {
		t.Errorf("nine of ten checked: %d known of mean %v", s.Known, s.Times.Mean())
	}
	if math.Abs(s.Blocked-4./9) > .1 || s.BySyscall[0].Count != 900 || s.BySyscall[1] != nil {
		t.Errorf("blocked %v, by system call %v", s.Blocked, s.BySyscall)
	}
}
