package main

import (
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/unknot/unknot/bench"
	"golang.org/x/perf/benchfmt"
)

// TestListsAreCombined: every list with every other; a batch is at most the queue.
func TestListsAreCombined(t *testing.T) {
	var f benchFlags
	fl := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	f.register(fl)
	if err := fl.Parse(strings.Fields("--engine unknot,seed --path queue --targets 2 --work 0,10us,sleep:10us --workers 1,3 --queue 4,8 --drop-batch 1,16")); err != nil {
		t.Fatal(err)
	}
	specs, err := f.plan()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range specs {
		names = append(names, s.Name())
	}
	slices.Sort(names)
	names = slices.Compact(names)
	all := strings.Join(names, "\n")
	if len(names) != 48 || !strings.Contains(all, "/engine=seed/path=queue/targets=2/work=sleep:10µs/queue=4/workers=3/batch=4/") ||
		!strings.Contains(all, "/engine=unknot/path=queue/targets=2/work=10µs/queue=8/workers=1/batch=1/") {
		t.Errorf("%d names:\n%s", len(names), all)
	}
}

// TestGoTestHasTheSameNames: `go test -bench . ./bench` and `unknot bench` call the
// same storms by the same names and in the same package, so that benchstat works
// across both.
func TestGoTestHasTheSameNames(t *testing.T) {
	t.Parallel()
	var want, got []string
	for _, s := range bench.Suite() {
		want = append(want, s.Name())
	}
	var f benchFlags
	fl := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	f.register(fl)
	if err := fl.Parse([]string{"--confine", "off"}); err != nil {
		t.Fatal(err)
	}
	specs, err := f.plan()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range specs {
		got = append(got, s.Name())
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("unknot bench runs\n%s\ngo test -bench\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if testing.Short() {
		return
	}
	// What go test prints, for one of them.
	out, err := exec.Command("go", "test", "-run", "^$", "-bench", "^BenchmarkStorm$/^engine=bare$/^path=inline$/^targets=1$", "-benchtime", "1x", "../../bench").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// Keys too: where they differ, benchstat compares nothing.
	_, keys := facts()
	keys = append(keys, [2]string{"clock", bench.ClockEngine}, [2]string{"loop", "closed"})
	rd := benchfmt.NewReader(bytes.NewReader(out), "go test")
	n := 0
	for rd.Scan() {
		r, ok := rd.Result().(*benchfmt.Result)
		if !ok {
			continue
		}
		n++
		if !slices.Contains(got, r.Name.String()) {
			t.Errorf("go test runs %s", r.Name)
		}
		for _, k := range keys {
			if v := r.GetConfig(k[0]); v != k[1] {
				t.Errorf("%s is %q in go test, %q in unknot bench", k[0], v, k[1])
			}
		}
		if len(r.Config) != len(keys) {
			t.Errorf("go test has the keys %v, unknot bench %v", r.Config, keys)
		}
	}
	if n != 1 {
		t.Errorf("%d results:\n%s", n, out)
	}
	// What comes after has none of them.
	if !strings.HasSuffix(strings.TrimSpace(string(out[:bytes.LastIndex(out, []byte("\nok"))])), "machine:\nclock:\nloop:") {
		t.Errorf("keys go on after their package:\n%s", out)
	}
}
