package bench

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/bench/trace"
	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/testlisteners"
	"golang.org/x/perf/benchfmt"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	storm.Main()
	testlisteners.Main()
	flag.Parse()
	hangDeadline = testDeadline
	if flag.Lookup("test.bench").Value.String() == "" {
		os.Exit(m.Run())
	}
	// The keys of unknot bench, without which benchstat compares nothing across
	// both. They end with us: more packages may follow.
	hash, _ := Fingerprint()
	fmt.Printf("machine: %s\nclock: %s\nloop: %s\n", hash, ClockEngine, loopClosed)
	code := m.Run()
	fmt.Print("machine:\nclock:\nloop:\n")
	os.Exit(code)
}

// testDeadline is for what must happen, on a machine where a thread may stand still for seconds.
const testDeadline = 2 * time.Minute

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
		r := onceThat(t, spec(engine, path, 8), func(r *Result) bool { return r.Targets.OK > 0 })
		if r.Targets.OK == 0 || r.RoundTrip.Count == 0 || (r.Wait == nil) != strings.HasPrefix(engine, "bare") {
			t.Errorf("%v, waits %v", r.Targets, r.Wait)
		}
	})
}

// onceThat storms once, and again for twice as long while nothing came of it: beside other tests a thread may
// wait for the CPU for longer than the shortest of these storms.
func onceThat(t *testing.T, s Spec, did func(*Result) bool) (r *Result) {
	t.Helper()
	for d := 60 * time.Millisecond; d <= time.Minute; d *= 2 {
		var err error
		if r, err = Once(t.Context(), s, d, false); err != nil {
			t.Fatal(err)
		}
		checkWhole(t, r)
		if did(r) {
			break
		}
		t.Logf("in %v: %v, %d dropped", d, r.Targets, r.Stats.Dropped)
	}
	return r
}

// TestManyListeners: each listener has its part in what is reported, and all parts make the whole.
func TestManyListeners(t *testing.T) {
	each(t, func(t *testing.T, engine, path string) {
		s := spec(engine, path, 2)
		s.Listeners = 3
		r := onceThat(t, s, func(r *Result) bool { return r.Slowest() > 0 })
		if len(r.listeners) != s.Listeners {
			t.Fatalf("%d listeners in the result", len(r.listeners))
		}
		var sum, trips uint64
		for _, l := range r.listeners {
			if l.Targets.OK == 0 {
				t.Error("a listener was not served")
			}
			sum += l.Targets.OK
			trips += l.RoundTrip.Count
		}
		if sum != r.Targets.OK || trips != r.RoundTrip.Count {
			t.Errorf("%d calls and %d round trips of listeners, %d and %d in all", sum, trips, r.Targets.OK, r.RoundTrip.Count)
		}
	})
}

func TestUnitsOfListeners(t *testing.T) {
	trip := func(ns int64, n int) *hist.Snapshot {
		var h hist.Hist
		for range n {
			h.Record(ns)
		}
		return h.Snapshot()
	}
	r := &Result{Elapsed: 2 * time.Second, RoundTrip: trip(1, 1), Corrected: trip(1, 1)}
	if v := r.Slowest(); !math.IsNaN(v) {
		t.Errorf("slowest of none: %v", v)
	}
	r.listeners = []listenerResult{
		{storm.Counts{OK: 4000}, trip(50_000, 4000)},
		{storm.Counts{OK: 8000}, trip(90_000, 8000)},
		{storm.Counts{OK: 6000}, trip(20_000, 6000)},
	}
	if s, w := r.Slowest(), r.WorstTrip(.999); s != 2000 || w < 85_000 || w > 95_000 {
		t.Errorf("slowest %v/s, worst p99.9 %v ns", s, w)
	}
	r.listeners[2].RoundTrip = trip(20_000, 100)
	if w := r.WorstTrip(.999); !math.IsNaN(w) {
		t.Errorf("99.9%% of 100 calls: %v", w)
	}
}

func checkWhole(t *testing.T, r *Result) {
	t.Helper()
	if err := r.Check(); err != nil || r.Lost != 0 {
		t.Errorf("%v, lost %d", err, r.Lost)
	}
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		stats  Stats
		change func(*storm.Counts)
		lost   int
		want   string
	}{
		"all is well":       {Stats{Served: 5, Dropped: 2}, func(*storm.Counts) {}, 0, ""},
		"one served more":   {Stats{Served: 6, Dropped: 2}, func(*storm.Counts) {}, 0, "the engine counts 6 served and 2 dropped, its targets answered 5, EINTR 2"},
		"one dropped less":  {Stats{Served: 5, Dropped: 1}, func(*storm.Counts) {}, 0, "the engine counts 5 served and 1 dropped, its targets answered 5, EINTR 2"},
		"another errno":     {Stats{Served: 5, Dropped: 2}, func(c *storm.Counts) { c.Errnos[unix.EPERM]++ }, 0, "its targets saw answers that it does not give: EPERM 1"},
		"lost, and said so": {Stats{Served: 6, Dropped: 2}, func(*storm.Counts) {}, 1, ""},
	} {
		r := &Result{Lost: c.lost}
		r.Whole.Stats = c.stats
		r.Whole.Targets.OK, r.Whole.Targets.Errnos[unix.EINTR] = 5, 2
		c.change(&r.Whole.Targets)
		if err := r.Check(); fmt.Sprint(err) != c.want && (err != nil || c.want != "") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestWhatIsDividedIsOfOneWindow: the two sides count the same calls of a storm,
// whose warm-up is five times as long as the window, so they can agree on the
// window only if both leave the warm-up out. They are read one after the other
// while calls go on; where the machine takes us off the CPU in between, that
// repetition says nothing and another is made.
func TestWhatIsDividedIsOfOneWindow(t *testing.T) {
	agree := func(engine, targets, whole uint64) bool {
		slack := 16 + whole/20
		return engine <= targets+slack && targets <= engine+slack
	}
	each(t, func(t *testing.T, engine, path string) {
		s := spec(engine, path, 16)
		s.Queue, s.DropBatch = 4, 4
		var r *Result
		for end := time.Now().Add(testDeadline); time.Now().Before(end); {
			var err error
			if r, err = Once(t.Context(), s, WarmUp/5, false); err != nil {
				t.Fatal(err)
			}
			checkWhole(t, r)
			if agree(r.Stats.Served, r.Targets.OK, r.Whole.Targets.OK) && agree(r.Stats.Dropped, r.Targets.Failed(unix.EINTR), r.Whole.Targets.Failed(unix.EINTR)) {
				return
			}
		}
		t.Errorf("in the window the engine counts %+v, its targets %v; in all %v", r.Stats, r.Targets, r.Whole.Targets)
	})
}

// TestStopWithTargetsThatLive is what a kernel before 6.11 is like for a receiver
// blocked in RECV: no target makes a call, and nothing says so.
func TestStopWithTargetsThatLive(t *testing.T) {
	each(t, func(t *testing.T, engine, path string) {
		ctx, cancel := context.WithTimeout(t.Context(), testDeadline)
		defer cancel()
		st, err := storm.Start(ctx, storm.Config{Targets: 2})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		sup, err := New(spec(engine, path, 2))
		if err != nil {
			t.Fatal(err)
		}
		if err := sup.Serve(st.Listener()); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(st.Go(), st.Rages(ctx, hangDeadline)); err != nil {
			t.Fatal(err)
		}
		if _, err := st.Halt(hangDeadline); err != nil {
			t.Fatal(err)
		}
		if err := stopServing(storms{st}, sup.Stop); err != nil {
			t.Fatal(err)
		}
		st.Close()
		if c := st.Counts(); c.OK != sup.Stats().Served || c.Except(unix.EINTR) != (storm.Counts{}) {
			t.Errorf("the engine counts %+v, the targets %v", sup.Stats(), c)
		}
	})
}

// mute receives and never answers.
type mute struct{ l *notify.Listener }

func (m *mute) Serve(ls ...*notify.Listener) error {
	l := ls[0]
	m.l = l
	go func() {
		var n notify.Notif
		for notify.OutcomeOf(l.Recv(&n)) == notify.Done {
		}
	}()
	return nil
}
func (m *mute) Waits() *hist.Snapshot { return new(hist.Snapshot) }
func (m *mute) Stats() Stats          { return Stats{} }
func (m *mute) Stop(ctx context.Context) error {
	return errors.New("cannot stop")
}

func TestAnEngineThatHangsIsAResult(t *testing.T) {
	defer func(e []engineKind, d time.Duration) { engines, hangDeadline = e, d }(engines, hangDeadline)
	hangDeadline = 300 * time.Millisecond
	engines = []engineKind{{"mute", []string{PathQueue}, func(Spec) (Supervisor, error) { return new(mute), nil }, false}}
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
		overload := func(r *Result) bool { return r.Stats.Dropped > 0 && r.Targets.Failed(unix.EINTR) > 0 }
		if !overload(onceThat(t, s, overload)) {
			t.Error("no storm was an overload")
		}
	})
}

// TestTheTwoClocksAgree holds the tracepoints' waits against the engine's own in
// one storm, the same events seen twice: their medians lie within 5 us or one
// bucket. Whatever delays a thread between the two clocks' readings, on a busy
// machine, parts them; then another storm has its say. Where the machine stays busy,
// the tracepoints' may be longer by what the receive thread waits for a CPU after its
// RECV has returned, which its own clock cannot see: a few handlers.
func TestTheTwoClocksAgree(t *testing.T) {
	if testing.Short() {
		t.Skip("storms twice for each of many")
	}
	if err := trace.Probe(); err != nil {
		t.Skip(err)
	}
	each(t, func(t *testing.T, engine, path string) {
		for _, work := range []time.Duration{0, 50 * time.Microsecond} {
			if path == PathInline && work > 0 {
				continue // its wait has one clock
			}
			s := spec(engine, path, 16)
			s.Work.Time = work
			agree, near := false, false
			for end := time.Now().Add(testDeadline); !agree && time.Now().Before(end); {
				r, err := Once(t.Context(), s, 100*time.Millisecond, true)
				if err != nil {
					t.Fatal(err)
				}
				if path == PathInline {
					if r.Clock != ClockEngine {
						t.Errorf("clock %s", r.Clock)
					}
					return
				}
				if r.Clock != ClockTracepoints {
					t.Log("the tracer missed some")
					continue
				}
				if r.Wait.Count == 0 || r.OwnWait.Count == 0 {
					t.Fatalf("clock %s, %d waits, %d by the engine", r.Clock, r.Wait.Count, r.OwnWait.Count)
				}
				a, b := r.Wait.Quantile(.5), r.OwnWait.Quantile(.5)
				buckets := hist.Index(int64(a)) - hist.Index(int64(b))
				agree = max(a, b)-min(a, b) <= 5e3 || max(buckets, -buckets) <= 1
				near = near || a > b && a-b <= float64(3*work)
				t.Logf("work %v: p50 wait of %d by tracepoints %s, of %d by the engine %s, %d buckets apart",
					work, r.Wait.Count, Duration(a), r.OwnWait.Count, Duration(b), buckets)
			}
			if !agree && !near {
				t.Errorf("work %v: the clocks do not agree", work)
			}
		}
	})
}

// TestTheTwoClocksAgreeByReceiver: with several receivers the waits are kept apart, by
// the tracepoints and by the engine; each call is in the row of the thread that received it.
func TestTheTwoClocksAgreeByReceiver(t *testing.T) {
	if testing.Short() {
		t.Skip("storms twice for each of many")
	}
	if err := trace.Probe(); err != nil {
		t.Skip(err)
	}
	s := spec("unknot", PathQueue, 1)
	s.Listeners = 16
	agree := false
	for end := time.Now().Add(testDeadline); !agree && time.Now().Before(end); {
		r, err := Once(t.Context(), s, 200*time.Millisecond, true)
		if err != nil {
			t.Fatal(err)
		}
		if r.Lost != 0 {
			t.Fatalf("%d lost", r.Lost)
		}
		if r.Clock != ClockTracepoints {
			t.Log("the tracer missed some")
			continue
		}
		if len(r.ReceiverWaits) != len(r.OwnReceiverWaits) {
			t.Fatalf("%d receivers by the tracepoints, %d by the engine", len(r.ReceiverWaits), len(r.OwnReceiverWaits))
		}
		if len(r.ReceiverWaits) < 2 {
			t.Skip("one CPU, one receiver")
		}
		agree = true
		var sum, own uint64
		for i, w := range r.ReceiverWaits {
			o := r.OwnReceiverWaits[i]
			sum, own = sum+w.Count, own+o.Count
			if w.Count == 0 || o.Count == 0 {
				t.Fatalf("receiver %d: %d waits by the tracepoints, %d by the engine", i, w.Count, o.Count)
			}
			a, b := w.Quantile(.5), o.Quantile(.5)
			buckets := hist.Index(int64(a)) - hist.Index(int64(b))
			agree = agree && (max(a, b)-min(a, b) <= 5e3 || max(buckets, -buckets) <= 1)
			t.Logf("receiver %d: p50 wait of %d by tracepoints %s, of %d by the engine %s", i, w.Count, Duration(a), o.Count, Duration(b))
		}
		// Not of the tracer's are the calls that came before it knew the threads.
		if sum != r.Wait.Count || own != r.OwnWait.Count {
			t.Errorf("the receivers' waits are %d of %d by the tracepoints, %d of %d by the engine", sum, r.Wait.Count, own, r.OwnWait.Count)
		}
	}
	if !agree {
		t.Error("the clocks do not agree")
	}
}

func TestBadSpecs(t *testing.T) {
	for _, s := range []Spec{spec("nobody", PathQueue, 1), spec("bare", PathQueue, 1), spec("chan", PathInline, 1)} {
		if _, err := New(s); err == nil {
			t.Errorf("%+v was accepted", s)
		}
	}
	for _, w := range []string{"", "5", "-1us", "sleep:", "sleep:x", "nap:1ms", "spin:", "sleep:spin:1us", "50us+", "50us+200us", "50us+200us@", "50us+x@1s", "50us+200us@1s+50us@1s", "+50us@1s"} {
		if _, err := ParseWork(w); err == nil {
			t.Errorf("work %q was accepted", w)
		}
	}
	for in, out := range map[string]string{"0": "0s", "50us": "50µs", "sleep:1ms": "sleep:1ms", "spin:1us": "spin:1µs", "50us+sleep:1ms~1@1s+0@2s": "50µs+sleep:1ms~1@1s+0s@2s"} {
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
	r := onceThat(t, spec("bare", PathInline, 1), func(r *Result) bool { return !math.IsNaN(Percentile(r.RoundTrip, .5)) })
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
			if !strings.HasPrefix(string(rec.Name), "Storm/engine=bare/path=inline/targets=1/work=0s/queue=64/workers=2/batch=8/policy=drop-oldest/pace=auto-") {
				t.Errorf("name %s", rec.Name)
			}
			if rec.GetConfig("goos") != "linux" {
				t.Errorf("goos %q", rec.GetConfig("goos"))
			}
			for _, u := range []string{"sec/op", "p50-roundtrip-sec", "served/s", "drops/op", "eintr/op", "lost", "cpu-sec/op", "mallocs/op"} {
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

// TestPercentilesOfTooFewAreLeftOut: the limits are those of the binomial distribution.
func TestPercentilesOfTooFewAreLeftOut(t *testing.T) {
	for _, c := range []struct {
		q     float64
		least uint64
	}{{.5, 6}, {.01, 368}, {.99, 368}, {.999, 3688}} {
		for _, n := range []uint64{0, 1, c.least - 1, c.least} {
			h := new(hist.Snapshot)
			if n > 0 {
				h.Add(1000, n)
			}
			if p := Percentile(h, c.q); math.IsNaN(p) != (n < c.least) {
				t.Errorf("quantile %v of %d values: %v", c.q, n, p)
			}
		}
	}
}

// BenchmarkStorm has the names and units of `unknot bench`; one iteration is
// one storm of 100 ms.
func BenchmarkStorm(b *testing.B) {
	for _, s := range Suite() {
		name := s.Name()
		name = strings.TrimPrefix(name[:strings.LastIndexByte(name, '-')], "Storm/") // go test adds both
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

func ExampleDuration() {
	fmt.Println(Duration(1234567), Duration(12), Duration(0))
	// Output: 1.23ms 12ns 0s
}
