package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/bench/trace"
	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/perf/benchfmt"
)

func TestMain(m *testing.M) {
	storm.Main()
	os.Exit(m.Run())
}

func spec(engine, path string, targets int) Spec {
	return Spec{Engine: engine, Path: path, Targets: targets, Workers: 2, Queue: 64, DropBatch: 8}
}

// each runs f for every engine and path that this build has.
func each(t *testing.T, f func(t *testing.T, engine, path string)) {
	for _, e := range engines {
		for _, p := range e.paths {
			t.Run(e.name+"/"+p, func(t *testing.T) {
				if _, err := New(spec(e.name, p, 1)); errors.Is(err, errors.ErrUnsupported) {
					t.Skip(err)
				}
				f(t, e.name, p)
			})
		}
	}
}

func TestEveryEngineServesAndLosesNothing(t *testing.T) {
	each(t, func(t *testing.T, engine, path string) {
		r, err := Once(t.Context(), spec(engine, path, 8), 250*time.Millisecond, false)
		if err != nil {
			t.Fatal(err)
		}
		if r.Targets.OK == 0 || r.Lost != 0 || r.Targets.Other+r.Targets.ENOSYS != 0 || r.RoundTrip.Count == 0 || (r.Wait == nil) != (engine == "bare") {
			t.Errorf("%+v, lost %d, waits %v", r.Targets, r.Lost, r.Wait)
		}
	})
}

// mute receives and never answers.
type mute struct{ l *notify.Listener }

func (m *mute) Serve(l *notify.Listener) error {
	m.l = l
	go func() {
		var n notify.Notif
		for notify.OutcomeOf(l.Recv(&n)) == notify.Done {
		}
	}()
	return nil
}
func (m *mute) Waits() *hist.Snapshot { return new(hist.Snapshot) }
func (m *mute) Stop(ctx context.Context) (Stats, error) {
	return Stats{}, errors.New("cannot stop")
}

func TestAnEngineThatHangsIsAResult(t *testing.T) {
	defer func(e []engineKind, d time.Duration) { engines, hangDeadline = e, d }(engines, hangDeadline)
	hangDeadline = 300 * time.Millisecond
	engines = []engineKind{{"mute", []string{PathQueue}, func(Spec) (Supervisor, error) { return new(mute), nil }}}
	r, err := Once(t.Context(), spec("mute", PathQueue, 4), 20*time.Millisecond, false)
	if err != nil || r.Lost != 4 || r.Targets.OK != 0 {
		t.Errorf("%+v, %v; want 4 lost", r, err)
	}
}

func TestOverloadDropsOnEveryQueue(t *testing.T) {
	each(t, func(t *testing.T, engine, path string) {
		if path != PathQueue {
			t.Skip("no queue")
		}
		s := spec(engine, path, 32)
		s.Queue, s.DropBatch, s.Work.Time = 4, 4, 50*time.Microsecond
		r, err := Once(t.Context(), s, 250*time.Millisecond, false)
		if err != nil {
			t.Fatal(err)
		}
		if r.Lost != 0 || r.Stats.Dropped == 0 || r.Targets.EINTR == 0 {
			t.Errorf("%+v, %d dropped, lost %d", r.Targets, r.Stats.Dropped, r.Lost)
		}
	})
}

// TestTheTwoClocksAgree holds the tracepoints' waits against the engine's own in
// one run: the same events seen twice.
func TestTheTwoClocksAgree(t *testing.T) {
	if err := trace.Probe(); err != nil {
		t.Skip(err)
	}
	each(t, func(t *testing.T, engine, path string) {
		r, err := Once(t.Context(), spec(engine, path, 16), 200*time.Millisecond, true)
		if err != nil {
			t.Fatal(err)
		}
		if path == PathInline {
			if r.Clock != ClockEngine {
				t.Errorf("clock %s", r.Clock)
			}
			return
		}
		a, b := r.Wait.Quantile(.5), r.OwnWait.Quantile(.5)
		t.Logf("p50 wait: tracepoints %s, engine %s", Duration(a), Duration(b))
		if r.Clock != ClockTracepoints || r.Wait.Count == 0 {
			t.Fatalf("clock %s, %d waits", r.Clock, r.Wait.Count)
		}
		// The same events; the race detector and other tests work between the
		// two clocks, so allow more than the bucket or 5 us that separate them
		// in a quiet run.
		if d := a - b; d > max(20e3, b/4) || d < -max(20e3, b/4) {
			t.Errorf("the clocks differ by %v ns", d)
		}
	})
}

func TestBadSpecs(t *testing.T) {
	for _, s := range []Spec{spec("nobody", PathQueue, 1), spec("bare", PathQueue, 1), spec("chan", PathInline, 1)} {
		if _, err := New(s); err == nil {
			t.Errorf("%+v was accepted", s)
		}
	}
	for _, w := range []string{"", "5", "-1us", "sleep:", "sleep:x", "nap:1ms", "spin:", "sleep:spin:1us"} {
		if _, err := ParseWork(w); err == nil {
			t.Errorf("work %q was accepted", w)
		}
	}
	for in, out := range map[string]string{"0": "0s", "50us": "50µs", "sleep:1ms": "sleep:1ms", "spin:1us": "spin:1µs"} {
		if w, err := ParseWork(in); err != nil || w.String() != out {
			t.Errorf("work %q: %v, %v", in, w, err)
		}
	}
}

func TestWorkIsDone(t *testing.T) {
	for _, w := range []Work{{Time: 5 * time.Millisecond, Sleep: true}, {Time: 5 * time.Millisecond, Spin: true}} {
		start := time.Now()
		w.Do()
		if d := time.Since(start); d < w.Time {
			t.Errorf("%v took %v", w, d)
		}
	}
}

func TestResultsAreReadable(t *testing.T) {
	r, err := Once(t.Context(), spec("bare", PathInline, 1), 20*time.Millisecond, false)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := NewWriter(&b, []string{"a comment"}, [][2]string{{"goos", "linux"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(r); err != nil {
		t.Fatal(err)
	}
	rd := benchfmt.NewReader(&b, "results")
	var n int
	for rd.Scan() {
		switch rec := rd.Result().(type) {
		case *benchfmt.SyntaxError:
			t.Error(rec)
		case *benchfmt.Result:
			n++
			if !strings.HasPrefix(string(rec.Name), "Storm/engine=bare/path=inline/targets=1/work=0s/queue=64/workers=2/batch=8-") {
				t.Errorf("name %s", rec.Name)
			}
			if rec.GetConfig("goos") != "linux" {
				t.Errorf("goos %q", rec.GetConfig("goos"))
			}
			for _, u := range []string{"sec/op", "p99-roundtrip-sec", "served/s", "drops/op", "eintr/op", "lost", "cpu-sec/op", "allocs/op"} {
				if _, ok := rec.Value(u); !ok {
					t.Errorf("no value %s among %v", u, rec.Values)
				}
			}
		}
	}
	if err := rd.Err(); err != nil || n != 1 {
		t.Errorf("%d results, %v", n, err)
	}
	for _, u := range units {
		if rd.Units().Get(u.name, "better") == nil {
			t.Errorf("unit %s is not declared", u.name)
		}
	}
}

// BenchmarkStorm has the names and units of `unknot bench`; one iteration is
// one storm of 100 ms.
func BenchmarkStorm(b *testing.B) {
	for _, targets := range []int{1, 16} {
		for _, e := range engines {
			for _, p := range e.paths {
				s := spec(e.name, p, targets)
				name := s.Name()
				name = strings.TrimPrefix(name[:strings.LastIndexByte(name, '-')], "Storm/")
				b.Run(name, func(b *testing.B) {
					if _, err := New(s); errors.Is(err, errors.ErrUnsupported) {
						b.Skip(err)
					}
					sums, n := map[string]float64{}, 0.0
					for b.Loop() {
						r, err := Once(b.Context(), s, 100*time.Millisecond, false)
						if err != nil {
							b.Fatal(err)
						}
						n++
						for _, v := range r.values() {
							sums[v.Unit] += v.Value
						}
					}
					for u, v := range sums {
						b.ReportMetric(v/n, u)
					}
				})
			}
		}
	}
}

func ExampleDuration() {
	fmt.Println(Duration(1234567), Duration(12), Duration(0))
	// Output: 1.23ms 12ns 0s
}
