package record_test

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/bench/record"
	"github.com/unknot/unknot/bench/replay"
	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

func TestScheduleIsTheRecording(t *testing.T) {
	r := record.Open(10000, 1, 2, 50e3, 5000)
	r.Syscalls = []record.Syscall{{notify.NativeArch, unix.SYS_OPENAT}}
	p, err := replay.Of(r)
	if err != nil {
		t.Fatal(err)
	}
	as, err := p.Schedule(3*r.Elapsed, 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(as) != 3*len(r.Calls) {
		t.Fatalf("%d calls in three times %d", len(as), len(r.Calls))
	}
	for i, a := range as {
		c, turn := &r.Calls[i%len(r.Calls)], i/len(r.Calls)
		want := storm.Arrival{At: time.Duration(turn)*r.Elapsed + time.Duration(c.Arrival), Call: storm.Openat, Tag: bench.TagWork(time.Duration(c.Service), false)}
		if a != want {
			t.Fatalf("call %d: %+v, want %+v", i, a, want)
		}
	}
	if part, err := p.Schedule(r.Elapsed/2, 1); err != nil || len(part) == 0 || part[len(part)-1].At >= r.Elapsed/2 {
		t.Errorf("%d calls in half of it, %v", len(part), err)
	}
	fast, err := p.Faster(2).Schedule(r.Elapsed, 1)
	if err != nil || len(fast) != 2*len(r.Calls) || fast[7].At != time.Duration(r.Calls[7].Arrival/2) {
		t.Errorf("twice as fast: %d calls instead of %d, the eighth at %v, %v", len(fast), 2*len(r.Calls), fast[7].At, err)
	}
	some, err := p.Anywhere().Schedule(r.Elapsed, 1)
	if err != nil || len(some) != len(r.Calls) || some[0] == as[0] {
		t.Fatalf("from anywhere: %d calls, the first %+v, %v", len(some), some[0], err)
	}
	first := 0 // the recorded call that it begins with: what comes after it comes after it there
	for first < len(r.Calls) && as[first+1].At-as[first].At != some[1].At-some[0].At {
		first++
	}
	for i := 1; i < len(some); i++ { // the same gaps in a ring
		j := (i + first) % len(r.Calls)
		k := (j + len(r.Calls) - 1) % len(r.Calls)
		want := as[j].At - as[k].At
		if want < 0 {
			want += r.Elapsed
		}
		if g := some[i].At - some[i-1].At; g != want {
			t.Fatalf("from anywhere, call %d: a gap of %v, want %v", i, g, want)
		}
	}
	for i := range r.Calls {
		r.Calls[i].Dispatch = record.Unseen
	}
	if _, err := replay.Of(r); !errors.Is(err, replay.ErrServiceUnknown) {
		t.Errorf("without services: %v", err)
	}
}

// A supervisor that checks slow calls above all must not make all look slow.
func TestServicesOfABiasedSample(t *testing.T) {
	r := record.Closed(8, 2, 100e3, 50e3, 20000)
	var all []float64
	for i := range r.Calls {
		c := &r.Calls[i]
		all = append(all, float64(c.Service))
		if i%64 != 0 && c.Wait < 100e3 {
			c.Dispatch, c.Service, c.Wait = record.Unseen, c.Wait+c.Service, 0
		}
	}
	mean := 0.
	for _, x := range all {
		mean += x / float64(len(all))
	}
	s := r.Service()
	if s.Known > len(all)/2 || math.Abs(s.Times.Mean()/mean-1) > .1 {
		t.Errorf("mean service %.0f ns by %d known of %d, want %.0f", s.Times.Mean(), s.Known, s.Served, mean)
	}
}

// What was recorded of a storm is what a storm of it makes.
func TestReplay(t *testing.T) {
	s := bench.Spec{Engine: "unknot", Path: bench.PathQueue, Targets: 4, Workers: 4, Queue: 64, CheckAfter: engine.AlwaysCheck,
		Load: bench.Load{Think: storm.Think{Dist: bench.Work{Time: 4 * time.Millisecond, CV: 1}.Dist(), Sleep: true}}}
	s.Work, _ = bench.ParseWork("sleep:2ms~0.5")
	a := record.Recorded(t, s, 400)
	p, err := replay.Of(a)
	if err != nil {
		t.Fatal(err)
	}
	s.Load, s.Work, s.Targets = bench.Load{Arrivals: p}, bench.Work{Tagged: true}, 32
	b := record.Recorded(t, s, 400)
	x, y := a.Service(), b.Service()
	t.Logf("service p50 %v and %v, %.0f/s and %.0f/s", time.Duration(x.Times.Quantile(.5)), time.Duration(y.Times.Quantile(.5)), a.Rate(), b.Rate())
	if y.Blocked < .9 || y.Times.Quantile(.5) < x.Times.Quantile(.5)/2 {
		t.Errorf("handlers blocked for %v of the time, p50 %v; recorded %v", y.Blocked, time.Duration(y.Times.Quantile(.5)), time.Duration(x.Times.Quantile(.5)))
	}
}
