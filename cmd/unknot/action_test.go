package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

// actionDir has the GitHub Action that gates pull requests by `unknot compare`.
const actionDir = "../../.github/actions/unknot-compare"

// action runs one of the action's scripts as a job's step would.
func action(t *testing.T, dir, script string, env ...string) outcome {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(actionDir, script))
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), "bash", path)
	c.Dir, c.WaitDelay = dir, hung
	c.Env = append(append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GORACE=atexit_sleep_ms=0"), env...)
	timer := time.AfterFunc(10*time.Minute, func() { _ = c.Process.Kill() })
	defer timer.Stop()
	return result(t, c)
}

func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s command in PATH", tool)
		}
	}
}

// TestActionGatesAnotherProject makes a repository with a module below its root,
// slows its benchmark down in a commit, and compares that with the commit before. Each comparison compiles two
// programs: with -long also those whose outcome the comparer's own tests have, too.
func TestActionGatesAnotherProject(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles and measures another project")
	}
	t.Parallel()
	need(t, "git", "go", "bash")
	repo := t.TempDir()
	git := func(args ...string) {
		t.Helper()
		c := exec.CommandContext(t.Context(), "git", append([]string{"-C", repo, "-c", "user.name=T", "-c", "user.email=t@example.com"}, args...)...)
		c.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(repo, "mod", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// The benchmark needs its package's directory; what it reports is what the
	// file there says, so that this test does not depend on the machine's load.
	bench := `package p
import ("os"; "strconv"; "strings"; "testing")
func BenchmarkRead(b *testing.B) {
	text, err := os.ReadFile("testdata/cost")
	if err != nil { b.Fatal(err) }
	cost, err := strconv.ParseFloat(strings.TrimSpace(string(text)), 64)
	if err != nil { b.Fatal(err) }
	for b.Loop() {}
	b.ReportMetric(cost, "ns/op")
}
`
	write("go.mod", "module example.com/p\n\ngo 1.24\n")
	write("p_test.go", bench)
	write("testdata/cost", "100\n")
	git("init", "-q")
	git("add", ".")
	git("commit", "-qm", "base")
	write("testdata/cost", "115\n")
	git("commit", "-qam", "head")

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	run := func(env ...string) (o outcome, output, summary string) {
		tmp := t.TempDir()
		out, sum := filepath.Join(tmp, "output"), filepath.Join(tmp, "summary")
		o = action(t, filepath.Join(repo, "mod"), "compare.sh", append([]string{"UNKNOT=" + self, unknotEnv + "=1", "GITHUB_OUTPUT=" + out, "GITHUB_STEP_SUMMARY=" + sum,
			"RUNNER_TEMP=" + tmp, "ROUNDS=6", "PROFILE=false", "BENCHTIME=1x", "GOFLAGS=-mod=mod", "GOWORK=off"}, env...)...)
		a, _ := os.ReadFile(out)
		b, _ := os.ReadFile(sum)
		return o, string(a), string(b)
	}
	o, output, summary := run("BASE=HEAD~1")
	if o.code != 0 || !strings.Contains(output, "exit=1\n") || !strings.Contains(output, "report=") ||
		!strings.Contains(summary, "❌ regressed") || !strings.Contains(summary, "+15.0%") || !strings.Contains(summary, "1 of 1 suspect rows regressed again") {
		t.Errorf("slower: status %d, outputs %q\n%s%s", o.code, output, o.stdout, o.stderr)
	}
	if !*long {
		disarmed(t, repo, git, write, run)
		return
	}
	// As it is by default, but for the time.
	o, output, summary = run("BASE=HEAD~1", "ROUNDS=", "BUDGET=20s", "PROFILE=true")
	if o.code != 0 || !strings.Contains(output, "exit=1\n") || !strings.Contains(output, "results=") || !strings.Contains(summary, "with a budget of 20s") ||
		!strings.Contains(summary, "[plot of the pairs](<") || !regexp.MustCompile(`old is [0-9a-f]{12}, go1\.\S+, new [0-9a-f]{12}, go1\.`).MatchString(summary) {
		t.Errorf("with a budget: status %d, outputs %q\n%s%s", o.code, output, o.stdout, o.stderr)
	}
	if o, output, _ := run("BASE=HEAD"); o.code != 0 || !strings.Contains(output, "exit=0\n") {
		t.Errorf("the same: status %d, outputs %q\n%s%s", o.code, output, o.stdout, o.stderr)
	}
	if o, output, _ := run("BASE=HEAD~1", "BENCH=NoSuch"); !strings.Contains(output, "exit=2\n") || strings.Contains(output, "report=") {
		t.Errorf("no benchmarks: status %d, outputs %q\n%s%s", o.code, output, o.stdout, o.stderr)
	}
	// By hand the script's status is the verdict's.
	if o, _, _ := run("BASE=HEAD~1", "BENCH=NoSuch", "GITHUB_OUTPUT="); o.code != 2 {
		t.Errorf("by hand: status %d\n%s%s", o.code, o.stdout, o.stderr)
	}
	// The first benchmark of a package, and of a package that base has not, are notes.
	git("checkout", "-q", "-b", "first")
	write("sub/s.go", "package sub\n")
	git("add", ".")
	git("commit", "-qm", "a package without tests")
	write("sub/s_test.go", strings.Replace(strings.Replace(bench, "package p", "package sub", 1), "testdata/cost", "../testdata/cost", 1))
	write("more/m_test.go", strings.Replace(strings.Replace(bench, "package p", "package more", 1), "testdata/cost", "../testdata/cost", 1))
	git("add", ".")
	git("commit", "-qm", "its first benchmark, and another package")
	for _, p := range []string{"./sub", "./more"} {
		if o, output, summary := run("BASE=HEAD~1", "PACKAGE="+p); o.code != 0 || !strings.Contains(output, "exit=0\n") || !strings.Contains(summary, "new: nothing to compare it with") {
			t.Errorf("first benchmark in %s: status %d, outputs %q\n%s%s", p, o.code, output, o.stdout, o.stderr)
		}
	}
	if o, output, _ := run("BASE=HEAD~1", "PACKAGE=strings"); o.code == 0 || strings.Contains(output, "exit=") || !strings.Contains(o.stderr, "which is not below") {
		t.Errorf("another's package: status %d, outputs %q\n%s%s", o.code, output, o.stdout, o.stderr)
	}
	disarmed(t, repo, git, write, run)
}

// disarmed are attempts at the gate, and what has no verdict.
func disarmed(t *testing.T, repo string, git func(...string), write func(name, text string), run func(...string) (o outcome, output, summary string)) {
	t.Helper()
	// A noise floor in the tree under test says nothing, whatever it says.
	git("checkout", "-q", "-b", "disarms")
	write(filepath.Join("results", machineSlug(), "floor.json"), `{"format": 1, "machine": "", "date": "2100-01-01T00:00:00Z", "command": "x", "seed": 1,
 "comparisons": 10, "rounds": 20, "rows": [{"pkg": "example.com/p", "benchmark": "Read-`+strconv.Itoa(runtime.GOMAXPROCS(0))+`", "unit": "sec/op", "floor": 0.9}]}`)
	write("testdata/cost", "150\n")
	git("add", ".")
	git("commit", "-qm", "disarm the gate")
	o, output, summary := run("BASE=HEAD~1")
	if o.code != 0 || !strings.Contains(output, "exit=1\n") || !strings.Contains(summary, "no noise floor") {
		t.Errorf("a floor in the head: status %d, outputs %q\n%s%s", o.code, output, o.stdout, o.stderr)
	}
	if o := action(t, repo, "verdict.sh", "EXIT=1"); o.code != 1 {
		t.Errorf("the disarming pull request: status %d", o.code)
	}
	for _, env := range []string{"BASE=", "BASE=nowhere"} {
		if o, output, _ := run(env); o.code == 0 || strings.Contains(output, "exit=") {
			t.Errorf("%s: status %d, outputs %q", env, o.code, output)
		}
	}
	git("checkout", "-q", "-b", "broken")
	write("p_test.go", "package p\nfunc broken( {\n")
	if o, output, _ := run("BASE=HEAD"); o.code == 0 || strings.Contains(output, "exit=") {
		t.Errorf("a head that does not build: status %d, outputs %q", o.code, output)
	}
	if left, err := exec.Command("git", "-C", repo, "worktree", "list").Output(); err != nil || strings.Count(string(left), "\n") != 1 {
		t.Errorf("worktrees are left: %v\n%s", err, left)
	}
}

func TestActionFailsTheJob(t *testing.T) {
	need(t, "bash")
	for _, c := range []struct {
		exit, failOn string
		code         int
		says         string
	}{
		{"0", "regressed", 0, ""},
		{"1", "regressed", 1, "::error::"},
		{"3", "regressed", 0, "::warning::"},
		{"3", "inconclusive", 3, "::error::"},
		{"2", "regressed", 2, "::error::"},
		{"", "regressed", 2, "::error::"}, // a step that broke before it knew
		{"139", "regressed", 2, "::error::"},
	} {
		if o := action(t, ".", "verdict.sh", "EXIT="+c.exit, "FAIL_ON="+c.failOn); o.code != c.code || !strings.Contains(o.stdout, c.says) {
			t.Errorf("%+v: status %d, %q", c, o.code, o.stdout)
		}
	}
}

// TestActionComments gives comment.sh a gh that records what is asked of it.
func TestActionComments(t *testing.T) {
	need(t, "bash", "jq")
	dir := t.TempDir()
	gh := `#!/bin/sh
echo "$*" >>"$GH_LOG"
[ -z "$GH_FAILS" ] || exit 1
case "$*" in *--paginate*)
	printf '{"data": {"repository": {"pullRequest": {"comments": {"nodes": ['
	printf '{"id": "IC_7", "viewerDidAuthor": true, "body": "hello"}, {"id": "IC_8", "viewerDidAuthor": %s, "body": "%s\\nold table"}' "$GH_MINE" "$GH_HAS"
	printf ']}}}}}' ;;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "gh"), []byte(gh), 0o755); err != nil {
		t.Fatal(err)
	}
	report := filepath.Join(dir, "report.md")
	if err := os.WriteFile(report, []byte("| a table |\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const listing, editing, adding = "api graphql --paginate", "updateIssueComment", "api repos/o/r/issues/3/comments -f body="
	if err := os.WriteFile(report, []byte("| a table |\n- [plot of the pairs](</tmp/x/pairs.svg>)\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct{ has, mine, mark, fails, log, out string }{
		{"<!-- unknot-compare: .%2Fp%20. -->", "true", "./p .", "", editing + "… -f id=IC_8 -f body=<!-- unknot-compare: .%2Fp%20. -->\n| a table |", ""},
		{"", "true", "./p .", "", adding + "<!-- unknot-compare: .%2Fp%20. -->\n| a table |", ""},
		// Whoever else has written the mark could edit the report.
		{"<!-- unknot-compare: .%2Fp%20. -->", "false", "./p .", "", adding, ""},
		// Actions whose marks look alike have a comment each.
		{"<!-- unknot-compare: .%2Fab%20. -->", "true", "./a-b .", "", adding + "<!-- unknot-compare: .%2Fa-b%20. -->", ""},
		{"<!-- unknot-compare: .%2Fa-b%20. -->", "true", "./ab .", "", adding + "<!-- unknot-compare: .%2Fab%20. -->", ""},
		{"", "true", "./a --><b .", "", adding + "<!-- unknot-compare: .%2Fa%20--%3E%3Cb%20. -->", ""},
		{"", "true", "./p .", "1", "", "::warning::"},
	} {
		log := filepath.Join(dir, fmt.Sprint("log", i))
		o := action(t, ".", "comment.sh", "PATH="+dir+":"+os.Getenv("PATH"), "GH_LOG="+log, "GH_HAS="+c.has, "GH_MINE="+c.mine, "GH_FAILS="+c.fails,
			"REPO=o/r", "PULL=3", "REPORT="+report, "MARK="+c.mark, "ARTIFACT=https://x/1?a=b")
		b, _ := os.ReadFile(log)
		asked := string(b)
		if o.code != 0 || !strings.HasPrefix(asked, listing) || !strings.Contains(o.stdout, c.out) {
			t.Errorf("%d: status %d, %q\nasked\n%s%s", i, o.code, o.stdout, asked, o.stderr)
		}
		if c.fails == "" && !strings.Contains(asked, "\n- [plot of the pairs, results and profiles](https://x/1?a=b)") {
			t.Errorf("%d: no link to the artifact in\n%s", i, asked)
		}
		for part := range strings.SplitSeq(c.log, "…") {
			if !strings.Contains(asked, part) {
				t.Errorf("%d: asked\n%swant %s", i, asked, c.log)
			}
		}
		if strings.Contains(asked, editing) && strings.HasPrefix(c.log, adding) {
			t.Errorf("%d: another's comment is edited\n%s", i, asked)
		}
	}
}

// TestActionIsWhole: its file parses, its steps run scripts that exist, every
// input that it uses is declared, and the example uses no other.
func TestActionIsWhole(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(actionDir, "action.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var a struct {
		Inputs map[string]struct{ Description, Default string }
		Runs   struct {
			Using string
			Steps []struct{ Run, Shell, Uses string }
		}
	}
	if err := yaml.Unmarshal(text, &a); err != nil {
		t.Fatal(err)
	}
	if a.Runs.Using != "composite" || len(a.Runs.Steps) != 4 {
		t.Errorf("%+v", a.Runs)
	}
	for _, s := range a.Runs.Steps {
		if s.Uses != "" {
			continue // what others made: the artifact
		}
		script, ok := strings.CutPrefix(s.Run, `bash "$ACTION/`)
		if _, err := os.Stat(filepath.Join(actionDir, strings.TrimSuffix(script, `"`))); !ok || err != nil || s.Shell != "bash" {
			t.Errorf("step %+v: %v", s, err)
		}
	}
	used := regexp.MustCompile(`inputs\.([a-z-]+)`).FindAllStringSubmatch(string(text), -1)
	if len(used) < len(a.Inputs) {
		t.Errorf("%d inputs, %d uses", len(a.Inputs), len(used))
	}
	for _, u := range used {
		if a.Inputs[u[1]].Description == "" {
			t.Errorf("input %s is not declared", u[1])
		}
	}
	text, err = os.ReadFile("../../docs/gate-workflow.yml")
	if err != nil {
		t.Fatal(err)
	}
	var w struct {
		Jobs map[string]struct {
			Steps []struct {
				Uses string
				With map[string]any
			}
		}
	}
	if err := yaml.Unmarshal(text, &w); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, s := range w.Jobs["compare"].Steps {
		if strings.Contains(s.Uses, "unknot-compare@") {
			found = true
			for name := range s.With {
				if _, ok := a.Inputs[name]; !ok {
					t.Errorf("the example sets %s, which the action has not", name)
				}
			}
		}
	}
	if !found {
		t.Error("the example does not use the action")
	}
}
