package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/bench/trace"
	"github.com/unknot/unknot/engine/hist"
)

func (r *traceReport) print(w io.Writer) error {
	var b strings.Builder
	switch r.settings.format {
	case "json":
		enc := json.NewEncoder(&b)
		if err := enc.Encode(r.json()); err != nil {
			return fmt.Errorf("print report: %w", err)
		}
	case "hdr":
		if !r.whole {
			return nil // the plotter takes one
		}
		r.hdr(&b)
	default:
		r.text(&b)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	return nil
}

// A row is a stage, or, where the targets are not followed, what takes its place.
type traceRow struct {
	name, from, to string
	part           bool
	h              *hist.Snapshot
}

func (r *traceReport) rows() (rows []traceRow) {
	if r.stages {
		for s := range trace.NumStages {
			from, to := s.Ends()
			if s == trace.StageService {
				switch received, _ := trace.StageWait.Ends(); r.undispatched() {
				case 0:
				case r.Stages[s].Count:
					from = received
				default:
					from += " or RECV"
				}
			}
			rows = append(rows, traceRow{s.String(), from, to, s.Part(), r.Stages[s]})
		}
	} else {
		rows = append(rows, traceRow{"wait", "RECV returns", "dispatch", false, r.Wait}, traceRow{"answer", "RECV returns", "SEND", false, r.Answer})
	}
	return append(rows, traceRow{"drop", "RECV returns", "SEND", false, r.Drop})
}

// undispatched counts the calls in the stages whose dispatch was not seen.
func (r *traceReport) undispatched() uint64 {
	return r.Stages[trace.StageService].Count - min(r.Stages[trace.StageService].Count, r.Stages[trace.StageWait].Count)
}

func (r *traceReport) text(w *strings.Builder) {
	secs := r.Elapsed.Seconds()
	fmt.Fprintf(w, "%s: %d calls received in %.2fs, %.0f/s", r.who, r.Seen, secs, float64(r.Seen)/secs)
	if r.settings.sample > 1 {
		fmt.Fprintf(w, "; %d followed (one in %d)", r.Received, r.settings.sample)
	}
	fmt.Fprintf(w, "\nanswered %d  dropped %d  stale %d\n\n", r.Answered, r.Dropped, r.Stale)
	r.tableText(w)
	if r.stages {
		r.sumText(w)
		switch n, of := r.undispatched(), r.Stages[trace.StageService].Count; {
		case n == 0:
		case n == of:
			fmt.Fprintln(w, "dispatch:      not seen: nobody asked ID_VALID, so service begins when RECV returns")
		default:
			fmt.Fprintf(w, "dispatch:      seen of %d calls in %d: of the others nobody asked ID_VALID, and their service begins when RECV returns\n", of-n, of)
		}
	}
	fmt.Fprintln(w, r.littleText())
	fmt.Fprintln(w, r.lossText())
	if c := r.Slowest; c != nil {
		r.explainText(w, c)
	}
	if r.settings.bars {
		for _, row := range r.rows() {
			if row.h.Count > 0 {
				fmt.Fprintln(w)
				bench.Histogram(w, row.name+" ("+row.from+" → "+row.to+")", row.h)
			}
		}
	}
	if !r.whole {
		fmt.Fprintln(w)
	}
}

// tableText prints a line for each stage that was seen.
func (r *traceReport) tableText(w *strings.Builder) {
	rows := slices.DeleteFunc(r.rows(), func(row traceRow) bool { return row.h.Count == 0 })
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(w, "%-10s %-30s %10s %10s %10s %10s %10s %6s\n", "stage", "from → to", "count", "mean", "p50", "p99", "max", "share")
	_, cycle := r.Sum()
	for _, row := range rows {
		share := ""
		if row.part {
			share = fmt.Sprintf("%.1f%%", 100*float64(row.h.Sum)/(cycle*float64(r.Stages[trace.StageCycle].Count)))
		}
		line := fmt.Sprintf("%-10s %-30s %10d %10s %10s %10s %10s %6s", row.name, row.from+" → "+row.to, row.h.Count,
			bench.Duration(row.h.Mean()), bench.Duration(bench.Percentile(row.h, .5)), bench.Duration(bench.Percentile(row.h, .99)), bench.Duration(float64(row.h.Max)), share)
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
	fmt.Fprintln(w)
}

func (r *traceReport) sumText(w *strings.Builder) {
	parts, cycle := r.Sum()
	if math.IsNaN(cycle) {
		return
	}
	before := r.Stages[trace.StageBefore].Mean()
	fmt.Fprintf(w, "sum:           %s in stages + %s before the trap = %s; between two sys_exits %s (%+.1f%%)\n",
		bench.Duration(parts-before), bench.Duration(before), bench.Duration(parts), bench.Duration(cycle), 100*(parts/cycle-1))
}

func (r *traceReport) littleText() string {
	mean, stderr := r.occupancy.Mean()
	if math.IsNaN(mean) {
		return "Little's law:  not checked: too few looks"
	}
	verdict := "agree"
	if !r.occupancy.Agrees(r.Little()) {
		verdict = "DIFFER: calls were lost or counted twice, or forgotten by the supervisor, or the load was not steady"
	}
	return fmt.Sprintf("Little's law:  rate × mean time = %.3g in flight; %d looks saw %.3g ± %.2g: %s",
		r.Little(), r.occupancy.Looks(), mean, stderr, verdict)
}

// lossText says what the report lacks; nothing is left out silently.
func (r *traceReport) lossText() string {
	var lost []string
	for _, l := range []struct {
		n    uint64
		what string
	}{
		{r.Overflow, "found no place in the table"},
		{r.Missed, "events that could not be read, or that the kernel skipped"},
		{r.Unmatched, "answers to calls received before the tracer started, or lost"},
		{r.Unjoined, "answers whose target was not known when it trapped, or had not slept yet"},
		{r.Broken, "calls that a signal broke off after their answer"},
	} {
		if l.n > 0 {
			lost = append(lost, fmt.Sprintf("%d %s", l.n, l.what))
		}
	}
	if len(lost) == 0 {
		return "lost:          none"
	}
	return "lost:          " + strings.Join(lost, "; ")
}

func (r *traceReport) explainText(w *strings.Builder, c *trace.Call) {
	total := c.Total()
	fmt.Fprintf(w, "\nslowest call: %v (system call %d of %s, handled by %s; %v before its trap)\n", total, c.NR, threadText(c.Target), threadText(c.Handler), c.Before)
	for _, p := range c.Causes {
		share := 100 * float64(p.Time) / float64(total)
		line := fmt.Sprintf("  %5.1f%%  %12v  %-26s %s", share, p.Time, p.Name, strings.Repeat("*", int(share*.3)))
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
}

// threadText names a thread by its number in our PID namespace.
func threadText(tid int) string {
	if tid == 0 {
		return "a thread without a number in this PID namespace"
	}
	return fmt.Sprintf("thread %d", tid)
}

type jsonStage struct {
	Name    string     `json:"name"`
	From    string     `json:"from"`
	To      string     `json:"to"`
	Count   uint64     `json:"count"`
	Mean    *float64   `json:"mean_ns"` // these are null where nothing was counted, percentiles where too little was
	P50     *float64   `json:"p50_ns"`
	P90     *float64   `json:"p90_ns"`
	P99     *float64   `json:"p99_ns"`
	P999    *float64   `json:"p999_ns"`
	Max     int64      `json:"max_ns"`
	Buckets [][3]int64 `json:"buckets,omitzero"` // low, high (exclusive), count
}

type jsonCause struct {
	Name string `json:"name"`
	NS   int64  `json:"ns"`
}

func number(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	v = math.Round(v*1000) / 1000
	return &v
}

func (r *traceReport) json() any {
	type little struct {
		Expected *float64 `json:"rate_times_mean"`
		Mean     *float64 `json:"mean_in_flight"`
		Error    *float64 `json:"standard_error"`
		Looks    int      `json:"looks"`
		Agrees   bool     `json:"agrees"`
	}
	type slow struct {
		NS      int64       `json:"ns"`
		Before  int64       `json:"before_ns"`
		NR      int         `json:"syscall"`
		Target  int         `json:"target"`
		Handler int         `json:"handler"`
		Causes  []jsonCause `json:"causes"`
	}
	parts, cycle := r.Sum()
	mean, stderr := r.occupancy.Mean()
	out := struct {
		PID        int               `json:"pid,omitempty"`
		Whole      bool              `json:"whole"` // not an interval
		Elapsed    int64             `json:"elapsed_ns"`
		Sample     int               `json:"sample"`
		Seen       uint64            `json:"seen"`
		Received   uint64            `json:"received"`
		Dispatched uint64            `json:"dispatched"`
		Answered   uint64            `json:"answered"`
		Dropped    uint64            `json:"dropped"`
		Stale      uint64            `json:"stale"`
		Awake      uint64            `json:"received_before_target_slept"`
		Lost       map[string]uint64 `json:"lost"`
		Sum        *float64          `json:"sum_of_stages_ns"`
		Cycle      *float64          `json:"between_sys_exits_ns"`
		Little     little            `json:"little"`
		Stages     []jsonStage       `json:"stages"`
		Slowest    *slow             `json:"slowest,omitempty"`
	}{
		r.settings.pid, r.whole, r.Elapsed.Nanoseconds(), r.settings.sample, r.Seen, r.Received, r.Dispatched, r.Answered, r.Dropped, r.Stale, r.Awake,
		map[string]uint64{"overflow": r.Overflow, "missed": r.Missed, "unmatched": r.Unmatched, "unjoined": r.Unjoined, "broken": r.Broken},
		number(parts), number(cycle),
		little{number(r.Little()), number(mean), number(stderr), r.occupancy.Looks(), r.occupancy.Agrees(r.Little())}, nil, nil,
	}
	out.Stages = r.jsonStages()
	if c := r.Slowest; c != nil {
		out.Slowest = &slow{c.Total().Nanoseconds(), c.Before.Nanoseconds(), c.NR, c.Target, c.Handler, nil}
		for _, p := range c.Causes {
			out.Slowest.Causes = append(out.Slowest.Causes, jsonCause{p.Name, p.Time.Nanoseconds()})
		}
	}
	return out
}

func (r *traceReport) jsonStages() (all []jsonStage) {
	for _, row := range r.rows() {
		s := jsonStage{Name: row.name, From: row.from, To: row.to, Count: row.h.Count, Max: row.h.Max, Buckets: [][3]int64{},
			Mean: number(row.h.Mean()), P50: number(bench.Percentile(row.h, .5)), P90: number(bench.Percentile(row.h, .9)), P99: number(bench.Percentile(row.h, .99)), P999: number(bench.Percentile(row.h, .999))}
		for i, n := range row.h.Counts {
			if n > 0 {
				lo, hi := hist.Bounds(i)
				s.Buckets = append(s.Buckets, [3]int64{lo, hi, int64(n)})
			}
		}
		all = append(all, s)
	}
	return all
}

// hdr prints each stage's percentiles in HdrHistogram's text format, in µs, after
// a line that names it.
func (r *traceReport) hdr(w *strings.Builder) {
	for _, row := range r.rows() {
		if row.h.Count == 0 {
			continue
		}
		// A builder takes everything.
		_ = printHDR(w, fmt.Sprintf("stage %s: %s to %s", row.name, row.from, row.to), row.h)
	}
}
