package compare

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/perf/benchunit"
)

// percent prints a part as a percentage without a sign.
func percent(v float64) string {
	if math.IsNaN(v) {
		return "?"
	}
	if p := 100 * v; p >= 1000 {
		return fmt.Sprintf("%.0f%%", p)
	}
	return fmt.Sprintf("%.1f%%", 100*v)
}

// signed prints a part as a percentage with a sign; ? where there is no ratio.
func signed(v float64) string {
	switch {
	case math.IsNaN(v):
		return "?"
	case math.IsInf(v, 1):
		return "+∞"
	}
	return fmt.Sprintf("%+.1f%%", 100*v)
}

// centers prints both medians in one scale, as benchstat does.
func (r *Row) centers() (old, new string) {
	var values []float64
	for _, s := range []*Summary{r.Old, r.New} {
		if s != nil {
			values = append(values, float64(s.Center))
		}
	}
	scale := benchunit.CommonScale(values, benchunit.ClassOf(r.Unit))
	print := func(s *Summary) string {
		if s == nil {
			return "missing"
		}
		return scale.Format(float64(s.Center)) + " ±" + s.spread()
	}
	return print(r.Old), print(r.New)
}

// spread is half the confidence interval as a part of the median.
func (s *Summary) spread() string {
	c, lo, hi := float64(s.Center), float64(s.Lo), float64(s.Hi)
	switch {
	case math.IsInf(lo, 0) || math.IsInf(hi, 0):
		return "∞"
	case lo == c && hi == c:
		return "0%"
	case !(c > 0):
		return "?"
	}
	return fmt.Sprintf("%.0f%%", 100*max(hi/c-1, 1-lo/c))
}

// interval is the confidence interval of the change.
func (r *Row) interval() string {
	lo, hi := float64(r.Lo), float64(r.Hi)
	if math.IsNaN(lo) || math.IsInf(hi, 0) && lo <= -1 {
		return ""
	}
	return fmt.Sprintf("[%s, %s]", signed(lo), signed(hi))
}

// runs says how many values there are: a side, or in how many rounds.
func (r *Row) runs() string {
	switch {
	case r.Old == nil || r.New == nil:
		return ""
	case r.Paired:
		return fmt.Sprintf("%d rounds", r.Pairs)
	case r.Old.N == r.New.N:
		return fmt.Sprintf("n=%d", r.Old.N)
	}
	return fmt.Sprintf("n=%d+%d", r.Old.N, r.New.N)
}

// summary is the report's last word, in one line.
func (r *Report) summary() string {
	count := map[Verdict]int{}
	gated := 0
	for _, row := range r.Rows {
		if row.Gated {
			gated++
			count[row.Verdict]++
		}
	}
	var parts []string
	for _, v := range []Verdict{Regressed, Inconclusive, Improved, Pass, New} {
		if count[v] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count[v], v))
		}
	}
	s := fmt.Sprintf("%s: %d gated", r.Verdict, gated)
	if len(parts) > 0 {
		s += ": " + strings.Join(parts, ", ")
	}
	if r.Reason != "" {
		s += " (" + r.Reason + ")"
	}
	return s
}

// remarks are the notes, with what the report must say of itself before them.
func (r *Report) remarks() (lines []string) {
	if names := r.names(); names != "" {
		lines = append(lines, names)
	}
	if r.Facts != "" {
		lines = append(lines, "on "+r.Facts)
	}
	if len(r.Mismatch) > 0 {
		lines = append(lines, "the machines differ: "+strings.Join(r.Mismatch, "; "))
	}
	if r.Seed != nil {
		line := fmt.Sprintf("interleaved, order seed %d", *r.Seed)
		if r.Budget > 0 {
			line += fmt.Sprintf(", with a budget of %v: each row until its verdict", time.Duration(float64(r.Budget)*float64(time.Second)))
		}
		lines = append(lines, line)
	}
	if r.Repeated > 0 {
		line := fmt.Sprintf("pairs that other processes or machines disturbed, and that were measured again: %d", r.Repeated)
		if r.Disturbed > 0 {
			line += fmt.Sprintf(" (%d were disturbed again)", r.Disturbed)
		}
		lines = append(lines, line)
	}
	if c := r.Confirmation; c != nil {
		lines = append(lines, fmt.Sprintf("confirmation: %d of %d suspect rows regressed again in %s%d fresh rounds (%s, %s)", c.Confirmed, c.Suspects, map[bool]string{true: "up to "}[r.Budget > 0], c.Rounds, c.Old, c.New))
	} else if len(r.Regressed()) > 0 {
		lines = append(lines, "not confirmed by fresh rounds (a session with --run measures regressions again)")
	}
	return append(lines, r.Notes...)
}

// Text writes the report for people.
func (r *Report) Text(w io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "old: %s\nnew: %s\n", r.Old, r.New)
	last := ""
	tables(r.Rows, func(config string, gated bool, rows []*Row) {
		b.WriteByte('\n')
		if config != last {
			fmt.Fprintln(&b, config)
		}
		last = config
		if gated {
			fmt.Fprintf(&b, "gated:\n")
		} else {
			fmt.Fprintf(&b, "shown, not gated:\n")
		}
		t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintf(t, "  benchmark\tunit\told\tnew\tchange\t%.0f%% interval\tθ\truns\tverdict\n", 100*(1-2*r.Alpha))
		var reasons []string
		for _, row := range rows {
			old, new := row.centers()
			verdict := string(row.Verdict)
			if row.Reason != "" {
				i := indexOrAdd(&reasons, row.Reason)
				verdict += fmt.Sprintf(" [%d]", i+1)
			}
			fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", row.Benchmark, row.Unit, old, new,
				signed(float64(row.Change)), row.interval(), percent(float64(row.Theta)), row.runs(), verdict)
		}
		_ = t.Flush()
		for i, s := range reasons {
			fmt.Fprintf(&b, "  [%d] %s\n", i+1, s)
		}
	})
	for _, p := range r.Profiles {
		fmt.Fprintf(&b, "\n%s, time that new spends more (cum: below the function too):\n", p.Benchmark)
		for _, l := range p.Top {
			fmt.Fprintf(&b, "  %s\n", l)
		}
		fmt.Fprintf(&b, "  such as: %s\n", p.Command)
	}
	b.WriteByte('\n')
	for _, l := range r.remarks() {
		fmt.Fprintf(&b, "note: %s\n", l)
	}
	if r.PlotFile != "" {
		fmt.Fprintf(&b, "plot of the pairs: %s\n", r.PlotFile)
	}
	fmt.Fprintf(&b, "same medians: %s\n%s\n", r.Benchstat, r.summary())
	_, err := w.Write(b.Bytes())
	return err
}

func indexOrAdd(list *[]string, s string) int {
	for i, have := range *list {
		if have == s {
			return i
		}
	}
	*list = append(*list, s)
	return len(*list) - 1
}

// tables calls f for the rows of each configuration, the gated ones first.
func tables(rows []*Row, f func(config string, gated bool, rows []*Row)) {
	var configs []string
	for _, r := range rows {
		indexOrAdd(&configs, r.Config)
	}
	for _, gated := range []bool{true, false} {
		for _, c := range configs {
			var some []*Row
			for _, r := range rows {
				if r.Config == c && r.Gated == gated {
					some = append(some, r)
				}
			}
			if len(some) > 0 {
				f(c, gated, some)
			}
		}
	}
}

// JSON writes the report for programs.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(r)
}

// Markdown writes the report for a comment on a pull request.
func (r *Report) Markdown(w io.Writer) error {
	var b bytes.Buffer
	icon := map[Verdict]string{Pass: "✅", Improved: "🚀", Regressed: "❌", Inconclusive: "❔", New: "🆕"}
	fmt.Fprintf(&b, "### %s Benchmarks: %s\n", icon[r.Verdict], escape(r.summary()))
	last := ""
	tables(r.Rows, func(config string, gated bool, rows []*Row) {
		if !gated {
			fmt.Fprintf(&b, "\n<details><summary>Shown, not gated (%d)</summary>\n", len(rows))
		}
		if config != last {
			fmt.Fprintf(&b, "\n`%s`\n", strings.ReplaceAll(config, "`", "'"))
		}
		last = config
		fmt.Fprintf(&b, "\n| benchmark | unit | old | new | change | %.0f%% interval | θ | runs | verdict |\n|---|---|--:|--:|--:|---|--:|---|---|\n", 100*(1-2*r.Alpha))
		for _, row := range rows {
			old, new := row.centers()
			verdict := string(row.Verdict)
			if row.Reason != "" {
				verdict += ": " + row.Reason
			}
			if gated {
				verdict = icon[row.Verdict] + " " + verdict
			}
			for _, cell := range []string{row.Benchmark, row.Unit, old, new, signed(float64(row.Change)), row.interval(), percent(float64(row.Theta)), row.runs(), verdict} {
				fmt.Fprintf(&b, "| %s ", escape(cell))
			}
			b.WriteString("|\n")
		}
		if !gated {
			b.WriteString("\n</details>\n")
		}
	})
	for _, p := range r.Profiles {
		fmt.Fprintf(&b, "\n<details><summary>%s: where new spends more time</summary>\n\n```\n", escape(p.Benchmark))
		for _, l := range p.Top {
			fmt.Fprintf(&b, "%s\n", strings.ReplaceAll(l, "`", "'"))
		}
		b.WriteString("```\n\n</details>\n")
	}
	b.WriteByte('\n')
	for _, l := range r.remarks() {
		fmt.Fprintf(&b, "- %s\n", escape(l))
	}
	if r.PlotFile != "" {
		fmt.Fprintf(&b, "- [plot of the pairs](<%s>)\n", strings.NewReplacer("<", "%3C", ">", "%3E", "\n", "%0A").Replace(r.PlotFile))
	}
	fmt.Fprintf(&b, "- same medians: `%s`\n", strings.ReplaceAll(r.Benchstat, "`", "'"))
	_, err := w.Write(b.Bytes())
	return err
}

// escape keeps names, which are anybody's, from being markup: a pull request
// may bring benchmarks of any name.
func escape(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch r {
		case '|', '*', '_', '`', '[', ']', '\\', '~', '#', '@', '!':
			b.WriteByte('\\')
			b.WriteRune(r)
		case '<':
			b.WriteString("&lt;")
		case '>':
			b.WriteString("&gt;")
		case '&':
			b.WriteString("&amp;")
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
