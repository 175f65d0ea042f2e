package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Made-up results: what each figure must show follows from these few functions.

var targetsOf = map[string][]int{throughput: {1, 4, 16, 64, 256}, overload: {4, 16, 64, 256}, listeners: {1, 4, 16, 64}}

// served is the median of step throughput and overload: it differs by engine and
// by the number of targets.
func served(e engine, targets int) float64 {
	for i, x := range crowds {
		if x == e {
			return float64(10000*(i+1) + 10*targets)
		}
	}
	return 0
}

// The others, in ns, are not proportional to it: one drawn for another shows.
func wait(e engine, targets int) float64 { return math.Round(math.Pow(served(e, targets), 1.5)) }
func trip(e engine, targets int) float64 { return 1e7 + served(e, targets)*float64(targets) }

func means(e engine) map[string]float64 {
	s := served(e, 0)
	m := map[string]float64{"before": s, "wakeup": 2 * s, "receive": 3 * s, "service": s / 2, "answer": s, "return": s}
	if e.path == "queue" {
		m["wait"] = 4 * s
	}
	return m
}

func nameOf(e engine, targets int, more string) string {
	return fmt.Sprintf("Storm/engine=%s/path=%s/targets=%d%s-2", e.name, e.path, targets, more)
}

const headFormat = `# step: %s
# command: unknot bench for %s
# commit: abc
# date: 2026-01-02T03:04:05Z
# machine cpu: Example
# machine boot: none
cpu: Example
machine: c0ffee
Unit served/s better=higher
`

// results makes a results file.
func results() string {
	var b strings.Builder
	for _, step := range []string{throughput, latency, stages, overload, listeners} {
		fmt.Fprintf(&b, headFormat, step, step)
		for _, e := range crowds {
			if step == overload && e.path != "queue" || step != listeners && e.name == "bare-pool" {
				continue
			}
			for _, x := range targetsOf[step] {
				for _, noise := range []float64{1.1, 1, .9, .95, 1.05, 1, 1} {
					name, worst := nameOf(e, x, ""), ""
					if step == listeners {
						name = strings.Replace(nameOf(e, 1, ""), "/targets", fmt.Sprintf("/listeners=%d/targets", x), 1)
						worst = fmt.Sprintf(" %v slowest-listener/s %v p999-roundtrip-ns", served(e, x)/float64(x)*noise, 3*wait(e, x)*noise)
					}
					fmt.Fprintf(&b, "Benchmark%s 1 %v served/s %v p99-wait-ns %v p99-roundtrip-ns%s 0.5 eintr/op 0 lost\n",
						name, served(e, x)*noise, wait(e, x)*noise, trip(e, x)*noise, worst)
				}
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

func percentiles() string {
	var b strings.Builder
	for _, e := range engines {
		for i, what := range []string{corrected, uncorrected} {
			fmt.Fprintf(&b, "#[%s of %s, in µs]\n Value\tPercentile\tTotalCount\t1/(1-Percentile)\n\n", what, nameOf(e, 128, "/loop=open"))
			for _, p := range []float64{0, .5, .9, .99, .999, 1} {
				inverse := "inf"
				if p < 1 {
					inverse = fmt.Sprintf("%.2f", 1/(1-p))
				}
				fmt.Fprintf(&b, "%12.3f %12.6f %12d %12s\n", served(e, 0)/1e3*(1+p)/float64(1+i), p, int(2000*p), inverse)
			}
			b.WriteString("#[Mean    =        1.000, StdDeviation   =        1.000]\n#[Max     =        1.000, Total count    =        2000]\n")
		}
	}
	return b.String()
}

func breakdowns() string {
	var b strings.Builder
	for _, e := range engines {
		cycle := 0.0
		var all []string
		for _, p := range parts {
			if m, ok := means(e)[p.name]; ok {
				cycle += m
				all = append(all, fmt.Sprintf(`{"name":%q,"count":100,"mean_ns":%v}`, p.name, m))
			}
		}
		all = append(all, fmt.Sprintf(`{"name":"cycle","count":100,"mean_ns":%v}`, cycle), `{"name":"execute","count":0,"mean_ns":null}`)
		fmt.Fprintf(&b, `{"benchmark":%q,"lost":0,"stages":[%s]}`+"\n", nameOf(e, 16, ""), strings.Join(all, ","))
	}
	return b.String()
}

// A tree is files by extension; "" stands for those with a name of their own.
type tree map[string]string

func made() tree {
	return tree{
		"2026-01-02-abc.txt": results(), "2026-01-02-abc.latency.hgrm": percentiles(), "2026-01-02-abc.stages.json": breakdowns(),
		"floor.json": `{"machine":"c0ffee","date":"2026-01-02T00:00:00Z","command":"unknot bench","comparisons":5,"rounds":20,
			"rows":[{"benchmark":"Storm/x-2","unit":"sec/op","floor":0.0123},{"benchmark":"Storm/x-2","unit":"served/s","floor":0.5}]}`,
	}
}

func (tr tree) write(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	machine := filepath.Join(dir, "example-2cpu")
	if err := os.Mkdir(machine, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range tr {
		if err := os.WriteFile(filepath.Join(machine, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("2026-01-02-abc.txt", filepath.Join(machine, "baseline.txt")); err != nil {
		t.Fatal(err)
	}
	return dir
}
