package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/perf/benchfmt"
	"golang.org/x/perf/benchmath"
)

// A set is what was measured at once on one kind of machine.
type set struct {
	dir     string // of all results
	machine string // the directory's name
	name    string // DATE-COMMIT
	facts   [][2]string
	keys    map[string]string // the file's keys
	steps   map[string]*step
	latency []curve
	stages  []breakdown
}

func (s *set) path(ext string) string { return filepath.Join(s.dir, s.machine, s.name+ext) }

// A step is what one command printed.
type step struct {
	name, command, date, commit string
	results                     []*benchfmt.Result
}

// The steps that a results file must have, but for listeners, which came later.
const (
	throughput = "throughput"
	latency    = "latency"
	stages     = "stages"
	overload   = "overload"
	listeners  = "listeners"
)

// comment returns the value of the first comment "# key: value".
func comment(text, key string) (string, bool) {
	for l := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(l, "# "+key+": "); ok {
			return strings.TrimSpace(v), true
		}
	}
	return "", false
}

// load reads results and what lies beside them.
func load(dir, machine, name string) (*set, error) {
	s := &set{dir: dir, machine: machine, name: name, keys: map[string]string{}, steps: map[string]*step{}}
	text, err := os.ReadFile(s.path(".txt"))
	if err != nil {
		return nil, err
	}
	if err := s.parse(string(text)); err != nil {
		return nil, fmt.Errorf("%s: %w", s.path(".txt"), err)
	}
	for ext, parse := range map[string]func([]byte) error{".latency.hgrm": s.parsePercentiles, ".stages.json": s.parseStages} {
		b, err := os.ReadFile(s.path(ext))
		if err == nil {
			err = parse(b)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.path(ext), err)
		}
	}
	return s, nil
}

// parse reads the results, step by step.
func (s *set) parse(text string) error {
	if !strings.HasSuffix(text, "\n") {
		return errors.New("the last line has no end: the file is truncated")
	}
	const mark = "# step: "
	parts := strings.Split("\n"+text, "\n"+mark)
	for _, part := range parts[1:] {
		name, _, _ := strings.Cut(part, "\n")
		st := &step{name: name}
		for key, to := range map[string]*string{"command": &st.command, "date": &st.date, "commit": &st.commit} {
			var ok bool
			if *to, ok = comment(part, key); !ok {
				return fmt.Errorf("step %s has no comment \"# %s: ...\"", name, key)
			}
		}
		if s.steps[name] != nil {
			return fmt.Errorf("step %s is there twice", name)
		}
		s.steps[name] = st
		if err := s.parseStep(st, mark+part); err != nil {
			return err
		}
		if s.facts == nil {
			for l := range strings.Lines(part) {
				if f, ok := strings.CutPrefix(l, "# machine "); ok {
					k, v, _ := strings.Cut(strings.TrimSpace(f), ": ")
					s.facts = append(s.facts, [2]string{k, v})
				}
			}
		}
	}
	for _, name := range []string{throughput, latency, stages, overload} {
		if s.steps[name] == nil {
			return fmt.Errorf("step %s is missing", name)
		}
	}
	return nil
}

func (s *set) parseStep(st *step, text string) error {
	rd := benchfmt.NewReader(strings.NewReader(text), "step "+st.name)
	for rd.Scan() {
		switch rec := rd.Result().(type) {
		case *benchfmt.SyntaxError:
			return fmt.Errorf("not Go benchmark format: %w", rec)
		case *benchfmt.Result:
			r := rec.Clone()
			if v, ok := r.Value("void"); ok && v != 0 {
				return fmt.Errorf("step %s: %s is void, limited by its generator, and says nothing: measure it again with more targets or a lower rate", st.name, r.Name)
			}
			if v, ok := r.Value("lost"); ok && v != 0 {
				return fmt.Errorf("step %s: %s lost %v calls: find out why before it is published", st.name, r.Name, v)
			}
			st.results = append(st.results, r)
			// All of a file is of one machine.
			for _, key := range []string{"machine", "cpu", "goos", "goarch"} {
				v := r.GetConfig(key)
				if was, ok := s.keys[key]; ok && was != v {
					return fmt.Errorf("step %s is of another machine: %s: %q and %q", st.name, key, was, v)
				}
				s.keys[key] = v
			}
		}
	}
	return rd.Err()
}

// An engine with its path is a line in the figures.
type engine struct{ name, path string }

func (e engine) String() string {
	if e.name == "unknot" {
		return e.name + ", " + e.path
	}
	return e.name
}

// engineOf is whose benchmark it is.
func engineOf(name benchfmt.Name) engine { return engine{part(name, "engine"), part(name, "path")} }

// All engines, those of them that queue, and those that are measured with many listeners.
var (
	engines = []engine{{"unknot", "inline"}, {"unknot", "queue"}, {"chan", "queue"}, {"seed", "queue"}, {"bare", "inline"}}
	queues  = []engine{{"unknot", "queue"}, {"chan", "queue"}, {"seed", "queue"}}
	crowds  = append(slices.Clone(engines), engine{"bare-pool", "inline"})
)

// part returns the value of a benchmark's /key=.
func part(name benchfmt.Name, key string) string {
	_, parts := name.Parts()
	for _, p := range parts {
		if v, ok := strings.CutPrefix(string(p), "/"+key+"="); ok {
			return v
		}
	}
	return ""
}

// x is what a step varies: the part of the benchmarks' names.
func (st *step) x() string {
	if st.name == listeners {
		return "listeners"
	}
	return "targets"
}

// medians are the medians of unit, by x, of each of the engines, as benchstat has them. All
// must have the same xs, but for a percentile of a single listener: where any repetition has too few calls
// for one, there is none.
func (st *step) medians(list []engine, unit string) (map[engine]map[int]benchmath.Summary, error) {
	values := map[engine]map[int][]float64{}
	xs := map[int]bool{}
	type point struct {
		engine
		x int
	}
	few := map[point]bool{}
	for _, r := range st.results {
		e := engineOf(r.Name)
		x, err := strconv.Atoi(part(r.Name, st.x()))
		if err != nil {
			return nil, fmt.Errorf("step %s: %s says no number of %s", st.name, r.Name, st.x())
		}
		xs[x] = true
		if values[e] == nil {
			values[e] = map[int][]float64{}
		}
		v, ok := r.Value(unit)
		if !ok && unit == worstUnit {
			few[point{e, x}] = true
			continue
		}
		if !ok {
			var have []string
			for _, v := range r.Values {
				have = append(have, v.Unit)
			}
			return nil, fmt.Errorf("step %s: %s has no %s: there are %s", st.name, r.Name, unit, strings.Join(have, ", "))
		}
		values[e][x] = append(values[e][x], v)
	}
	if len(xs) == 0 {
		return nil, fmt.Errorf("step %s has no results", st.name)
	}
	all := map[engine]map[int]benchmath.Summary{}
	for _, e := range list {
		if values[e] == nil {
			return nil, fmt.Errorf("step %s has nothing of engine %v", st.name, e)
		}
		all[e] = map[int]benchmath.Summary{}
		for x := range xs {
			vs := values[e][x]
			if few[point{e, x}] {
				continue
			}
			if len(vs) == 0 {
				return nil, fmt.Errorf("step %s has no %d %s of engine %v", st.name, x, st.x(), e)
			}
			th := benchmath.DefaultThresholds
			all[e][x] = benchmath.AssumeNothing.Summary(benchmath.NewSample(vs, &th), .95)
		}
	}
	return all, nil
}

// A curve is a distribution by its percentiles.
type curve struct {
	what   string // as in "corrected round trip"
	name   benchfmt.Name
	points []percentile
	count  int
}

type percentile struct {
	value float64 // ns
	p     float64 // 0 to 1
}

// parsePercentiles reads HdrHistogram's text format, one section after another.
func (s *set) parsePercentiles(b []byte) error {
	for l := range strings.Lines(string(b)) {
		l = strings.TrimSpace(l)
		if head, ok := strings.CutPrefix(l, "#["); ok {
			what, name, ok := strings.Cut(strings.TrimSuffix(head, ", in µs]"), " of ")
			if ok {
				s.latency = append(s.latency, curve{what: what, name: benchfmt.Name(name)})
			}
			continue
		}
		f := strings.Fields(l)
		if len(f) != 4 || f[0] == "Value" {
			continue
		}
		v, err1 := strconv.ParseFloat(f[0], 64)
		p, err2 := strconv.ParseFloat(f[1], 64)
		n, err3 := strconv.Atoi(f[2])
		if err := errors.Join(err1, err2, err3); err != nil || len(s.latency) == 0 {
			return fmt.Errorf("not HdrHistogram's text format: %q", l)
		}
		c := &s.latency[len(s.latency)-1]
		c.points = append(c.points, percentile{v * 1e3, p})
		c.count = n
	}
	for _, c := range s.latency {
		if len(c.points) == 0 || c.points[len(c.points)-1].p != 1 {
			return fmt.Errorf("%s of %s does not end at 100%%: the file is truncated", c.what, c.name)
		}
	}
	return nil
}

// curveOf finds the curve of an engine.
func (s *set) curveOf(what string, e engine) (*curve, error) {
	for i, c := range s.latency {
		if c.what == what && e == (engineOf(c.name)) {
			return &s.latency[i], nil
		}
	}
	return nil, fmt.Errorf("%s: no %s of engine %v", s.path(".latency.hgrm"), what, e)
}

// A breakdown is where the time of an engine's calls goes.
type breakdown struct {
	Benchmark string
	Lost      int
	Stages    []stage
}

// A stage's times are in ns.
type stage struct {
	Name  string
	From  string
	To    string
	Count int
	Mean  *float64 `json:"mean_ns"`
	P50   *float64 `json:"p50_ns"`
	P99   *float64 `json:"p99_ns"`
}

func (s *set) parseStages(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	for d.More() {
		var one breakdown
		if err := d.Decode(&one); err != nil {
			return fmt.Errorf("not what unknot bench --stages writes: %w", err)
		}
		s.stages = append(s.stages, one)
	}
	return nil
}

// stagesOf finds the stages of an engine. Those that follow each other make up the
// call; the rest are sums of them.
func (s *set) stagesOf(e engine) (map[string]stage, error) {
	for _, b := range s.stages {
		if e != (engineOf(benchfmt.Name(b.Benchmark))) {
			continue
		}
		all := map[string]stage{}
		for _, st := range b.Stages {
			all[st.Name] = st
		}
		if cycle := all["cycle"]; cycle.Count == 0 || cycle.Mean == nil {
			return nil, fmt.Errorf("%s: %s was not followed: no call of it has a cycle", s.path(".stages.json"), b.Benchmark)
		}
		return all, nil
	}
	return nil, fmt.Errorf("%s: nothing of engine %v", s.path(".stages.json"), e)
}
