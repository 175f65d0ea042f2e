package main

import (
	"encoding/csv"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestColumnsOfBenchstat holds compare's medians of recorded results against those
// of `benchstat -col /engine`, which has the engines beside each other: the newest, with -long all.
func TestColumnsOfBenchstat(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles benchstat")
	}
	t.Parallel()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(root, "results", "*", "[0-9]*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no results are recorded: %v", err)
	}
	if !*long {
		files = files[len(files)-1:]
	}
	for _, file := range files {
		theirs := benchstatColumns(t, root, file)
		o := result(t, unknot(t, "compare", "--floor", "none", "--format", "json", file, file))
		var rep struct {
			Rows []struct {
				Benchmark, Unit string
				Old, New        struct{ Center *float64 }
			}
		}
		if err := json.Unmarshal([]byte(o.stdout), &rep); err != nil {
			t.Fatalf("%v\n%s%s", err, o.stdout, o.stderr)
		}
		if len(rep.Rows) == 0 || len(rep.Rows) != len(theirs) {
			t.Errorf("%s: compare has %d medians, benchstat %d", file, len(rep.Rows), len(theirs))
		}
		engine := regexp.MustCompile(`/engine=([^/]+)`)
		for _, r := range rep.Rows {
			name := engine.FindStringSubmatch(r.Benchmark)
			if name == nil {
				t.Fatalf("%s has no engine", r.Benchmark)
			}
			key := column{name[1], engine.ReplaceAllString(r.Benchmark, ""), r.Unit}
			if v, ok := theirs[key]; !ok || r.Old.Center == nil || v != *r.Old.Center || v != *r.New.Center {
				t.Errorf("%s: %+v: benchstat has %v (%v), compare %v", file, key, v, ok, r)
			}
		}
	}
}

type column struct{ engine, row, unit string }

// benchstatColumns reads the medians out of benchstat's tables: each begins with a
// line that has the engines and one that has the unit, in the column of each.
func benchstatColumns(t *testing.T, dir, file string) map[column]float64 {
	t.Helper()
	cmd := exec.Command("go", "tool", "benchstat", "-format", "csv", "-col", "/engine", file)
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("benchstat: %v", err)
	}
	rd := csv.NewReader(strings.NewReader(string(out)))
	rd.FieldsPerRecord = -1
	lines, err := rd.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	all := map[column]float64{}
	var engines, units []string
	for _, l := range lines {
		switch {
		case len(l) < 2 || l[0] == "geomean":
		case l[0] == "" && slices.Contains(l, "CI"):
			units = l
		case l[0] == "":
			engines = l
		default:
			for i := range min(len(l), len(units), len(engines)) {
				if i == 0 || engines[i] == "" || l[i] == "" {
					continue
				}
				v, err := strconv.ParseFloat(l[i], 64)
				if err != nil {
					t.Fatalf("benchstat's %q: %v", l, err)
				}
				all[column{engines[i], l[0], units[i]}] = v
			}
		}
	}
	return all
}
