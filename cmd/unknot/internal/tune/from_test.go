package tune

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/bench/record"
	"github.com/unknot/unknot/bench/replay"
	"github.com/unknot/unknot/bench/storm"
)

// recordedLoad is a recording of n calls: in a closed loop of 16 threads that sleep for
// think between calls, or of Poisson arrivals from a thread each. Handlers compute for
// 100 µs and are preempted for as long.
func recordedLoad(n int, think time.Duration) *record.Recording {
	rng := rand.New(rand.NewPCG(8, 9))
	r := &record.Recording{CPUs: 2, Threads: 16, Syscalls: []record.Syscall{{Arch: 1, NR: 1}}}
	next := make([]int64, r.Threads)
	if think == 0 {
		r.Threads = n
	}
	busy, at := int64(0), int64(0)
	for i := range n {
		t := i
		if think == 0 {
			at += int64(rng.ExpFloat64() * 1e6)
		} else {
			t = 0
			for j := range next {
				if next[j] < next[t] {
					t = j
				}
			}
			at = next[t]
		}
		start := max(at, busy)
		busy = start + 200e3
		r.Calls = append(r.Calls, record.Call{Arrival: at, Wait: start - at, Service: 200e3, Away: 100e3, Thread: int32(t), Dispatch: record.Checked, Trapped: true, Slept: true})
		if think > 0 {
			next[t] = busy + int64(rng.ExpFloat64()*float64(think))
		}
	}
	r.Elapsed = time.Duration(busy + 1)
	return r
}

func TestLoadOfAClosedLoop(t *testing.T) {
	r := recordedLoad(20000, 2*time.Millisecond)
	l, notes, err := FromRecording(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if l.Arrivals.Open() || l.Targets != 16 || l.Arrivals.ThinkComputes || len(notes) != 1 {
		t.Errorf("%+v, %q", l, notes)
	}
	if d := l.Arrivals.Think.Mean + sleepExcess; math.Abs(float64(d)/2e6-1) > .05 {
		t.Errorf("threads think for %v, want 2ms", d)
	}
	if m := float64(l.Service.Mean); l.Service.Sleeps || math.Abs(m/100e3-1) > .02 {
		t.Errorf("handlers take %v, want 100µs of computing", l.Service.Mean)
	}
}

func TestLoadOfAnOpenLoop(t *testing.T) {
	r := recordedLoad(20000, 0)
	l, _, err := FromRecording(r, &bench.Work{Time: time.Millisecond, Sleep: true})
	if err != nil {
		t.Fatal(err)
	}
	calls, ok := l.Arrivals.Calls.(*replay.Arrivals)
	if !ok || math.Abs(l.Arrivals.Rate()/1000-1) > .05 {
		t.Fatalf("%v", l.Arrivals)
	}
	var sum int64
	gaps := calls.Gaps()
	for _, g := range gaps {
		sum += g
	}
	if sum != int64(r.Elapsed) || len(gaps) != 20000 {
		t.Errorf("%d gaps add up to %v of %v", len(gaps), time.Duration(sum), r.Elapsed)
	}
	if !l.Service.Sleeps || l.Service.Mean != time.Millisecond {
		t.Errorf("handlers: %+v, want those that were asked for", l.Service)
	}
}

func TestRecordingsThatSayTooLittle(t *testing.T) {
	r := recordedLoad(2000, 2*time.Millisecond)
	for i := range r.Calls {
		r.Calls[i].Dispatch, r.Calls[i].Wait = record.Unseen, 0
	}
	if _, _, err := FromRecording(r, nil); !errors.Is(err, replay.ErrServiceUnknown) {
		t.Errorf("without services: %v", err)
	}
	if _, _, err := FromRecording(r, &bench.Work{Time: time.Millisecond}); err != nil {
		t.Errorf("with services from elsewhere: %v", err)
	}
	// Too few calls to tell the loop, and no thread ever idle.
	if _, _, err := FromRecording(recordedLoad(100, time.Microsecond), nil); !isRefusal(err) {
		t.Errorf("threads that are all held up: %v", err)
	}
}

func TestBurstBoundOfArrivals(t *testing.T) {
	// Two workers that serve 2 calls/ms; bursts of 10 ms at 5 calls/ms.
	if k := burstBound(Arrivals{Calls: storm.Process{Kind: storm.OnOff, Rate: 2500, On: 10 * time.Millisecond, Off: 10 * time.Millisecond}}, 2, 1e-3); k != 30 {
		t.Errorf("burst bound %d of bursts, want 30", k)
	}
	if k := burstBound(Arrivals{Calls: storm.Process{Kind: storm.Poisson, Rate: 1000}}, 2, 1e-3); k != 0 {
		t.Errorf("burst bound %d without bursts", k)
	}
	recorded := func(gaps ...int64) *replay.Arrivals {
		r := &record.Recording{Threads: 1, Syscalls: []record.Syscall{{Arch: 1, NR: 1}}}
		at := int64(0)
		for _, g := range gaps {
			at += g
			r.Calls = append(r.Calls, record.Call{Arrival: at})
		}
		r.Elapsed = time.Duration(at)
		p, _ := replay.Of(r) // without services
		return p
	}
	gaps := []int64{50e6}
	for range 39 {
		gaps = append(gaps, 0.2e6)
	}
	// 40 calls in 7.8 ms: the window of 10 ms has them all.
	if k := burstBound(Arrivals{Calls: recorded(gaps...)}, 2, 1e-3); k != 20 {
		t.Errorf("burst bound %d of the recording, want 20", k)
	}
	if n := fullest([]int64{5, 5, 5, 100, 1, 1, 1, 1}, 4); n != 4 {
		t.Errorf("%d arrivals in the fullest window, want 4", n)
	}
}
