package bench

import (
	"fmt"
	"io"
	"math"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/engine/policy"
	"golang.org/x/perf/benchfmt"
	"golang.org/x/sys/unix"
)

// units are the custom units of a result line and what is better, in the order
// in which they are written. ns/op is known to every reader.
var units = []struct {
	name   string
	better string
}{
	{"p50-roundtrip-ns", "lower"},
	{"p99-roundtrip-ns", "lower"},
	{"p999-roundtrip-ns", "lower"}, // the worst listener's
	{"p50-corrected-ns", "lower"},
	{"p99-corrected-ns", "lower"},
	{"p50-lag-ns", "lower"},
	{"p99-lag-ns", "lower"},
	{"late/op", "lower"},
	{"void", "lower"},
	{"p50-wait-ns", "lower"},
	{"p99-wait-ns", "lower"},
	{"served/s", "higher"},
	{"slowest-listener/s", "higher"},
	{"drops/op", "lower"},
	{"eintr/op", "lower"},
	{"stale/op", "lower"},
	{"lost", "lower"},
	{"cpu-ns/op", "lower"},
	// Not allocs/op, of which go test prints whole numbers only, and tools think that it
	// is the same each time: this is of the whole process, a fraction of one.
	{"mallocs/op", "lower"},
}

// Settings that have a name instead of a number.
const (
	Auto   = "auto" // the engine adapts
	noPace = "none" // drops are answered at once
)

// Name is the benchmark's name without the word Benchmark, as in the results.
func (s Spec) Name() string {
	batch, pace, confine := strconv.Itoa(s.DropBatch), s.Pace.String(), ""
	if s.DropBatch == 0 {
		batch = Auto
	}
	switch s.Pace {
	case 0:
		pace = Auto
	case policy.Immediately:
		pace = noPace
	}
	if s.Confine != nil {
		confine = "/confine=" + s.Confine.String()
	}
	rest := confine
	if s.WaitTarget > 0 {
		rest = "/target=" + s.WaitTarget.String() + rest
	}
	if s.RaisePriority {
		rest += "/priority=raise"
	}
	rest += s.Load.name()
	if s.Stall > 0 {
		rest += "/stall=" + s.Stall.String()
	}
	listeners := ""
	if s.Listeners > 0 {
		listeners = fmt.Sprintf("/listeners=%d", s.Listeners)
	}
	return fmt.Sprintf("Storm/engine=%s/path=%s%s/targets=%d/work=%v/queue=%d/workers=%d/batch=%s/policy=%v/pace=%s%s-%d",
		s.Engine, s.Path, listeners, s.Targets, s.Work, s.Queue, s.Workers, batch, s.Policy, pace, rest, runtime.GOMAXPROCS(0))
}

// per returns v for each served call; with none served there is no such number
// and the unit is left out.
func (r *Result) per(v float64) float64 {
	if r.Targets.OK == 0 {
		return math.NaN()
	}
	return v / float64(r.Targets.OK)
}

// Percentile is h's quantile q, in ns, or NaN where so few values do not bound it:
// where the 95% interval that holds for any distribution would reach beyond the
// smallest or the largest of them. It takes 6 for a median and 368 for q = .99.
func Percentile(h *hist.Snapshot, q float64) float64 {
	if n := float64(h.Count); math.Pow(max(q, 1-q), n) > .025 {
		return math.NaN()
	}
	return h.Quantile(q)
}

// values are the metrics of r by unit. Of a void result there is nothing to tell
// but that.
func (r *Result) values() []benchfmt.Value {
	var vs []benchfmt.Value
	add := func(unit string, v float64) {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			// No measurement here is good to more digits.
			if v >= 1000 {
				v = math.Round(v)
			} else {
				v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'g', 4, 64), 64)
			}
			vs = append(vs, benchfmt.Value{Value: v, Unit: unit})
		}
	}
	if r.Void() != nil {
		add("void", 1)
		if r.Open == nil {
			return vs
		}
		add("late/op", float64(r.Open.Late)/float64(max(1, r.Open.Intended)))
		return vs
	}
	add("ns/op", r.per(float64(r.Elapsed.Nanoseconds())))
	add("p50-roundtrip-ns", Percentile(r.RoundTrip, .5))
	add("p99-roundtrip-ns", Percentile(r.RoundTrip, .99))
	add("p999-roundtrip-ns", r.WorstTrip(.999))
	add("p50-corrected-ns", Percentile(r.Corrected, .5))
	add("p99-corrected-ns", Percentile(r.Corrected, .99))
	if w := r.Open; w != nil {
		// The generator's own part of the corrected latency, and the calls for
		// which it had no target.
		add("p50-lag-ns", Percentile(w.Lag, .5))
		add("p99-lag-ns", Percentile(w.Lag, .99))
		add("late/op", float64(w.Late)/float64(w.Intended))
	}
	if r.Wait != nil && r.Wait.Count > 0 {
		add("p50-wait-ns", Percentile(r.Wait, .5))
		add("p99-wait-ns", Percentile(r.Wait, .99))
	}
	add("served/s", float64(r.Targets.OK)/r.Elapsed.Seconds())
	add("slowest-listener/s", r.Slowest())
	add("drops/op", r.per(float64(r.Stats.Dropped)))
	add("eintr/op", r.per(float64(r.Targets.Failed(unix.EINTR))))
	if r.Load.Hostile != storm.Friendly {
		add("stale/op", r.per(float64(r.Stats.Stale)))
	}
	add("lost", float64(r.Lost))
	add("cpu-ns/op", r.per(float64(r.CPU.Nanoseconds())))
	add("mallocs/op", r.per(float64(r.Allocs)))
	return vs
}

// A Writer writes results in Go benchmark format.
type Writer struct{ w *benchfmt.Writer }

// NewWriter writes the head of a results file: comments, which may differ from
// run to run, keys, which say what is comparable, and the units.
func NewWriter(w io.Writer, comments []string, keys [][2]string) (*Writer, error) {
	var b strings.Builder
	for _, c := range comments {
		fmt.Fprintf(&b, "# %s\n", strings.ReplaceAll(c, "\n", " "))
	}
	for _, k := range keys {
		fmt.Fprintf(&b, "%s: %s\n", k[0], strings.ReplaceAll(k[1], "\n", " "))
	}
	b.WriteByte('\n')
	for _, u := range units {
		fmt.Fprintf(&b, "Unit %s better=%s\n", u.name, u.better)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return nil, err
	}
	return &Writer{benchfmt.NewWriter(w)}, nil
}

// Write writes one repetition as one line, and then one for each of its parts.
func (w *Writer) Write(r *Result) error {
	if err := w.write(r, r.Name()); err != nil {
		return err
	}
	// The same name but for the part, so that the parts of one storm stand together.
	name := r.Name()
	procs := strings.LastIndexByte(name, '-')
	for _, p := range r.Parts {
		if err := w.write(p, fmt.Sprintf("%s/part=%d:%v%s", name[:procs], p.Part, p.Work, name[procs:])); err != nil {
			return err
		}
	}
	return nil
}

func (w *Writer) write(r *Result, name string) error {
	res := &benchfmt.Result{Name: benchfmt.Name(name), Iters: max(1, int(r.Targets.OK)), Values: r.values(),
		// A key, so that closed and open loops never share a table.
		Config: []benchfmt.Config{{Key: "loop", Value: []byte(r.Load.Loop()), File: true}}}
	return w.w.Write(res)
}

// Histogram prints h in powers of two, as bcc's tools do.
func Histogram(w io.Writer, title string, h interface{ Log2() []uint64 }) {
	counts := h.Log2()
	var most uint64
	first, last := -1, -1
	for i, n := range counts {
		if n > 0 {
			if first < 0 {
				first = i
			}
			last = i
			most = max(most, n)
		}
	}
	fmt.Fprintf(w, "%s\n%24s : %-10s distribution\n", title, "ns", "count")
	if first < 0 {
		fmt.Fprintf(w, "%24s   nothing was measured\n", "")
		return
	}
	for i := first; i <= last; i++ {
		lo, hi := uint64(0), uint64(1)
		if i > 0 {
			lo, hi = 1<<i, 1<<(i+1)-1
		}
		n := int(40 * counts[i] / most)
		fmt.Fprintf(w, "%10d -> %-10d : %-10d |%-40s|\n", lo, hi, counts[i], strings.Repeat("*", n))
	}
}

// Duration prints nanoseconds with three digits.
func Duration(ns float64) string {
	if math.IsNaN(ns) {
		return "-"
	}
	d := time.Duration(ns)
	unit := time.Duration(1)
	for unit*1000 <= d {
		unit *= 10
	}
	return d.Round(unit).String()
}
