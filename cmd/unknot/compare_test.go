package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/bench/compare"
)

// comparisons are command lines in testdata/compare, each with a golden file
// that holds its status and both of its outputs.
var comparisons = []struct {
	name string
	args []string
	code int
}{
	{"same", []string{"base.txt", "same.txt"}, 0},
	{"same-json", []string{"--format", "json", "--filter", "/size:1k .unit:(ns/op OR B/op)", "base.txt", "same.txt"}, 0},
	{"fast", []string{"base.txt", "fast.txt"}, 0},
	{"slow", []string{"base.txt", "slow.txt"}, 1},
	{"slow-markdown", []string{"--format", "markdown", "base.txt", "slow.txt"}, 1},
	{"slow-gate-allocs", []string{"--gate", "allocs/op", "base.txt", "slow.txt"}, 0},
	{"slow-threshold", []string{"--threshold", "15%", "base.txt", "slow.txt"}, 0},
	{"missing-file", []string{"base.txt", "nowhere.txt"}, 2},
	{"empty", []string{"base.txt", "empty.txt"}, 2},
	{"truncated", []string{"truncated.txt", "same.txt"}, 2},
	{"garbage", []string{"base.txt", "garbage.txt"}, 2},
	{"unknown-gate", []string{"--gate", "furlongs", "base.txt", "same.txt"}, 2},
	{"undeclared", []string{"--gate", "hits/op", "base.txt", "same.txt"}, 3},
	{"cut", []string{"base.txt", "cut.txt"}, 3},
	{"renamed", []string{"base.txt", "renamed.txt"}, 3},
	{"renamed-back", []string{"renamed.txt", "base.txt"}, 3},
	{"mixed", []string{"base.txt", "mixed.txt"}, 3},
	{"othermachine", []string{"base.txt", "othermachine.txt"}, 3},
	{"othermachine-slow", []string{"othermachine.txt", "slow.txt"}, 3},
	{"few", []string{"few.txt", "few.txt"}, 3},
	{"noisy-gate", []string{"--gate", "p99-wait-ns", "base.txt", "same.txt"}, 3},
	{"stale-floor", []string{"--floor", "floor.json", "base.txt", "same.txt"}, 3},
	{"floor", []string{"--floor", "floor.json", "--floor-age", "876000h", "base.txt", "same.txt"}, 0},
	{"directory", []string{"base.txt", "."}, 2},
	{"no-arguments", nil, 2},
	{"one-argument", []string{"base.txt"}, 2},
	{"bad-threshold", []string{"--threshold", "5", "base.txt", "same.txt"}, 2},
	{"no-threshold", []string{"--threshold", "0%", "base.txt", "same.txt"}, 2},
	{"bad-format", []string{"--format", "xml", "base.txt", "same.txt"}, 2},
	{"rounds-of-files", []string{"--rounds", "5", "base.txt", "same.txt"}, 2},
	{"bad-filter", []string{"--filter", ".name:", "base.txt", "same.txt"}, 2},
	{"bad-floor", []string{"--floor", "base.txt", "base.txt", "same.txt"}, 2},
	{"no-floor-file", []string{"--floor", "nowhere.json", "base.txt", "same.txt"}, 2},
}

func TestCompareGoldens(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("testdata", "compare")
	for _, c := range comparisons {
		cmd := unknot(t, append([]string{"compare"}, c.args...)...)
		cmd.Dir = dir
		o := result(t, cmd)
		if o.code != c.code {
			t.Errorf("%s: exit status %d, want %d\n%s%s", c.name, o.code, c.code, o.stdout, o.stderr)
		}
		if o.code == 2 && (o.stdout != "" || strings.Count(o.stderr, "\n") != 1) {
			t.Errorf("%s: an error is one line on stderr and nothing on stdout:\n%s%s", c.name, o.stdout, o.stderr)
		}
		got := fmt.Sprintf("$ unknot compare %s\nexit status %d\n--- stdout\n%s--- stderr\n%s", strings.Join(c.args, " "), o.code, o.stdout, o.stderr)
		golden := filepath.Join(dir, c.name+".golden")
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s differs (go test -run Goldens -update writes it anew):\n%s\nwant:\n%s", golden, got, want)
		}
	}
}

// TestCompareHasBenchstatsMedians takes the numbers from both programs' texts.
func TestCompareHasBenchstatsMedians(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles benchstat")
	}
	t.Parallel()
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no go command in PATH")
	}
	dir, err := filepath.Abs(filepath.Join("testdata", "compare"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := unknot(t, "compare", filepath.Join(dir, "base.txt"), filepath.Join(dir, "slow.txt"))
	ours := result(t, cmd).stdout
	_, command, ok := strings.Cut(ours, "same medians: ")
	if !ok {
		t.Fatalf("no benchstat command in\n%s", ours)
	}
	command, _, _ = strings.Cut(command, "\n")
	b, err := exec.CommandContext(t.Context(), goTool, append([]string{"tool"}, strings.Fields(command)...)...).Output()
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	// Numbers such as 1.203µ, without their spread.
	number := regexp.MustCompile(`\s([0-9][0-9.]*[numkMGTi]?|[0-9][0-9.]*µ|[0-9][0-9.]*Ki) ±`)
	numbers := func(text string) (all []string) {
		for l := range strings.Lines(text) {
			if l = strings.TrimSpace(l); !strings.HasPrefix(l, "Encode/") {
				continue
			}
			name, _, _ := strings.Cut(l, " ")
			for _, m := range number.FindAllStringSubmatch(l, -1) {
				all = append(all, name+" "+m[1])
			}
		}
		slices.Sort(all)
		return all
	}
	got, want := numbers(ours), numbers(string(b))
	if len(want) != 2*2*5 || !slices.Equal(got, want) {
		t.Errorf("medians %v\nbenchstat's %v\n%s\n%s", got, want, ours, b)
	}
}

// printer is a shell command that prints results of about some ns/op, with
// noise that follows from the time.
func printer(ns int) string {
	return fmt.Sprintf(`n=1$(date +%%N); echo "pkg: p"; echo "BenchmarkA/x=1-2 1 $((%d + ${n%%???} %% 97 * %d / 10000)) ns/op"; : {bench}`, ns, ns)
}

// inDir runs the command line in a folder, as where no floor is recorded.
func inDir(t *testing.T, dir string, args ...string) outcome {
	t.Helper()
	c := unknot(t, args...)
	c.Dir = dir
	return result(t, c)
}

func TestCompareRun(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		old, new string
		args     []string
		code     int
		stdout   string
		stderr   string
	}{
		{"A/A", printer(100000), printer(100000), nil, 0, "pass: 1 gated: 1 pass", "results are kept in"},
		{"slower", printer(100000), printer(112000), nil, 1, "confirmation: 1 of 1 suspect rows regressed again in 8 fresh rounds", "measuring them again"},
		{"not confirmed", printer(100000), printer(112000), []string{"--confirm=false"}, 1, "not confirmed by fresh rounds", ""},
		{"faster", printer(112000), printer(100000), nil, 0, "improved: 1 gated", ""},
		{"fails", printer(100000), "exit 9", nil, 2, "", "exit status 9"},
		{"prints nothing", "true", printer(100000), nil, 2, "", "empty"},
		{"too slow", "sleep 1000", printer(100000), []string{"--timeout", "100ms"}, 2, "", "longer than 100ms"},
		{"no rounds", "true", "true", []string{"--rounds", "0"}, 2, "", "--rounds 0"},
		{"nowhere to write", "true", "true", []string{"-o", "/proc/nowhere"}, 2, "", "/proc/nowhere"},
		{"budget", printer(100000), printer(100000), []string{"--budget", "40s"}, 0, "with a budget of 40s: each row until its verdict", ""},
		{"budget, slower", printer(100000), printer(112000), []string{"--budget", "40s"}, 1, "1 of 1 suspect rows regressed again in up to 20 fresh rounds", "measuring them again"},
		{"budget, fails", printer(100000), "exit 9", []string{"--budget", "40s"}, 2, "", "exit status 9"},
		{"no benchtime", "true", "true", []string{"--benchtime", "soon"}, 2, "", "--benchtime \"soon\": want a time"},
		{"no budget", "true", "true", []string{"--budget", "10ms"}, 2, "", "--budget 10ms"},
		{"few rounds", printer(100000), printer(100000), []string{"--rounds", "3"}, 3, "3 rounds are too few", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rounds := []string{"--rounds", "8"}
			if slices.Contains(c.args, "--budget") {
				rounds = nil
			}
			dir := t.TempDir()
			args := append(append([]string{"compare", "--run"}, rounds...), "--seed", "11", "-o", filepath.Join(dir, "r"))
			args = append(args, c.args...)
			o := inDir(t, dir, append(args, c.old, c.new)...)
			if o.code != c.code || !strings.Contains(o.stdout, c.stdout) || (c.code == 2) != (o.stdout == "") || !strings.Contains(o.stderr, c.stderr) {
				t.Errorf("status %d, want %d\n%s%s", o.code, c.code, o.stdout, o.stderr)
			}
		})
	}
}

// TestCompareRunLeavesFiles: what was measured can be compared again, with the
// same rounds, and an interrupted session cannot.
func TestCompareRunLeavesFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := inDir(t, dir, "compare", "--run", "--rounds", "8", "--seed", "11", "--format", "json", "-o", "r", printer(100000), printer(112000))
	again := inDir(t, dir, "compare", "--format", "json", "r/old.txt", "r/new.txt")
	var a, b compare.Report
	if err := errors.Join(json.Unmarshal([]byte(o.stdout), &a), json.Unmarshal([]byte(again.stdout), &b)); err != nil {
		t.Fatal(err)
	}
	if len(a.Rows) != 1 || *a.Rows[0].Old != *b.Rows[0].Old || a.Rows[0].Change != b.Rows[0].Change || b.Rows[0].Pairs != 8 || *b.Seed != 11 {
		t.Errorf("%s\n%s", o.stdout, again.stdout)
	}
	text, err := os.ReadFile(dir + "/r/old-confirm.txt")
	if err != nil || !bytes.Contains(text, []byte("seed=12")) {
		t.Errorf("the fresh rounds: %v\n%s", err, text)
	}
	o = inDir(t, dir, "compare", "--run", "--rounds", "8", "-o", "r", printer(100000), "exit 1")
	again = inDir(t, dir, "compare", "r/old.txt", "r/new.txt")
	if o.code != 2 || again.code != 2 || !strings.Contains(again.stderr, "truncated") && !strings.Contains(again.stderr, "no benchmark results") {
		t.Errorf("status %d and %d\n%s", o.code, again.code, again.stderr)
	}
}

func TestCompareConfirmsOnlyTheSuspects(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	command := func(slow int) string {
		return fmt.Sprintf(`echo {bench} >>log; n=1$(date +%%N); for b in A B; do case {bench} in *AB*|*Benchmark$b"("*) ;; *) continue ;; esac; f=100000; [ $b = B ] && f=%d; echo "Benchmark$b-2 1 $((f + ${n%%???} %% 97 * 10)) ns/op"; done`, slow)
	}
	o := inDir(t, dir, "compare", "--run", "--rounds", "6", "--bench", "[AB]", "-o", "r", command(100000), command(115000))
	log, err := os.ReadFile(dir + "/log")
	if err != nil || o.code != 1 {
		t.Fatalf("status %d, %v\n%s", o.code, err, o.stderr)
	}
	// Once together, to see what there is, and then each alone; and B again. What the
	// host disturbed has run once more, A in five pairs at most.
	ran := strings.Fields(string(log))
	a, b := strings.Count(string(log), "^(BenchmarkA(-2)?)$"), strings.Count(string(log), "^(BenchmarkB(-2)?)$")
	if ran[0] != "[AB]" || ran[1] != "[AB]" || a+b+2 != len(ran) || a < 10 || a > 20 || b < 22 || slices.Contains(ran[len(ran)-12:], "^(BenchmarkA(-2)?)$") {
		t.Errorf("ran\n%s", log)
	}
}

func TestCalibrate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := inDir(t, dir, "calibrate", "--comparisons", "3", "--rounds", "8", "--seed", "5", printer(100000))
	path := filepath.Join("results", machineSlug(), "floor.json")
	f, err := compare.ReadFloor(filepath.Join(dir, path))
	if err != nil || o.code != 0 || !strings.Contains(o.stdout, "noise floor: "+path) {
		t.Fatalf("status %d, %v\n%s%s", o.code, err, o.stdout, o.stderr)
	}
	if len(f.Rows) != 1 || f.Rows[0].Pkg != "p" || f.Rows[0].Unit != "sec/op" || f.Rows[0].Floor <= 0 || f.Rows[0].Floor > .02 || f.Seed != 5 || f.Comparisons != 3 || f.Machine == "" {
		t.Errorf("%+v", f)
	}
	// compare finds it, and it is of this machine.
	o = inDir(t, dir, "compare", "--run", "--rounds", "8", "-o", "r", "--format", "json", printer(100000), printer(100000))
	var r compare.Report
	if err := json.Unmarshal([]byte(o.stdout), &r); err != nil {
		t.Fatal(err)
	}
	if o.code != 0 || float64(r.Rows[0].Floor) != f.Rows[0].Floor {
		t.Errorf("status %d\n%s", o.code, o.stdout)
	}
	// Another machine's is refused.
	f.Machine = "other"
	b, err := f.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, path), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if o := inDir(t, dir, "compare", "r/old.txt", "r/new.txt"); o.code != 3 || !strings.Contains(o.stdout, "another machine") {
		t.Errorf("status %d\n%s", o.code, o.stdout)
	}
	for _, args := range [][]string{{}, {"a", "b"}, {"--rounds", "0", "true"}, {"--comparisons", "0", "true"}, {"--format", "xml", "true"},
		{"true"}, {"exit 1"}, {"-o", "/nonexistent/floor.json", "true"}, {"--timeout", "0s", "true"}} {
		if o := inDir(t, dir, append([]string{"calibrate"}, args...)...); o.code != 2 || o.stdout != "" || strings.Count(o.stderr, "\n") != 1 {
			t.Errorf("calibrate %v: status %d\n%s%s", args, o.code, o.stdout, o.stderr)
		}
	}
}

// TestBenchSaysItsMachine: results of bench carry the fingerprint that compare
// looks at.
func TestBenchSaysItsMachine(t *testing.T) {
	o := result(t, unknot(t, "bench", "--engine", "bare", "--targets", "1", "--duration", "5ms", "--count", "1", "--trace", "off"))
	hash, facts := bench.Fingerprint()
	if !strings.Contains(o.stdout, "\nmachine: "+hash+"\n") || !strings.Contains(o.stdout, "\n# machine "+facts[0][0]+": "+facts[0][1]+"\n") {
		t.Errorf("%s", o.stdout)
	}
}

// TestPlantedRegressionsAreFoundAndNamed: a lock that goroutines wait for, an allocation
// and a layout that misses the caches are found, and --profile names the function. What
// the goroutines do to each other must not be taken for a disturbance by the host.
func TestPlantedRegressionsAreFoundAndNamed(t *testing.T) {
	if !*long {
		t.Skip("measures for half a minute: ask for it by -long, as make long does")
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no go command in PATH")
	}
	dir := t.TempDir()
	var commands [2]string
	for i, tags := range []string{"", "slow"} {
		file := filepath.Join(dir, fmt.Sprint("planted", i))
		build := exec.CommandContext(t.Context(), goTool, "test", "-c", "-tags", tags, "-o", file, ".")
		build.Dir = filepath.Join("testdata", "planted")
		build.Env = append(os.Environ(), "GOWORK=off") // a module of its own
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		commands[i] = file + ` -test.run '^$' -test.bench {bench} {profile} -test.benchtime {benchtime}`
	}
	history := filepath.Join(dir, "history")
	var o outcome
	var r compare.Report
	// A machine with much other work needs more time to be sure.
	for _, budget := range []string{"20s", "1m", "3m"} {
		_ = os.RemoveAll(history)
		c := exec.CommandContext(t.Context(), "/proc/self/exe", "compare", "--run", "--budget", budget, "--format", "json", "--floor", "none", "--profile", "--benchtime", "20ms",
			"--commits", "aaa,bbb", "--history", history, "-o", filepath.Join(dir, "r"), commands[0], commands[1])
		c.Env = append(os.Environ(), unknotEnv+"=1")
		timer := time.AfterFunc(10*time.Minute, func() { _ = c.Process.Kill() })
		o = result(t, c)
		timer.Stop()
		r = compare.Report{}
		if err := json.Unmarshal([]byte(o.stdout), &r); err != nil {
			t.Fatalf("status %d, %v\n%s%s", o.code, err, o.stdout, o.stderr)
		}
		if len(r.Regressed()) == 3 {
			break
		}
	}
	for name, function := range map[string]string{"Lock": "planted.contended", "Allocate": "planted.filled", "Layout": "planted.walked"} {
		found := false
		for _, row := range r.Rows {
			found = found || strings.HasPrefix(row.Benchmark, name) && row.Unit == "sec/op" && row.Verdict == compare.Regressed
		}
		named := slices.ContainsFunc(r.Profiles, func(p *compare.Profile) bool {
			return strings.HasPrefix(p.Benchmark, name) && strings.Contains(strings.Join(p.Top, "\n"), function)
		})
		if !found || !named {
			t.Errorf("%s: found %v, %s named %v\n%s", name, found, function, named, o.stdout)
		}
	}
	if r.Commits != [2]string{"aaa", "bbb"} || !strings.HasPrefix(r.Go[0], "go1.") || r.Go[0] != r.Go[1] || r.Facts == "" {
		t.Errorf("commits %q, Go %q, facts %q", r.Commits, r.Go, r.Facts)
	}
	svg, err := os.ReadFile(r.PlotFile)
	if err != nil || !strings.HasPrefix(string(svg), "<svg ") || strings.Count(string(svg), "<circle ") < 15 {
		t.Errorf("plot %q: %v\n%.300s", r.PlotFile, err, svg)
	}
	if o := result(t, unknot(t, "trend", history)); o.code != 0 || !strings.Contains(o.stdout, "Allocate") || !strings.Contains(o.stdout, "0 changes of level in 3 trends") {
		t.Errorf("trend: status %d\n%s%s", o.code, o.stdout, o.stderr)
	}
}

func TestProfileThatCannotBe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// The regression stands, and the report says why there is no profile.
	o := inDir(t, dir, "compare", "--run", "--rounds", "8", "--profile", "-o", "r", printer(100000)+"; : {profile}", printer(112000)+"; : {profile}")
	if o.code != 1 || !strings.Contains(o.stdout, "note: no profile A/x=1-2: ") || !strings.Contains(o.stdout, "wrote no profile") {
		t.Errorf("status %d\n%s%s", o.code, o.stdout, o.stderr)
	}
}
