// Command ratios reads Go benchmark results and prints, for each benchmark that
// has a /queue=NAME in its name, the median of each queue and its ratio to
// the first queue that occurs: how many times better it is, so that more is
// better whatever the unit. benchstat prints the same medians with their
// confidence and the change in percent, from which ratios of 10 and 20 are
// hard to tell apart.
//
//	ratios [-unit REGEXP] [FILE...]
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/aclements/go-moremath/stats"
	"golang.org/x/perf/benchfmt"
	"golang.org/x/perf/benchunit"
)

func main() {
	unit := flag.String("unit", `^(sec/op|p\d+-sec|cpu-sec)$`, "print only units that match this `regexp`")
	flag.Parse()
	if err := run(os.Stdout, *unit, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "ratios:", err)
		os.Exit(1)
	}
}

// A row is one benchmark in one unit: its values by queue.
type row struct {
	name, unit string
	values     map[string][]float64
}

func run(w io.Writer, unit string, files []string) error {
	match, err := regexp.Compile(unit)
	if err != nil {
		return fmt.Errorf("flag -unit: %w", err)
	}
	rows, queues, err := read(files, match)
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		return fmt.Errorf("no benchmark with /queue= in its name and a unit like %s", unit)
	}
	// Benchmarks of one unit that have the same queues share a table.
	var heads []string
	tables := map[string][]*row{}
	for _, r := range rows {
		head := r.unit + "\t" + strings.Join(r.have(queues), "\t")
		if tables[head] == nil {
			heads = append(heads, head)
		}
		tables[head] = append(tables[head], r)
	}
	for i, head := range heads {
		if i > 0 {
			fmt.Fprintln(w)
		}
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, head)
		for _, r := range tables[head] {
			have := r.have(queues)
			base := stats.Sample{Xs: r.values[have[0]]}.Quantile(.5)
			fmt.Fprint(t, r.name)
			for _, q := range have {
				m := stats.Sample{Xs: r.values[q]}.Quantile(.5)
				fmt.Fprintf(t, "\t%s %s", benchunit.Scale(m, benchunit.ClassOf(r.unit)), ratio(base, m))
			}
			fmt.Fprintln(t)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// have lists the queues that the row has values of, in the order given.
func (r *row) have(queues []string) (have []string) {
	for _, q := range queues {
		if len(r.values[q]) > 0 {
			have = append(have, q)
		}
	}
	return have
}

func read(files []string, match *regexp.Regexp) (rows []*row, queues []string, err error) {
	byName := map[string]*row{}
	in := benchfmt.Files{Paths: files, AllowStdin: true}
	for in.Scan() {
		res, ok := in.Result().(*benchfmt.Result)
		if !ok {
			continue
		}
		base, parts := res.Name.Parts()
		name, queue := string(base), ""
		for _, p := range parts {
			if q, ok := strings.CutPrefix(string(p), "/queue="); ok {
				queue = q
			} else if p[0] == '/' { // not the -GOMAXPROCS at the end
				name += string(p)
			}
		}
		if queue == "" {
			continue
		}
		if !slices.Contains(queues, queue) {
			queues = append(queues, queue)
		}
		for _, v := range res.Values {
			if !match.MatchString(v.Unit) {
				continue
			}
			r := byName[name+" "+v.Unit]
			if r == nil {
				r = &row{name, v.Unit, map[string][]float64{}}
				byName[name+" "+v.Unit] = r
				rows = append(rows, r)
			}
			r.values[queue] = append(r.values[queue], v.Value)
		}
	}
	return rows, queues, in.Err()
}

func ratio(base, v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2fx", base/v)
}
