package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// fake stands for bin/unknot: it notes how it was called, and fails if told so.
const fake = `#!/bin/sh
[ "$1" = version ] && { echo example-2cpu; exit; }
echo "$*" >>calls
case "$*" in *"$(cat failing)"*) exit 1 ;; esac
out=
while [ $# -gt 0 ]; do
    case $1 in --hdr | --stages | -o) out=$2 ;; esac
    shift
done
[ -z "$out" ] || echo side >"$out"
echo "# date: 2026-01-02T03:04:05Z"
echo "BenchmarkX 1 5 ns/op"
`

// TestMeasuringGoesOnWhereItWas runs scripts/results.sh: what was whole when it
// failed is not measured again, and results appear only when all of it is there.
func TestMeasuringGoesOnWhereItWas(t *testing.T) {
	root := t.TempDir()
	put := func(name, text string, mode os.FileMode) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	script, err := os.ReadFile("../../../../scripts/results.sh")
	if err != nil {
		t.Fatal(err)
	}
	put("scripts/results.sh", string(script), 0o644)
	put("bin/unknot", fake, 0o755)
	put(".gitignore", "/bin/\n/calls\n/failing\n", 0o644)
	put("failing", "--stages", 0o644)
	for _, args := range [][]string{{"init", "-q"}, {"add", "."}, {"-c", "user.name=x", "-c", "user.email=x@example.com", "commit", "-q", "-m", "x"}} {
		cmd := exec.Command("git", args...)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	measure := func(args ...string) (int, string) {
		t.Helper()
		cmd := exec.Command("sh", append([]string{"scripts/results.sh"}, args...)...)
		cmd.Dir = root
		out, _ := cmd.CombinedOutput()
		return cmd.ProcessState.ExitCode(), string(out)
	}
	read := func(pattern string) string {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(paths) != 1 {
			t.Fatalf("%s: %v, %v", pattern, paths, err)
		}
		b, err := os.ReadFile(paths[0])
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if code, out := measure("sleep"); code != 2 || !strings.Contains(out, "no step sleep") {
		t.Errorf("a step that there is not: status %d\n%s", code, out)
	}
	if code, out := measure(); code == 0 {
		t.Errorf("a step failed: status 0\n%s", out)
	}
	if _, err := os.Stat(filepath.Join(root, "results")); err == nil {
		t.Error("there are results of half the steps")
	}
	put("failing", "none of them", 0o644)
	if code, out := measure("stages", "overload"); code != 0 || !strings.Contains(out, "listeners is not measured yet") {
		t.Errorf("two steps: status %d\n%s", code, out)
	}
	if code, out := measure(); code != 0 {
		t.Fatalf("status %d\n%s", code, out)
	}
	if calls := read("calls"); strings.Count(calls, "\n") != 7 || strings.Count(calls, "--stages") != 2 || strings.Count(calls, "--rate") != 1 {
		t.Errorf("unknot was called\n%s", calls)
	}
	var steps []string
	text := read("results/example-2cpu/2026-01-02-*[0-9a-f].txt")
	for l := range strings.Lines(text) {
		if s, ok := strings.CutPrefix(l, "# step: "); ok {
			steps = append(steps, strings.TrimSpace(s))
		}
	}
	if got := strings.Join(steps, " "); got != "throughput latency stages overload listeners" || strings.Count(text, "BenchmarkX") != 4 || strings.Contains(text, root) {
		t.Errorf("steps %s\n%s", got, text)
	}
	for _, pattern := range []string{"2026-01-02-*.latency.hgrm", "2026-01-02-*.stages.json", "floor.json"} {
		if got := read("results/example-2cpu/" + pattern); got != "side\n" {
			t.Errorf("%s: %q", pattern, got)
		}
	}
	if base := read("results/example-2cpu/baseline.txt"); base != text {
		t.Errorf("the first results are not the baseline: %q", base)
	}
}
