package main

import (
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/unknot/unknot/bench"
)

// TestGoTestHasTheSameNames: `go test -bench . ./bench` and `unknot bench` call the
// same storms by the same names and in the same package, so that benchstat works
// across both.
func TestGoTestHasTheSameNames(t *testing.T) {
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
	line := regexp.MustCompile(`(?m)^Benchmark(Storm/engine=bare\S+)`).FindSubmatch(out)
	if err != nil || line == nil || !slices.Contains(got, string(line[1])) || !strings.Contains(string(out), "pkg: github.com/unknot/unknot/bench\n") {
		t.Errorf("%v\n%s", err, out)
	}
}
