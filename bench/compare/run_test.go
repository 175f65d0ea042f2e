package compare

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/perf/benchfmt"
)

func session(rounds int, old, new string) *Interleaver {
	return &Interleaver{Commands: [2]string{old, new}, Rounds: rounds, Seed: 3, Session: "s", Bench: ".", Benchtime: "100ms", Timeout: time.Minute,
		Machine: "m1", Details: [][2]string{{"kernel", "6.1"}}}
}

func TestEachCommandIsAsOftenFirst(t *testing.T) {
	for seed := range uint64(20) {
		o, first := newOrder(seed), 0
		for range 10 {
			a, b := o.next(), o.next()
			if a == b || a[0] == a[1] {
				t.Fatalf("seed %d: %v, %v", seed, a, b)
			}
			first += a[0]
		}
		if seed == 0 && (first == 0 || first == 10) {
			t.Error("the order within two rounds is not random")
		}
	}
	a, b := newOrder(5), newOrder(5)
	for range 20 {
		if a.next() != b.next() {
			t.Fatal("one seed, two orders")
		}
	}
}

func TestInterleavedFiles(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	command := func(name string, v int) string {
		return fmt.Sprintf(`echo %s >>%s; echo commit: %s; printf 'BenchmarkX/b=.-2 1 %d ns/op 2 B/op\nPASS\n'`, name, log, name, v)
	}
	var out [2]bytes.Buffer
	var seen []int
	v := session(6, command("old", 100), command("new", 100))
	v.Progress = func(p Progress) { seen = append(seen, p.Done, p.Runs) }
	if err := v.Run(t.Context(), &out[0], &out[1]); err != nil {
		t.Fatal(err)
	}
	ran, _ := os.ReadFile(log)
	var want strings.Builder
	runs := 0
	for o, round := newOrder(3), 1; round <= 6; round++ {
		sides, times := o.next(), 1
		if regexp.MustCompile(fmt.Sprintf(`(?m)^# interleaved round=%d slot=\d repeated`, round)).Match(out[0].Bytes()) {
			times = 2 // the host disturbed it
		}
		for range times {
			for _, side := range sides {
				fmt.Fprintln(&want, [2]string{"old", "new"}[side])
				runs++
			}
		}
	}
	if string(ran) != want.String() {
		t.Errorf("ran\n%swant\n%s", ran, want.String())
	}
	if len(seen) != 2*runs || seen[0] != 0 || seen[1] != 12 || seen[2*runs-2] != runs-1 {
		t.Errorf("progress %v", seen)
	}
	for i := range out {
		// Trap 1: the keys must be file keys, and there; trap 9: the same in all
		// rounds, or benchstat makes a table of each.
		rd := benchfmt.NewReader(bytes.NewReader(out[i].Bytes()), "x")
		n := 0
		for rd.Scan() {
			r, ok := rd.Result().(*benchfmt.Result)
			if !ok {
				t.Fatal(rd.Result())
			}
			n++
			if at, ok := r.ConfigIndex("machine"); !ok || !r.Config[at].File || string(r.Config[at].Value) != "m1" || len(r.Config) != 2 {
				t.Errorf("keys %v", r.Config)
			}
			if string(r.Name) != "X/b=.-2" {
				t.Errorf("name %s", r.Name)
			}
		}
		if n != 6 {
			t.Errorf("%d results\n%s", n, out[i].String())
		}
	}
	r := compared(t, out[0].String(), out[1].String(), Options{})
	if row := r.row(t, "X/b=.-2", "sec/op"); r.Verdict != Pass || !row.Paired || row.Pairs != 6 || *r.Seed != 3 {
		t.Errorf("%s %+v", r.Verdict, row)
	}
	// Half of a session is refused, wherever it was cut.
	for at, c := range out[0].Bytes() {
		if c != '\n' || at == out[0].Len()-1 {
			continue
		}
		if _, err := Compare(Input{"old", out[0].Bytes()[:at+1]}, Input{"new", out[1].Bytes()}, Options{}); err == nil {
			t.Fatalf("cut at %d: no error", at)
		}
	}
}

func TestBenchstatReadsSessions(t *testing.T) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no go command in PATH")
	}
	dir := t.TempDir()
	old, new := interleavedFiles(9, func(n, side int) float64 { return float64(1000 + 37*(n*5%9) + 400*side) })
	files := []string{filepath.Join(dir, "old.txt"), filepath.Join(dir, "new.txt")}
	old = "commit: a\n" + strings.ReplaceAll(old, "BenchmarkX", "BenchmarkX/path=a")
	new = "commit: b\n" + strings.ReplaceAll(new, "BenchmarkX", "BenchmarkX/path=a")
	for i, text := range []string{old, new} {
		if err := os.WriteFile(files[i], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a, errA := ReadFile(files[0])
	b, errB := ReadFile(files[1])
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	r, err := Compare(a, b, Options{})
	if err != nil {
		t.Fatal(err)
	}
	// The command of the report, but for the format, which goes before the files.
	args := append([]string{"tool", "benchstat", "-format", "csv"}, strings.Fields(r.Benchstat)[1:]...)
	out, err := exec.CommandContext(t.Context(), goTool, args...).Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	var medians []float64
	for l := range strings.Lines(string(out)) {
		if f := strings.Split(strings.TrimSpace(l), ","); strings.HasPrefix(f[0], "X/path=a") {
			for _, i := range []int{1, 3} {
				v, err := strconv.ParseFloat(f[i], 64)
				if err != nil {
					t.Fatalf("%v in %q", err, l)
				}
				medians = append(medians, v)
			}
		}
	}
	if row := r.Rows[0]; len(medians) != 2 || medians[0] != float64(row.Old.Center) || medians[1] != float64(row.New.Center) {
		t.Errorf("benchstat's medians %v, ours %v and %v\n%s", medians, row.Old.Center, row.New.Center, out)
	}
	// Names carry keys (trap 11), which benchstat can put into columns.
	out, err = exec.CommandContext(t.Context(), goTool, "tool", "benchstat", "-format", "csv", "-col", "/path", files[0]).Output()
	if err != nil || !strings.Contains(string(out), ",a,") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestCommandsThatFail(t *testing.T) {
	good := "echo BenchmarkX 1 1 ns/op"
	for _, c := range []struct{ command, says string }{
		{"exit 3", "exit status 3"},
		{"echo trouble >&2; exit 1", "it said: trouble"},
		{good + "; exit 1", "exit status 1"},
		{"echo no space left; exit 1", "no space left"},
		{"no-such-command-here", "exit status 127"},
		{"true", "empty"},
		{"echo PASS", "no benchmark results"},
		{"printf 'BenchmarkX 1 1 ns/op'", "truncated"},
		{"printf 'BenchmarkX 1 1\n'", "missing units"},
		{good + "; echo '--- FAIL: BenchmarkY'", "failed benchmark run"},
		{"kill -9 $$", "killed"},
	} {
		for side := range 2 {
			commands := [2]string{good, good}
			commands[side] = c.command
			var old, new bytes.Buffer
			err := session(3, commands[0], commands[1]).Run(t.Context(), &old, &new)
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "round 1") {
				t.Errorf("%s: %v, want %q", c.command, err, c.says)
			}
		}
	}
}

// TestATimeoutKillsAllOfTheCommand: the shell, and the child that outlives it.
func TestATimeoutKillsAllOfTheCommand(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	defer func(d time.Duration) { waitDelay = d }(waitDelay)
	for name, command := range map[string]string{
		"times out":                       "sh -c 'echo $$ >" + pidFile + ".new; mv " + pidFile + ".new " + pidFile + "; exec sleep 1000' & wait",
		"leaves one behind that holds on": "sh -c 'echo $$ >" + pidFile + ".new; mv " + pidFile + ".new " + pidFile + "; exec sleep 1000' & until [ -e " + pidFile + " ]; do sleep 0.01; done; echo BenchmarkX 1 1 ns/op",
	} {
		v := session(1, command, command)
		v.Timeout, waitDelay = 5*time.Minute, time.Second
		want := "left a process behind"
		if name == "times out" {
			v.Timeout, want = 500*time.Millisecond, "it took longer than "
		}
		_ = os.Remove(pidFile)
		var b []byte
		for { // on a busy machine the child may not be there in time
			err := v.Run(t.Context(), new(bytes.Buffer), new(bytes.Buffer))
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", name, err)
			}
			if b, err = os.ReadFile(pidFile); err == nil {
				break
			}
			if v.Timeout *= 4; v.Timeout > 5*time.Minute {
				t.Fatal(err)
			}
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(2 * time.Minute); alive(pid); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
				t.Fatalf("%s: process %d lives on", name, pid)
			}
		}
	}
}

// alive is false of zombies, whose parent may be slow.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(after, "Z")
}

func TestAnInterruptEndsTheSession(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	v := session(3, "sleep 1000", "sleep 1000")
	v.Progress = func(Progress) { cancel() }
	if err := v.Run(ctx, new(bytes.Buffer), new(bytes.Buffer)); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestSelectMatchesAsGoTestDoes(t *testing.T) {
	// go test splits the pattern at slashes outside of brackets and matches each
	// level; a level that the pattern has not is free.
	matches := func(pattern, name string) bool {
		levels := strings.Split(pattern, "/")
		parts := strings.Split(name, "/")
		for i, l := range levels {
			if i < len(parts) && !regexp.MustCompile(l).MatchString(parts[i]) {
				return false
			}
		}
		return true
	}
	for _, c := range []struct {
		names []string
		yes   []string
		no    []string
	}{
		{[]string{"X-8"}, []string{"BenchmarkX"}, []string{"BenchmarkXY", "BenchmarkY"}},
		{[]string{"X/size=1-8", "X/size=2-8"}, []string{"BenchmarkX/size=1", "BenchmarkX/size=2"}, []string{"BenchmarkX/size=12", "BenchmarkY/size=1"}},
		{[]string{"X/a.b+c"}, []string{"BenchmarkX/a.b+c"}, []string{"BenchmarkX/aXb+c"}},
		{[]string{"X/n-16"}, []string{"BenchmarkX/n-16", "BenchmarkX/n"}, []string{"BenchmarkX/n-1"}},
		{[]string{"X-8", "Y/deep/er-8"}, []string{"BenchmarkX", "BenchmarkY/deep/er"}, []string{"BenchmarkZ"}},
	} {
		p := Select(c.names)
		for _, n := range c.yes {
			if !matches(p, n) {
				t.Errorf("%v: %s does not select %s", c.names, p, n)
			}
		}
		for _, n := range c.no {
			if matches(p, n) {
				t.Errorf("%v: %s selects %s", c.names, p, n)
			}
		}
	}
}
