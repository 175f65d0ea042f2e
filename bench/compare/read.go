package compare

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/aclements/go-moremath/stats"
	"golang.org/x/perf/benchfmt"
	"golang.org/x/perf/benchproc"
)

// An Input is one side of a comparison: results in Go benchmark format.
type Input struct {
	Label string // for people, and for the benchstat command: the file's path
	Data  []byte
}

// ReadFile reads an input from a file.
func ReadFile(path string) (Input, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Input{}, fmt.Errorf("read results: %w", err)
	}
	return Input{Label: path, Data: b}, nil
}

// results are the parsed runs of one side.
type results struct {
	label string
	text  []byte
	runs  []*benchfmt.Result
	marks *marks
}

// read parses both sides with one reader, which then knows the units of both.
// Whatever makes a file less than a whole set of results is an error: a gate
// must not pass on what is left of one. The first may have no results if nothing
// says that: what is new has nothing to be compared with.
func read(inputs []Input, filter *benchproc.Filter, nothing bool) (sides []*results, units benchfmt.UnitMetadataMap, err error) {
	rd := new(benchfmt.Reader)
	for i, in := range inputs {
		r := &results{label: in.Label}
		if in.Label, in.Data, err = clean(in.Label, in.Data); err != nil {
			return nil, nil, err
		}
		r.text = in.Data
		if r.marks, err = parseMarks(in.Label, in.Data); err != nil {
			return nil, nil, err
		}
		if r.marks.failed != "" {
			return nil, nil, fmt.Errorf("%s: a failed benchmark run is no result", r.marks.failed)
		}
		rd.Reset(bytes.NewReader(in.Data), in.Label)
		found := false
		for rd.Scan() {
			switch rec := rd.Result().(type) {
			case *benchfmt.SyntaxError:
				return nil, nil, fmt.Errorf("not Go benchmark format: %w", rec)
			case *benchfmt.UnitMetadata:
				if err := contradiction(rec); err != nil {
					return nil, nil, err
				}
			case *benchfmt.Result:
				found = true
				run := rec.Clone()
				if ok, err := filter.Apply(run); err != nil {
					return nil, nil, fmt.Errorf("filter: %w", err)
				} else if ok {
					r.runs = append(r.runs, run)
				}
			}
		}
		if err := rd.Err(); err != nil {
			return nil, nil, err
		}
		switch {
		case len(r.runs) == 0 && i == 0 && nothing:
		case !found:
			return nil, nil, fmt.Errorf("%s: no benchmark results in it (lines such as \"BenchmarkX 100 12.5 ns/op\")", in.Label)
		case len(r.runs) == 0:
			return nil, nil, fmt.Errorf("%s: the filter leaves no benchmark results", in.Label)
		}
		sides = append(sides, r)
	}
	return sides, rd.Units(), nil
}

// contradiction refuses a declaration by which one side could make a regression of
// Go's own units an improvement, or a time one number that may not vary.
func contradiction(u *benchfmt.UnitMetadata) error {
	own := benchfmt.UnitMetadataMap(nil).GetBetter(u.Unit)
	file, line := u.Pos()
	switch {
	case own != 0 && u.Key == "better" && u.Value != map[int]string{-1: "lower", 1: "higher"}[own]:
		return fmt.Errorf("%s:%d: Unit %s %s=%s: of Go's own units it is known which way is better: remove the line", file, line, u.OrigUnit, u.Key, u.Value)
	case (u.Unit == "sec/op" || u.Unit == "B/s") && u.Key == "assume" && u.Value == "exact":
		return fmt.Errorf("%s:%d: Unit %s assume=exact: a time is never exact: remove the line", file, line, u.OrigUnit)
	}
	return nil
}

// keys whose values must be the same on both sides for a comparison to mean
// anything; machine is a fingerprint, the others are what `go test` prints.
var machineKeys = []string{"machine", "cpu", "goos", "goarch"}

// valuesOf are the values of a file key in the runs of one side, "" for none.
func (r *results) valuesOf(key string) (values []string) {
	seen := map[string]bool{}
	for _, run := range r.runs {
		if v := run.GetConfig(key); !seen[v] {
			seen[v] = true
			values = append(values, v)
		}
	}
	return values
}

// only is the value of a key that has one, "" if there are more.
func (r *results) only(key string) string {
	if v := r.valuesOf(key); len(v) == 1 {
		return v[0]
	}
	return ""
}

// facts are those of the machine that a reader knows it by.
func facts(sides []*results) string {
	var words []string
	for _, name := range []string{"cpu", "cpus-online", "kernel"} {
		for _, s := range sides {
			if v := s.marks.details[name]; v != "" {
				if name == "cpus-online" {
					v = "CPUs " + v
				}
				words = append(words, strings.Join(strings.Fields(v), " "))
				break
			}
		}
	}
	return strings.Join(words, ", ")
}

// fileKeys are all file keys of all runs, in the order of their appearance.
func fileKeys(sides []*results) (keys []string) {
	seen := map[string]bool{}
	for _, s := range sides {
		for _, run := range s.runs {
			for _, c := range run.Config {
				if c.File && !seen[c.Key] {
					seen[c.Key] = true
					keys = append(keys, c.Key)
				}
			}
		}
	}
	return keys
}

// A keyUse is what the keys of both sides are taken for.
type keyUse struct {
	ignore    []string // they tell no rows apart
	splitting []string // and these may not either, which is not for us to guess
}

// useKeys decides which keys tell rows apart. A key does that, such as pkg or path,
// unless it says when or how was measured (commit, date), or is none at all: what a
// program logs as "word: text" has the form of a key, and so have go test's coverage
// lines. Such a key would put results into tables of their own, each without its like
// on the other side. It is ignored where nothing is lost by that:
//
//   - it has one value on each side, and not the same (but for pkg: benchmarks of two
//     packages are not the same), or
//   - its values differ between the sides, and without it no side has one benchmark
//     with two of them, and what both sides have they ran as often.
func useKeys(sides []*results, uneven bool) (u keyUse) {
	var doubtful []string
	if len(sides[0].runs) == 0 || len(sides[1].runs) == 0 {
		return u
	}
	for _, k := range fileKeys(sides) {
		a, b := sides[0].valuesOf(k), sides[1].valuesOf(k)
		same := len(a) == len(b) && !slices.ContainsFunc(a, func(v string) bool { return !slices.Contains(b, v) })
		unset := len(a) == 1 && a[0] == "" || len(b) == 1 && b[0] == ""
		switch {
		case k == "coverage" && (len(a) > 1 || len(b) > 1 || !same):
			u.ignore = append(u.ignore, k)
		case same, slices.Contains(machineKeys, k) && len(a)*len(b) > 1:
		case k == "pkg" && !unset:
		case k != "pkg" && len(a) == 1 && len(b) == 1:
			u.ignore = append(u.ignore, k)
		default:
			doubtful = append(doubtful, k)
		}
	}
	if needless(sides, u.ignore, doubtful, uneven) {
		u.ignore, doubtful = append(u.ignore, doubtful...), nil
	}
	for _, k := range doubtful {
		switch {
		case needless(sides, u.ignore, []string{k}, uneven):
			u.ignore = append(u.ignore, k)
		case !slices.ContainsFunc(sides[0].valuesOf(k), func(v string) bool { return slices.Contains(sides[1].valuesOf(k), v) }):
			u.splitting = append(u.splitting, k)
		}
	}
	return u
}

// needless says whether the results of both sides can do without some keys.
func needless(sides []*results, ignore, without []string, uneven bool) bool {
	var runs [2]map[string]int
	for i, s := range sides {
		runs[i] = map[string]int{}
		value := map[[2]string]string{}
		for _, run := range s.runs {
			id := string(run.Name.Full())
			for _, c := range run.Config {
				if c.File && !slices.Contains(ignore, c.Key) && !slices.Contains(without, c.Key) {
					id += fmt.Sprintf(" %q:%q", c.Key, c.Value)
				}
			}
			runs[i][id]++
			for _, k := range without {
				v, at := run.GetConfig(k), [2]string{id, k}
				if old := value[at]; v != "" && old != "" && v != old {
					return false
				} else if v != "" {
					value[at] = v
				}
			}
		}
	}
	common := 0
	for id, n := range runs[0] {
		if m := runs[1][id]; m > 0 {
			common++
			if n != m && !uneven {
				return false
			}
		}
	}
	return common > 0
}

// where is the place in which a key first has a value: file and line.
func where(sides []*results, key string) string {
	for _, s := range sides {
		n := 0
		for line := range bytes.Lines(s.text) {
			if n++; bytes.HasPrefix(line, []byte(key+":")) {
				return fmt.Sprintf("%s:%d", s.label, n)
			}
		}
	}
	return "nowhere"
}

// machines says in what way the results are of more than one machine; nil if
// nothing speaks against one. A side without the key says nothing.
func machines(sides []*results) (differences []string) {
	for _, k := range machineKeys {
		var values []string
		for _, s := range sides {
			for _, v := range s.valuesOf(k) {
				if v != "" && !slices.Contains(values, v) {
					values = append(values, v)
				}
			}
		}
		if len(values) > 1 {
			differences = append(differences, fmt.Sprintf("%s: %s", k, strings.Join(values, ", ")))
		}
	}
	if len(differences) == 0 {
		return nil
	}
	a, b := sides[0].marks.details, sides[1].marks.details
	for k, v := range a {
		if w, ok := b[k]; ok && v != w && !slices.Contains(machineKeys, k) {
			differences = append(differences, fmt.Sprintf("%s: %s, %s", k, v, w))
		}
	}
	slices.Sort(differences)
	return differences
}

// machineOf is the fingerprint that the results carry, if any.
func machineOf(sides []*results) string {
	for _, s := range sides {
		for _, run := range s.runs {
			if v := run.GetConfig("machine"); v != "" {
				return v
			}
		}
	}
	return ""
}

// A row's place: its table's configuration and its name, without the unit.
type place struct{ config, name benchproc.Key }

// A cell has the values of one unit of one benchmark, by side.
type cell struct {
	place
	pkg    string
	unit   string
	values [2][]float64
	rounds [2][]round
}

// cells groups the runs into rows, as benchstat does but for the ignored keys.
func cells(sides []*results, ignore []string) ([]*cell, error) {
	var pp benchproc.ProjectionParser
	if len(ignore) > 0 {
		quoted := make([]string, len(ignore))
		for i, k := range ignore {
			quoted[i] = strconv.Quote(k)
		}
		if _, err := pp.Parse(strings.Join(quoted, ","), nil); err != nil {
			return nil, fmt.Errorf("ignore keys %s: %w", strings.Join(ignore, ", "), err)
		}
	}
	config, err1 := pp.Parse(".config", nil)
	name, err2 := pp.Parse(".fullname", nil)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	// A field of .config comes into being when its key is first seen, and a key
	// made before that lacks it: see all of them before keeping any.
	for _, s := range sides {
		for _, run := range s.runs {
			config.Project(run)
		}
	}
	type id struct {
		place
		unit string
	}
	index := map[id]*cell{}
	var list []*cell
	for side, s := range sides {
		for _, run := range s.runs {
			p := place{config.Project(run), name.Project(run)}
			_, line := run.Pos()
			for _, v := range run.Values {
				c := index[id{p, v.Unit}]
				if c == nil {
					c = &cell{place: p, pkg: run.GetConfig("pkg"), unit: v.Unit}
					index[id{p, v.Unit}] = c
					list = append(list, c)
				}
				c.values[side] = append(c.values[side], v.Value)
				c.rounds[side] = append(c.rounds[side], s.marks.at(line))
			}
		}
	}
	return list, nil
}

// pair orients the cell by cost and, where both sides are of interleaved sessions,
// reduces each round to the medians of its two sides. The rounds are those, and lost
// is how many have not both sides.
func (c *cell) pair(better int, planned map[string]int) (p pair, rounds []round, lost int) {
	old, new := c.values[0], c.values[1]
	if a, b, rs, n, ok := c.byRound(planned); ok {
		old, new, p.paired, rounds, lost = a, b, true, rs, n
	}
	p.counts = isCounts(c.values[0], c.values[1])
	p.x, p.y = old, new
	if better > 0 {
		p.x, p.y = new, old
	}
	return p, rounds, lost
}

func (c *cell) byRound(planned map[string]int) (old, new []float64, rounds []round, lost int, ok bool) {
	var order []round
	var groups [2]map[round][]float64
	sessions := map[string]bool{}
	for side := range groups {
		groups[side] = map[round][]float64{}
		for i, r := range c.rounds[side] {
			if r == (round{}) {
				return nil, nil, nil, 0, false
			}
			if groups[0][r] == nil && groups[1][r] == nil {
				order = append(order, r)
			}
			sessions[r.session] = true
			groups[side][r] = append(groups[side][r], c.values[side][i])
		}
	}
	all := 0
	for s := range sessions {
		all += planned[s]
	}
	for _, r := range order {
		if a, b := groups[0][r], groups[1][r]; a != nil && b != nil {
			old, new, rounds = append(old, stats.Sample{Xs: a}.Quantile(.5)), append(new, stats.Sample{Xs: b}.Quantile(.5)), append(rounds, r)
		}
	}
	return old, new, rounds, max(all, len(order)) - len(old), len(old) > 0
}
