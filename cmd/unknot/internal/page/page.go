package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/perf/benchmath"
)

// Units, as benchfmt tidies them: times are in seconds.
const (
	servedUnit = "served/s"
	tripUnit   = "p99-roundtrip-sec"
	waitUnit   = "p99-wait-sec"
	eintrUnit  = "eintr/op"
	slowUnit   = "slowest-listener/s"
	worstUnit  = "p999-roundtrip-sec" // of the listener that is worst off
)

// What the percentiles of step latency are of.
const (
	corrected   = "corrected round trip"
	uncorrected = "round trip"
)

func page(sets []*set) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(`# Results

<!-- Made by "make results-page" from the files beside it; "make results" measures anew. -->

Figures are of one machine, and shared machines are noisy: compare engines within a
figure, not figures of two machines or days. Points are medians with 95% confidence
intervals. What the engines are: ` + "`go doc ./bench`" + `. Every number here is in the
file that its section names, with the command that measured it and the date.
`)
	for _, s := range sets {
		if err := s.section(&b); err != nil {
			return nil, fmt.Errorf("%s: %w", s.path(".txt"), err)
		}
	}
	return b.Bytes(), nil
}

func (s *set) section(b *bytes.Buffer) error {
	results := "results/" + s.machine + "/" + s.name + ".txt"
	fmt.Fprintf(b, "\n## %s\n\n[%s.txt](%s/%s.txt)", s.machine, s.name, s.machine, s.name)
	fmt.Fprintf(b, ", of commit `%s`. The fingerprint `%s` is made of:\n\n| | |\n|---|---|\n", s.steps[throughput].commit, s.keys["machine"])
	for _, f := range s.facts {
		fmt.Fprintf(b, "| %s | %s |\n", f[0], strings.ReplaceAll(f[1], "|", `\|`))
	}
	for _, part := range []func(*bytes.Buffer, string) error{s.throughput, s.latencySection, s.stagesSection, s.overload, s.listeners, s.regress} {
		if err := part(b, results); err != nil {
			return err
		}
	}
	return nil
}

// head begins the section of a step.
func (s *set) head(b *bytes.Buffer, step, title, text string) {
	st := s.steps[step]
	fmt.Fprintf(b, "\n### %s\n\n%s\n\n![%s](%s/%s.svg)\n\n%s\n\n```\n%s\n```\n\n", title, text, title, s.machine, step, st.date, st.command)
}

func (s *set) throughput(b *bytes.Buffer, results string) error {
	s.head(b, throughput, "Throughput", `A closed loop: each target calls again as soon as it has its answer. The handler does
nothing, so this is what the engines themselves cost.`)
	medians, err := s.steps[throughput].medians(engines, servedUnit)
	if err != nil {
		return err
	}
	table(b, "calls served per second; targets", engines, medians, whole)
	fmt.Fprintf(b, "\nWith benchstat: `go tool benchstat -col /engine -row .name,/path,/targets -filter '/work:0s AND loop:closed' %s`\n", results)
	return nil
}

// xsOf are all numbers of targets or listeners, also those that only some engines have.
func xsOf(medians map[engine]map[int]benchmath.Summary) []int {
	all := map[int]bool{}
	for _, of := range medians {
		for x := range of {
			all[x] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// table has a row for each engine and a column for each number of targets or listeners.
func table(b *bytes.Buffer, title string, list []engine, medians map[engine]map[int]benchmath.Summary, print func(float64) string) {
	xs := xsOf(medians)
	fmt.Fprintf(b, "| %s: |", title)
	for _, x := range xs {
		fmt.Fprintf(b, " %d |", x)
	}
	b.WriteString("\n|---|" + strings.Repeat("---:|", len(xs)) + "\n")
	for _, e := range list {
		fmt.Fprintf(b, "| %v |", e)
		for _, x := range xs {
			if m, ok := medians[e][x]; ok {
				fmt.Fprintf(b, " %s |", print(m.Center))
			} else {
				b.WriteString(" – |")
			}
		}
		b.WriteString("\n")
	}
}

// A row of tables: what a table shows, the unit that it takes, and how a value is printed.
type shown struct {
	title, unit string
	print       func(float64) string
}

func whole(v float64) string    { return fmt.Sprintf("%.0f", v) }
func asMicros(v float64) string { return micros(v * 1e9) }

// tables writes a table for each of all.
func (st *step) tables(b *bytes.Buffer, list []engine, all ...shown) error {
	for i, t := range all {
		medians, err := st.medians(list, t.unit)
		if err != nil {
			return err
		}
		if i > 0 {
			b.WriteString("\n")
		}
		table(b, t.title+"; "+st.x(), list, medians, t.print)
	}
	return nil
}

func (s *set) latencySection(b *bytes.Buffer, _ string) error {
	s.head(b, latency, "Latency", `An open loop: calls are due at the times of a Poisson process, whatever the answers. The
corrected latency is from when a call was due, and so has in it what a stall does to
the calls behind it; the uncorrected one is from when it was made. A percentile is
shown if at least `+fmt.Sprint(beyond)+` calls lie above it. HdrHistogram's plotter reads
[`+s.name+`.latency.hgrm](`+s.machine+`/`+s.name+`.latency.hgrm).`)
	b.WriteString("| µs, corrected / not | p50 | p90 | p99 | p99.9 | calls |\n|---|---:|---:|---:|---:|---:|\n")
	for _, e := range engines {
		c, err := s.curveOf(corrected, e)
		if err != nil {
			return err
		}
		u, err := s.curveOf(uncorrected, e)
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "| %v |", e)
		for _, q := range []float64{.5, .9, .99, .999} {
			fmt.Fprintf(b, " %s / %s |", micros(c.at(q)), micros(u.at(q)))
		}
		fmt.Fprintf(b, " %d |\n", c.count)
	}
	return nil
}

// at reads a percentile, NaN if too few calls stand behind it.
func (c *curve) at(q float64) float64 {
	if (1-q)*float64(c.count) < beyond {
		return math.NaN()
	}
	for _, p := range c.points {
		if p.p >= q {
			return p.value
		}
	}
	return math.NaN()
}

func micros(ns float64) string {
	switch {
	case math.IsNaN(ns):
		return "–"
	case ns < 1e5:
		return fmt.Sprintf("%.1f", ns/1e3)
	}
	return fmt.Sprintf("%.0f", ns/1e3)
}

func (s *set) stagesSection(b *bytes.Buffer, _ string) error {
	s.head(b, stages, "Stages", `Where the time of a call goes, by the kernel's tracepoints: from its program's last
return from the kernel (before the trap) to the next. [What the stages are](../docs/trace.md).
Tracing slows all of them, and the queues ask ID_VALID for each call here: these are
shares of the time, not the times of an untraced engine.`)
	b.WriteString("| mean, µs |")
	for _, p := range parts {
		b.WriteString(" " + p.name + " |")
	}
	b.WriteString(" cycle | calls |\n|---|" + strings.Repeat("---:|", len(parts)+2) + "\n")
	for _, e := range engines {
		all, err := s.stagesOf(e)
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "| %v |", e)
		for _, p := range parts {
			fmt.Fprintf(b, " %s |", micros(meanOf(all, p.name)))
		}
		fmt.Fprintf(b, " %s | %d |\n", micros(*all["cycle"].Mean), all["cycle"].Count)
	}
	return nil
}

func (s *set) overload(b *bytes.Buffer, _ string) error {
	s.head(b, overload, "Overload", `More targets than the workers can serve, each calling again at once (a closed loop), and
handlers that compute. When the queue is full, the oldest calls are answered with
EINTR. An engine that handles overload well serves as much as before, and what it
serves has not waited long.`)
	return s.steps[overload].tables(b, queues,
		shown{"calls served per second", servedUnit, whole},
		shown{"p99 wait, µs", waitUnit, asMicros},
		shown{"p99 round trip, µs", tripUnit, asMicros},
		shown{"EINTRs per served call", eintrUnit, func(v float64) string { return fmt.Sprintf("%.3g", v) }})
}

func (s *set) listeners(b *bytes.Buffer, _ string) error {
	if s.steps[listeners] == nil {
		return nil // measured before there was the step
	}
	s.head(b, listeners, "Many listeners", `So many processes, each with a listener and a thread of its own that calls again as soon
as it has its answer. The engines bare, chan and seed have a thread or goroutine for each
listener, bare-pool one for each CPU; unknot has as many receive threads as CPUs. A
listener's p99.9 is shown where enough of its calls lie above it in each repetition.`)
	return s.steps[listeners].tables(b, crowds,
		shown{"calls served per second", servedUnit, whole},
		shown{"of these the slowest listener's", slowUnit, whole},
		shown{"p99 round trip, µs", tripUnit, asMicros},
		shown{"worst listener's p99.9 round trip, µs", worstUnit, asMicros})
}

// regress says what later results are held against.
func (s *set) regress(b *bytes.Buffer, _ string) error {
	dir := filepath.Join(s.dir, s.machine)
	b.WriteString("\n### Did it get slower?\n\n")
	base, err := os.Readlink(filepath.Join(dir, "baseline.txt"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		b.WriteString("No baseline is chosen: `baseline.txt` is a link to the results that later ones are held against.\n")
	case err != nil:
		return err
	default:
		if _, err := os.Stat(filepath.Join(dir, base)); err != nil {
			return fmt.Errorf("the baseline is gone: %w", err)
		}
		fmt.Fprintf(b, "The baseline is [%s](%s/%s). `unknot compare results/%s/baseline.txt NEW.txt` says what changed\nsince, with [a verdict](../docs/gate.md) for each benchmark.\n", base, s.machine, base, s.machine)
	}
	text, err := os.ReadFile(filepath.Join(dir, "floor.json"))
	if errors.Is(err, fs.ErrNotExist) {
		b.WriteString("\nNo noise floor is recorded.\n")
		return nil
	}
	if err != nil {
		return err
	}
	var floor struct {
		Machine, Command    string
		Date                time.Time
		Comparisons, Rounds int
		Rows                []struct {
			Benchmark, Unit string
			Floor           float64
		}
	}
	if err := json.Unmarshal(text, &floor); err != nil {
		return fmt.Errorf("floor.json: %w", err)
	}
	if floor.Machine != s.keys["machine"] {
		return fmt.Errorf("floor.json is of another machine: %s, and these results of %s: calibrate again", floor.Machine, s.keys["machine"])
	}
	fmt.Fprintf(b, "\nThe [noise floor](%s/floor.json): the largest change of `sec/op` in %d comparisons of this command with\nitself, %d rounds each, %s.\n\n```\n%s\n```\n\n| benchmark | floor |\n|---|---:|\n",
		s.machine, floor.Comparisons, floor.Rounds, floor.Date.UTC().Format(time.RFC3339), floor.Command)
	for _, r := range floor.Rows {
		if r.Unit == "sec/op" {
			fmt.Fprintf(b, "| `%s` | %.1f%% |\n", r.Benchmark, 100*r.Floor)
		}
	}
	return nil
}
