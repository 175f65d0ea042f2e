package main

import (
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden page anew")

func rendered(t *testing.T, tr tree) map[string]string {
	t.Helper()
	files, err := render(tr.write(t))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, f := range files {
		all[strings.TrimPrefix(f.name, "example-2cpu/")] = string(f.data)
	}
	return all
}

func TestPage(t *testing.T) {
	got := rendered(t, made())["README.md"]
	const golden = "testdata/page.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("not as in %s (go test -update writes it anew):\n%s", golden, got)
	}
}

type point struct{ x, y float64 }

var pathOf = regexp.MustCompile(`<path d="(M[^"]*)"\s+style="([^"]*)"`)

// paths are the points of all paths of an SVG whose style has all of the words.
func paths(svg string, style ...string) (all [][]point) {
next:
	for _, m := range pathOf.FindAllStringSubmatch(svg, -1) {
		for _, s := range style {
			if !strings.Contains(m[2], s) {
				continue next
			}
		}
		var ps []point
		for _, f := range strings.FieldsFunc(m[1], func(r rune) bool { return r == 'M' || r == 'L' || r == 'Z' }) {
			x, y, ok := strings.Cut(f, ",")
			a, err1 := strconv.ParseFloat(x, 64)
			b, err2 := strconv.ParseFloat(y, 64)
			if !ok || err1 != nil || err2 != nil {
				continue next // an arc
			}
			ps = append(ps, point{a, b})
		}
		all = append(all, ps)
	}
	return all
}

func colourOf(e engine) string {
	c := colours[e]
	return fmt.Sprintf("#%02X%02X%02X", c.R, c.G, c.B)
}

// axis finds out how an axis maps values, from two points, and holds others to it.
type axis struct{ v0, p0, slope float64 }

func newAxis(v0, p0, v1, p1 float64) axis { return axis{v0, p0, (p1 - p0) / (v1 - v0)} }

func (a axis) at(v float64) float64 { return a.p0 + (v-a.v0)*a.slope }

// TestLinesShowTheirMedians: of each engine there is one line, in its colour, and
// all of them are drawn to one scale.
func TestLinesShowTheirMedians(t *testing.T) {
	files := rendered(t, made())
	log := math.Log
	for _, c := range []struct {
		file   string
		list   []engine
		xs     []int
		values []func(e engine, x int) float64 // of each panel, on its scale
	}{
		{"throughput.svg", engines, targetsOf[throughput], []func(engine, int) float64{served}},
		{"overload.svg", queues, targetsOf[overload], []func(engine, int) float64{served, func(e engine, x int) float64 { return log(wait(e, x)) }}},
		{"listeners.svg", crowds, targetsOf[listeners], []func(engine, int) float64{served, func(e engine, x int) float64 { return log(3 * wait(e, x)) }}},
	} {
		linesOf := func(e engine) (lines [][]point) {
			for _, p := range paths(files[c.file], "stroke:"+colourOf(e), "stroke-width:1.2") {
				if len(p) == len(c.xs) {
					lines = append(lines, p)
				}
			}
			if len(lines) != len(c.values) {
				t.Fatalf("%s: %d lines of %v, want %d", c.file, len(lines), e, len(c.values))
			}
			return lines
		}
		first, other := c.list[0], c.list[len(c.list)-1]
		last := len(c.xs) - 1
		for panel, value := range c.values {
			// The scale is by two points that lie far apart.
			y := newAxis(value(first, c.xs[0]), linesOf(first)[panel][0].y, value(other, c.xs[last]), linesOf(other)[panel][last].y)
			for _, e := range c.list {
				line := linesOf(e)[panel]
				x := newAxis(log(float64(c.xs[0])), line[0].x, log(float64(c.xs[last])), line[last].x)
				for k, p := range line {
					if want := y.at(value(e, c.xs[k])); math.Abs(p.y-want) > .1 {
						t.Errorf("%s: %v at %d: y %.2f, want %.2f", c.file, e, c.xs[k], p.y, want)
					}
					if want := x.at(log(float64(c.xs[k]))); math.Abs(p.x-want) > .1 {
						t.Errorf("%s: %v at %d: x %.2f, want %.2f", c.file, e, c.xs[k], p.x, want)
					}
				}
			}
		}
	}
}

// TestLatencyShowsOnlyWhatManyCallsStandBehind: of 2000 calls, 99% and no more.
func TestLatencyShowsOnlyWhatManyCallsStandBehind(t *testing.T) {
	svg := rendered(t, made())["latency.svg"]
	ps := []float64{0, .5, .9, .99}
	var y axis
	for i, e := range engines {
		var line []point
		for _, p := range paths(svg, "stroke:"+colourOf(e), "stroke-width:1.4") {
			if len(p) > 2 { // not the legend's
				line = p
			}
		}
		if len(line) != len(ps) {
			t.Fatalf("%v has %d points, want %d", e, len(line), len(ps))
		}
		value := func(k int) float64 { return math.Log(served(e, 0) * (1 + ps[k])) }
		if i == 0 {
			y = newAxis(value(0), line[0].y, value(3), line[3].y)
		}
		for k, p := range line {
			if want := y.at(value(k)); math.Abs(p.y-want) > .1 {
				t.Errorf("%v at %v: y %.2f, want %.2f", e, ps[k], p.y, want)
			}
		}
	}
}

// TestBarsShowTheirStages: each bar is as long as its stage, and begins where the
// one before ends.
func TestBarsShowTheirStages(t *testing.T) {
	svg := rendered(t, made())["stages.svg"]
	var scale float64
	ends := map[int]float64{}
	for _, part := range parts {
		var bars [][]point
		for _, p := range paths(svg, fmt.Sprintf("fill:#%02X%02X%02X", part.colour.R, part.colour.G, part.colour.B)) {
			if len(p) >= 4 {
				bars = append(bars, p)
			}
		}
		if len(bars) < len(engines) {
			t.Fatalf("%s: %d bars, want %d", part.name, len(bars), len(engines))
		}
		for i := range engines {
			e := engines[len(engines)-1-i] // from below
			low, high := math.Inf(1), math.Inf(-1)
			for _, p := range bars[i] {
				low, high = min(low, p.x), max(high, p.x)
			}
			if scale == 0 {
				scale = (high - low) / means(e)[part.name]
			}
			if want := means(e)[part.name] * scale; math.Abs(high-low-want) > .1 {
				t.Errorf("%s of %v is %.2f long, want %.2f", part.name, e, high-low, want)
			}
			if was, ok := ends[i]; ok && math.Abs(low-was) > .1 {
				t.Errorf("%s of %v begins at %.2f, the one before ends at %.2f", part.name, e, low, was)
			}
			ends[i] = high
		}
	}
}

// TestWhatIsWrongIsSaid: no page is made of results that are not whole.
func TestWhatIsWrongIsSaid(t *testing.T) {
	const txt, hgrm, json = "2026-01-02-abc.txt", "2026-01-02-abc.latency.hgrm", "2026-01-02-abc.stages.json"
	without := func(pattern string) func(string) string {
		return func(s string) string { return regexp.MustCompile(`(?m)^.*`+pattern+`.*\n`).ReplaceAllString(s, "") }
	}
	replace := func(old, new string) func(string) string {
		return func(s string) string { return strings.Replace(s, old, new, 1) }
	}
	all := func(old, new string) func(string) string {
		return func(s string) string { return strings.ReplaceAll(s, old, new) }
	}
	for name, c := range map[string]struct {
		file   string
		change func(string) string // nil: it is not there
		want   string
	}{
		"no results":          {txt, nil, "no results in it (MACHINE/DATE-COMMIT.txt): make results measures some"},
		"no percentiles":      {hgrm, nil, "abc.latency.hgrm: "},
		"no stages":           {json, nil, "abc.stages.json: "},
		"a missing engine":    {txt, without("engine=chan"), "figure throughput: step throughput has nothing of engine chan"},
		"a missing point":     {txt, without("engine=seed/path=queue/targets=64-"), "step throughput has no 64 targets of engine seed"},
		"a missing step":      {txt, replace("# step: overload", "# step: other"), "step overload is missing"},
		"a step twice":        {txt, replace("# step: latency", "# step: throughput"), "step throughput is there twice"},
		"no command":          {txt, without("# command: unknot bench for latency"), `step latency has no comment "# command: ...`},
		"no date":             {txt, without("# date"), `has no comment "# date: ...`},
		"other units":         {txt, all("served/s", "served/min"), "has no served/s: there are served/min, p99-wait-sec"},
		"microseconds":        {txt, all("p99-wait-ns", "p99-wait-us"), "has no p99-wait-sec: there are served/s, p99-wait-us"},
		"a void point":        {txt, replace(" lost\n", " lost 1 void\n"), "targets=1-2 is void, limited by its generator"},
		"lost calls":          {txt, replace(" 0 lost", " 3 lost"), "lost 3 calls"},
		"nothing was served":  {txt, func(s string) string { return regexp.MustCompile(`\S+ served/s`).ReplaceAllString(s, "0 served/s") }, "the median is 0"},
		"another machine":     {txt, func(s string) string { i := strings.LastIndex(s, "c0ffee"); return s[:i] + "0ther" + s[i+6:] }, `step listeners is of another machine: machine: "c0ffee" and "0ther"`},
		"no benchmark format": {txt, replace("Benchmark", "BenchmarkBroken x\nBenchmark"), "not Go benchmark format"},
		"truncated":           {txt, func(s string) string { return s[:len(s)-10] }, "the file is truncated"},
		"truncated curves":    {hgrm, func(s string) string { return s[:strings.LastIndex(s, "inf")-60] }, "does not end at 100%"},
		"curves of others":    {hgrm, all("engine=seed", "engine=weed"), "no corrected round trip of engine seed"},
		"too few calls":       {hgrm, all("        2000          inf", "          12          inf"), "12 calls are too few for a distribution"},
		"no number":           {hgrm, replace("0.500000", "half"), "not HdrHistogram's text format"},
		"stages of others":    {json, all("engine=bare", "engine=bear"), "nothing of engine bare"},
		"a stage is missing":  {json, replace(`"wakeup"`, `"other"`), "engine unknot, inline: the stages sum up to"},
		"not followed":        {json, replace(`"cycle","count":100`, `"cycle","count":0`), "was not followed"},
		"broken json":         {json, func(s string) string { return s[:len(s)-10] }, "not what unknot bench --stages writes"},
		"another's floor":     {"floor.json", all("c0ffee", "0ther"), "floor.json is of another machine: 0ther"},
	} {
		tr := made()
		if c.change == nil {
			delete(tr, c.file)
		} else {
			was := tr[c.file]
			tr[c.file] = c.change(was)
			if tr[c.file] == was {
				t.Errorf("%s: the test changes nothing", name)
			}
		}
		dir := tr.write(t)
		err := run([]string{dir}, io.Discard)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if _, err := os.Stat(filepath.Join(dir, "README.md")); err == nil {
			t.Errorf("%s: there is a page all the same", name)
		}
	}
}

// TestTheNewestIsShown: of several results the latest, and no first impressions.
func TestTheNewestIsShown(t *testing.T) {
	tr := made()
	tr["2026-01-01-fff.txt"] = "# date: 2026-01-01T23:59:59Z\n"
	tr["2026-01-02-zzz.txt"] = "# date: 2026-01-02T03:04:04Z\n" // of the same day, earlier
	tr["local-20270101T000000Z-abc.txt"] = "# date: 2027-01-01T00:00:00Z\n"
	if page := rendered(t, tr)["README.md"]; !strings.Contains(page, "2026-01-02-abc.txt") {
		t.Error(page)
	}
}

// TestFewCalls: a percentile that a repetition has too few calls for is left out, and the rest is shown.
func TestFewCalls(t *testing.T) {
	tr := made()
	few := regexp.MustCompile(`(?m)^(Benchmark\S*engine=chan/path=queue/listeners=4/.*) \S+ p999-roundtrip-ns`)
	at := few.FindStringSubmatchIndex(tr["2026-01-02-abc.txt"])
	if at == nil {
		t.Fatal("no such result")
	}
	was := tr["2026-01-02-abc.txt"]
	tr["2026-01-02-abc.txt"] = was[:at[3]] + was[at[1]:]
	page := rendered(t, tr)["README.md"]
	_, worst, _ := strings.Cut(page, "worst listener's p99.9")
	for l := range strings.Lines(worst) {
		if strings.HasPrefix(l, "| chan ") {
			if strings.Count(l, "–") != 1 {
				t.Error(l)
			}
			return
		}
	}
	t.Errorf("chan is not in the table: %s", worst)
}

func TestUsage(t *testing.T) {
	if err := run(nil, io.Discard); err == nil || !strings.Contains(err.Error(), "which results?") {
		t.Error(err)
	}
}
