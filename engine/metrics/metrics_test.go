package metrics

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/enginetest"
	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/engine/syscalls"
	"golang.org/x/sys/unix"
)

func handle(r engine.Request) {
	switch r.Data().NR {
	case 1:
		_ = r.Return(1)
	case 2:
		_ = r.Fail(unix.EPERM)
	case 3:
		_ = r.Continue()
	default: // by default
	}
}

// loaded is an engine that has handled calls, and its two targets.
func loaded(t testing.TB) (e *enginetest.Engine, web, db *enginetest.Target) {
	e = enginetest.NewWith(t, engine.Config{Handler: engine.HandlerFunc(handle), BySyscall: true, BySource: true})
	web = e.TargetWith(engine.SourceOptions{Tag: "web"})
	db = e.TargetWith(engine.SourceOptions{Tag: "db"})
	for range 3 {
		web.Call(1)
	}
	web.Call(2)
	db.Call(3)
	db.Call(4)
	db.Arch = unix.AUDIT_ARCH_I386
	db.Call(1)
	return e, web, db
}

func byTag(s *engine.Source) string { return fmt.Sprint(s.Tag()) }

func TestScrape(t *testing.T) {
	e, _, _ := loaded(t)
	c := New(e.Engine(), Options{Source: byTag, Labels: prometheus.Labels{"engine": "a"}, Syscall: func(arch uint32, nr int32) string {
		if nr == 1 {
			return "one"
		}
		return ""
	}})
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(c); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := testutil.GatherAndCompare(r, strings.NewReader(`
# HELP unknot_received_total Notifications received.
# TYPE unknot_received_total counter
unknot_received_total{engine="a"} 7
# HELP unknot_notifications_total Notifications that are done with. By outcome: answered (by a handler or by default), dropped (overload), stale (the target was gone), failed (the kernel refused for another reason).
# TYPE unknot_notifications_total counter
unknot_notifications_total{engine="a",outcome="answered"} 7
unknot_notifications_total{engine="a",outcome="dropped"} 0
unknot_notifications_total{engine="a",outcome="failed"} 0
unknot_notifications_total{engine="a",outcome="stale"} 0
# HELP unknot_errno_answers_total Answers that were errors, by errno: handlers', default ones and those to dropped calls.
# TYPE unknot_errno_answers_total counter
unknot_errno_answers_total{engine="a",errno="ENOSYS"} 1
unknot_errno_answers_total{engine="a",errno="EPERM"} 1
# HELP unknot_special_answers_total Of those answered: continued (the kernel ran the call), defaulted (the engine answered for the handler).
# TYPE unknot_special_answers_total counter
unknot_special_answers_total{engine="a",kind="continued"} 1
unknot_special_answers_total{engine="a",kind="defaulted"} 1
# HELP unknot_syscall_received_total Notifications received, by system call and ABI.
# TYPE unknot_syscall_received_total counter
unknot_syscall_received_total{abi="i386",engine="a",syscall="one"} 1
unknot_syscall_received_total{abi="`+ABI(nativeArch(e), 1)+`",engine="a",syscall="2"} 1
unknot_syscall_received_total{abi="`+ABI(nativeArch(e), 1)+`",engine="a",syscall="3"} 1
unknot_syscall_received_total{abi="`+ABI(nativeArch(e), 1)+`",engine="a",syscall="4"} 1
unknot_syscall_received_total{abi="`+ABI(nativeArch(e), 1)+`",engine="a",syscall="one"} 3
# HELP unknot_source_received_total Notifications received, by listener.
# TYPE unknot_source_received_total counter
unknot_source_received_total{engine="a",source="db"} 3
unknot_source_received_total{engine="a",source="web"} 4
# HELP unknot_listeners Listeners that the engine has.
# TYPE unknot_listeners gauge
unknot_listeners{engine="a"} 2
# HELP unknot_listeners_total Listeners so far, by event: added, hung_up (no target was left).
# TYPE unknot_listeners_total counter
unknot_listeners_total{engine="a",event="added"} 2
unknot_listeners_total{engine="a",event="hung_up"} 0
# HELP unknot_drops_total Calls that were given up, by reason: full (the queue was), age (waited longer than Config.MaxAge). They are told a moment later; one whose target is gone by then is stale, not dropped.
# TYPE unknot_drops_total counter
unknot_drops_total{engine="a",reason="age"} 0
unknot_drops_total{engine="a",reason="full"} 0
# HELP unknot_source_listeners Listeners of that name that the engine has.
# TYPE unknot_source_listeners gauge
unknot_source_listeners{engine="a",source="db"} 1
unknot_source_listeners{engine="a",source="web"} 1
# HELP unknot_receiver_received_total Notifications received, by receive thread.
# TYPE unknot_receiver_received_total counter
unknot_receiver_received_total{engine="a",receiver="0"} 7
# HELP unknot_receiver_listeners Listeners that the receive thread has now.
# TYPE unknot_receiver_listeners gauge
unknot_receiver_listeners{engine="a",receiver="0"} 2
`), "unknot_received_total", "unknot_notifications_total", "unknot_errno_answers_total", "unknot_special_answers_total", "unknot_syscall_received_total", "unknot_source_received_total", "unknot_listeners",
			"unknot_listeners_total", "unknot_drops_total", "unknot_source_listeners", "unknot_receiver_received_total", "unknot_receiver_listeners"); err != nil {
			t.Error(err)
		}
	}
	problems, err := testutil.GatherAndLint(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	all, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if strings.Contains(f.GetName(), "wait") && !strings.Contains(f.GetHelp(), "begins when the notification was received") {
			t.Errorf("%s does not say when it begins: %s", f.GetName(), f.GetHelp())
		}
		for _, m := range f.Metric {
			h := m.GetHistogram()
			if h == nil {
				continue
			}
			if last := h.Bucket[len(h.Bucket)-1]; last.GetCumulativeCount() != h.GetSampleCount() || nativeCount(h) != h.GetSampleCount() {
				t.Errorf("%s: %d samples, %d in classic and %d in native buckets", f.GetName(), h.GetSampleCount(), last.GetCumulativeCount(), nativeCount(h))
			}
			if f.GetName() == "unknot_service_seconds" && (h.GetSampleCount() != 7 || h.GetSampleSum() <= 0) {
				t.Errorf("%s: %v", f.GetName(), h)
			}
		}
	}
}

// nativeArch is that of the calls that loaded made first.
func nativeArch(e *enginetest.Engine) uint32 {
	for _, st := range e.Engine().Syscalls() {
		if st.NR == 2 {
			return st.Arch
		}
	}
	return 0
}

// decoded are a native histogram's counts by bucket.
func decoded(h *dto.Histogram) map[int]uint64 {
	all := map[int]uint64{}
	at, count, k := 0, int64(0), 0
	for i, s := range h.PositiveSpan {
		at += int(s.GetOffset())
		if i == 0 {
			at = int(s.GetOffset())
		}
		for range s.GetLength() {
			count += h.PositiveDelta[k]
			k++
			all[at] = uint64(count)
			at++
		}
	}
	return all
}

func nativeCount(h *dto.Histogram) (n uint64) {
	n = h.GetZeroCount()
	for _, c := range decoded(h) {
		n += c
	}
	return n
}

// TestBuckets: classic counts are exact, native ones within a bucket, whatever the values.
func TestBuckets(t *testing.T) {
	var h hist.Hist
	var values []int64
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		v := int64(math.Exp(rnd.Float64() * 24))
		values = append(values, v)
		h.Record(v)
	}
	h.Record(0)
	values = append(values, 0)
	d := prometheus.NewDesc("x", "x", nil, nil)
	var m dto.Metric
	if err := newHistogram(d, h.Snapshot(), bounds(DefaultFineFrom, DefaultFineTo)).Write(&m); err != nil {
		t.Fatal(err)
	}
	for _, b := range m.Histogram.Bucket {
		below := uint64(0)
		for _, v := range values {
			if float64(v)/1e9 < b.GetUpperBound() {
				below++
			}
		}
		if b.GetCumulativeCount() != below {
			t.Errorf("%d below %v, want %d", b.GetCumulativeCount(), b.GetUpperBound(), below)
		}
	}
	exact := map[int]uint64{}
	for _, v := range values {
		if v > 0 {
			exact[int(math.Ceil(math.Log2(float64(v)/1e9)*16))]++
		}
	}
	got := decoded(m.Histogram)
	if nativeCount(m.Histogram) != uint64(len(values)) || m.Histogram.GetZeroCount() != 1 {
		t.Errorf("%d in native buckets, %d of 0", nativeCount(m.Histogram), m.Histogram.GetZeroCount())
	}
	below, exactly := uint64(0), uint64(0)
	for n := -600; n < 200; n++ {
		// What is below a bucket is at least what was exactly below the one before.
		if exactly > below+got[n] {
			t.Errorf("%d up to bucket %d, at least %d belong there", below+got[n], n, exactly)
		}
		below += got[n]
		exactly += exact[n]
	}
}

func TestBounds(t *testing.T) {
	for _, c := range []struct{ from, to time.Duration }{{DefaultFineFrom, DefaultFineTo}, {time.Millisecond, time.Second}, {10 * time.Microsecond, 11 * time.Microsecond}} {
		ends := bounds(c.from, c.to)
		last := 0.0
		for _, i := range ends {
			_, end := hist.Bounds(i)
			if is := float64(end); last > float64(c.from) && last < float64(c.to) && is/last > widest {
				t.Errorf("from %v to %v: %v to %v is wider than 5%%", c.from, c.to, time.Duration(last), time.Duration(end))
			}
			if is := float64(end); last >= lowest && last < mediumTo && is/last > medium {
				t.Errorf("from %v to %v: %v to %v is wider than 20%%", c.from, c.to, time.Duration(last), time.Duration(end))
			}
			last = float64(end)
		}
		if len(ends) > 26+4*21+int(math.Log(float64(c.to)/float64(c.from))/math.Log(1.025)) || !slices.IsSorted(ends) {
			t.Errorf("from %v to %v: %d buckets", c.from, c.to, len(ends))
		}
		t.Logf("from %v to %v: %d buckets", c.from, c.to, len(ends))
	}
	if n := len(bounds(0, 0)); n != 26 {
		t.Errorf("%d coarse bounds", n)
	}
}

// series are those of a metric, by their labels.
func series(t *testing.T, c *Collector, metric string) map[string]float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c)
	all, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range all {
		if f.GetName() != metric {
			continue
		}
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetValue())
			}
			values[strings.Join(labels, " ")] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return values
}

// TestLabelsAreBounded: whatever numbers targets call, and however many listeners come and go.
func TestLabelsAreBounded(t *testing.T) {
	e := enginetest.NewWith(t, engine.Config{Handler: engine.HandlerFunc(handle), BySyscall: true})
	c := New(e.Engine(), Options{MaxSyscalls: 3, MaxSources: 2, Source: byTag})
	p := e.TargetWith(engine.SourceOptions{Tag: "a"})
	for nr := range 20 {
		for range nr + 1 {
			p.Call(nr)
		}
	}
	abi := ABI(nativeArch(e), 1)
	got := series(t, c, "unknot_syscall_received_total")
	if want := fmt.Sprint(map[string]float64{abi + " 19": 20, abi + " 18": 19, abi + " 17": 18, abi + " other": 153}); fmt.Sprint(got) != want {
		t.Errorf("%v, want %v", got, want)
	}
	p.Call(99)
	if got := series(t, c, "unknot_syscall_received_total"); len(got) != 4 || got[abi+" other"] != 154 {
		t.Errorf("%v", got)
	}
	q, r := e.TargetWith(engine.SourceOptions{Tag: "b"}), e.TargetWith(engine.SourceOptions{Tag: "c"})
	q.Call(1)
	r.Call(1)
	want := fmt.Sprint(map[string]float64{"a": 211, "b": 1, "other": 1})
	if got := series(t, c, "unknot_source_received_total"); fmt.Sprint(got) != want {
		t.Errorf("%v, want %v", got, want)
	}
	// b goes: it keeps its count, until d wants its place. c is among the others for good.
	c.sources.update([]*engine.Source{p.Source(), r.Source()}, byTag)
	if b := c.sources.names["b"]; b == nil || b.live != 0 || b.gone.Received != 1 {
		t.Errorf("b is %+v", b)
	}
	d := e.TargetWith(engine.SourceOptions{Tag: "d"})
	c.sources.update([]*engine.Source{p.Source(), r.Source(), d.Source()}, byTag)
	if c.sources.names["b"] != nil || c.sources.names["d"] == nil || c.sources.known[r.Source()] != Other || len(c.sources.names) != 3 {
		t.Errorf("names %v", c.sources.names)
	}
	// a goes and another a comes: counted on.
	c.sources.update([]*engine.Source{d.Source()}, byTag)
	again := e.TargetWith(engine.SourceOptions{Tag: "a"})
	again.Call(1)
	c.sources.update([]*engine.Source{d.Source(), again.Source()}, byTag)
	if a := c.sources.names["a"]; a.live != 1 || a.gone.Received != 211 {
		t.Errorf("a is %+v", a)
	}
}

func TestABI(t *testing.T) {
	for want, k := range map[string]call{"x86_64": {unix.AUDIT_ARCH_X86_64, 1}, "x32": {unix.AUDIT_ARCH_X86_64, 1 | syscalls.X32Bit}, "i386": {unix.AUDIT_ARCH_I386, 1},
		"aarch64": {unix.AUDIT_ARCH_AARCH64, 1}, "arm": {unix.AUDIT_ARCH_ARM, 1}, Other: {1, 1}} {
		if got := ABI(k.arch, k.nr); got != want {
			t.Errorf("%+v: %s, want %s", k, got, want)
		}
	}
}

func TestBadOptions(t *testing.T) {
	e := enginetest.New(t, engine.HandlerFunc(handle))
	for _, o := range []Options{{MaxSyscalls: -1}, {MaxSources: -1}, {FineFrom: -1}, {FineFrom: time.Second, FineTo: time.Millisecond}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%+v is accepted", o)
				}
			}()
			New(e.Engine(), o)
		}()
	}
}

func ExampleNew() {
	t := new(testing.T) // a test's own
	e := enginetest.New(t, engine.HandlerFunc(func(r engine.Request) { _ = r.Return(0) }))
	e.Target().Call(unix.SYS_GETPPID)

	registry := prometheus.NewRegistry()
	registry.MustRegister(New(e.Engine(), Options{}))
	// http.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	all, err := registry.Gather()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	for _, f := range all {
		if f.GetName() == "unknot_received_total" {
			fmt.Println(f.GetHelp(), f.Metric[0].GetCounter().GetValue())
		}
	}
	// Output: Notifications received. 1
}
