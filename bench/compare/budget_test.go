package compare

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// benchmarks is a command that prints results of benchmarks, whose names and awk
// expressions of ns/op follow each other, as go test -bench does: those that {bench}
// selects. Values vary by the number of the run, which it keeps in a file.
func benchmarks(t *testing.T, side string, nameValue ...string) (command, log string) {
	t.Helper()
	log = filepath.Join(t.TempDir(), side)
	var b strings.Builder
	fmt.Fprintf(&b, "echo {bench} >>%s; n=$(wc -l <%s); echo goos: linux", log, log)
	for i := 0; i < len(nameValue); i += 2 {
		fmt.Fprintf(&b, `; case {bench} in .|*Benchmark%s"("*) awk -v n=$n 'BEGIN { printf "Benchmark%s-2 100 %%d ns/op\n", %s }' ;; esac`, nameValue[i], nameValue[i], nameValue[i+1])
	}
	return b.String() + "; echo PASS", log
}

func measured(t *testing.T, old, new string, budget time.Duration, o Options) (rep *Report, files [2]string, v *Interleaver) {
	t.Helper()
	var out [2]bytes.Buffer
	v = session(0, old, new)
	rep, err := v.Measure(t.Context(), &out[0], &out[1], budget, o)
	if err != nil {
		t.Fatal(err)
	}
	return rep, [2]string{out[0].String(), out[1].String()}, v
}

// TestABudgetGoesToTheRowsWithoutAVerdict: A is decided and then left alone, B is never.
func TestABudgetGoesToTheRowsWithoutAVerdict(t *testing.T) {
	at := func(b string) []string { return []string{"A", "1000 + n % 7", "B", b} }
	var log string
	var rep *Report
	var files [2]string
	// A machine with much other work runs few in a time.
	for budget := time.Second; budget < 5*time.Minute; budget *= 4 {
		var old, new string
		old, log = benchmarks(t, "old", at("1000")...)
		new, _ = benchmarks(t, "new", at("n % 2 ? (n % 4 == 1 ? 2700 : 2610) : (n % 4 ? 410 : 420)")...)
		rep, files, _ = measured(t, old, new, budget, Options{})
		if a, b := rep.row(t, "A-2", "sec/op"), rep.row(t, "B-2", "sec/op"); a.Verdict == Pass && a.Pairs < b.Pairs {
			break
		}
	}
	a, b := rep.row(t, "A-2", "sec/op"), rep.row(t, "B-2", "sec/op")
	if a.Verdict != Pass || !(a.Hi < .05) || a.Level == 0 {
		t.Errorf("A: %s [%v, %v] at %v: %s", a.Verdict, a.Lo, a.Hi, a.Level, a.Reason)
	}
	if b.Verdict != Inconclusive || rep.Exit != ExitInconclusive || b.Reason == "" || strings.Contains(b.Reason, "rounds should do") {
		t.Errorf("B: %s, %s", b.Verdict, b.Reason)
	}
	if n := strings.Count(files[0], "# interleaved round="); strings.Count(files[0], "rounds=1 spent") > 1 || !strings.Contains(files[0], fmt.Sprintf("look rounds=%d ", b.Pairs)) {
		t.Errorf("rounds without a pair: %d pairs of B, %d in all\n%s", b.Pairs, n, files[0][max(0, len(files[0])-200):])
	}
	if !(a.Pairs < b.Pairs) {
		t.Errorf("A has %d pairs, B %d", a.Pairs, b.Pairs)
	}
	ran, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(ran)), "\n")
	if lines[0] != "." || lines[1] == lines[2] || lines[len(lines)-1] != "^(BenchmarkB(-2)?)$" {
		t.Errorf("ran %q … %q", lines[:3], lines[len(lines)-1])
	}
	// Whoever compares the files gets the same verdict.
	again := compared(t, files[0], files[1], Options{})
	for i, r := range again.Rows {
		if w := rep.Rows[i]; r.Verdict != w.Verdict || r.Level != w.Level || r.Pairs != w.Pairs {
			t.Errorf("again: %+v, was %+v", r, w)
		}
	}
	if !strings.Contains(files[0], fmt.Sprintf(" budget=%v side=old\n", time.Duration(rep.Budget)*time.Second)) || again.Budget != rep.Budget {
		t.Errorf("budget %v in\n%.200s", again.Budget, files[0])
	}
	// A look that one file lacks, or that says nonsense, is a file that was changed.
	cut := strings.Index(files[1], "# interleaved look")
	end := cut + strings.IndexByte(files[1][cut:], '\n') + 1
	for says, f := range map[string]string{"do not say the same": files[1][:cut] + files[1][end:], "want more than 0": files[1][:cut] + "# interleaved look rounds=1 spent=7\n" + files[1][cut:]} {
		if _, err := Compare(Input{"old", []byte(files[0])}, Input{"new", []byte(f)}, Options{}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("changed: %v, want %q", err, says)
		}
	}
	// Two sessions, each of which stopped when it liked, are not one.
	other := strings.NewReplacer("session=s", "session=t")
	if r := compared(t, files[0]+other.Replace(files[0]), files[1]+other.Replace(files[1]), Options{}); r.Exit != ExitInconclusive || !strings.Contains(r.Rows[0].Reason, "cannot be put together") {
		t.Errorf("two sessions: %s", r.Rows[0].Reason)
	}
}

func TestABudgetFindsAndEnds(t *testing.T) {
	side := func(name, value string) string { c, _ := benchmarks(t, name, "A", value, "C", "500 + n % 3"); return c }
	for _, c := range []struct {
		name string
		new  string
		want Verdict
	}{
		{"slower", "1100 + n % 7", Regressed},
		{"faster", "900 + n % 7", Improved},
		{"constant", "1000", Pass},
	} {
		oldValue := "1000 + n % 7"
		if c.want == Pass {
			oldValue = "1000"
		}
		// It ends with the last verdict, at one of twenty looks. A machine with much other work runs few rounds until then:
		// too few for a verdict, or for more than that it did not get slower.
		var rep *Report
		for budget := 2 * time.Second; budget < 5*time.Minute; budget *= 4 {
			rep, _, _ = measured(t, side("old", oldValue), side("new", c.new), budget, Options{})
			if rep.Verdict != Inconclusive && (c.want != Improved || rep.Verdict != Pass) {
				break
			}
		}
		if r := rep.row(t, "A-2", "sec/op"); r.Verdict != c.want || rep.Verdict != c.want {
			t.Errorf("%s: %s, %s", c.name, r.Verdict, r.Reason)
		}
	}
	// What one side lacks needs no rounds: it ends at once, and says so.
	old, _ := benchmarks(t, "old", "A", "1000")
	rep, _, _ := measured(t, old, side("new", "1000"), 10*time.Second, Options{AllowNew: true})
	if r := rep.row(t, "C-2", "sec/op"); r.Verdict != New || rep.Verdict != Pass {
		t.Errorf("new: %s, %s", r.Verdict, rep.Verdict)
	}
	// A budget of a few runs shows nothing, and the reason says what would.
	rep, _, _ = measured(t, "sleep 0.3; "+old, "sleep 0.3; "+side("new", "1000"), time.Second, Options{AllowNew: true})
	if r := rep.row(t, "A-2", "sec/op"); r.Verdict != Inconclusive || !strings.Contains(r.Reason, "give it more than --budget 1s") {
		t.Errorf("few: %s, %s", r.Verdict, r.Reason)
	}
}

// TestWhatCannotRunAlone: a benchmark that runs only with the others is measured with
// them.
func TestWhatCannotRunAlone(t *testing.T) {
	command := `case {bench} in .) echo BenchmarkA 1 100 ns/op; echo BenchmarkB 1 100 ns/op ;; *) echo BenchmarkC 1 1 ns/op ;; esac`
	rep, files, _ := measured(t, command, command, 10*time.Second, Options{})
	if rep.Verdict != Pass || len(rep.Rows) != 2 || strings.Contains(files[0], "BenchmarkC") {
		t.Errorf("%s, %d rows\n%s", rep.Verdict, len(rep.Rows), files[0])
	}
}

// TestRoundsRunEachBenchmarkAlone: without a budget too, with all rounds for each.
func TestRoundsRunEachBenchmarkAlone(t *testing.T) {
	old, log := benchmarks(t, "old", "A", "1000 + n % 7", "B", "1000 + n % 5")
	new, _ := benchmarks(t, "new", "A", "1000 + n % 7", "B", "1000 + n % 5")
	var out [2]bytes.Buffer
	if err := session(6, old, new).Run(t.Context(), &out[0], &out[1]); err != nil {
		t.Fatal(err)
	}
	r := compared(t, out[0].String(), out[1].String(), Options{})
	if r.Verdict != Pass || r.Rows[0].Pairs != 6 || r.Rows[1].Pairs != 6 {
		t.Errorf("%s, %+v", r.Verdict, r.Rows)
	}
	// One round of both, five of each; and what the host disturbed, again.
	if ran, _ := os.ReadFile(log); bytes.Count(ran, []byte("\n")) != 11+r.Repeated {
		t.Errorf("ran\n%s", ran)
	}
}

// TestDisturbedPairs: by what the host does and is not always doing.
func TestDisturbedPairs(t *testing.T) {
	use := func(a, b float64) pairUse {
		return pairUse{{a, 200 * time.Millisecond, true}, {b, 200 * time.Millisecond, true}}
	}
	quiet, loaded := &hostWatch{}, &hostWatch{}
	for i := range 20 {
		quiet.add(use(.05*float64(i%2), .05))
		loaded.add(use(.5+.5*float64(i%3), .5+.5*float64(i%2)))
	}
	for name, c := range map[string]struct {
		w    *hostWatch
		use  pairUse
		want bool
	}{
		"nothing":                       {quiet, use(0, 0), false},
		"a tick of the clock":           {quiet, use(.05, 0), false},
		"one side":                      {quiet, use(.6, 0), true},
		"the other":                     {quiet, use(0, .6), true},
		"both, much":                    {quiet, use(1, 1), true},
		"as it always is":               {loaded, use(.5, 1), false},
		"more than that":                {loaded, use(0, 1.9), true},
		"at the start nothing is known": {&hostWatch{}, use(0, 1), false},
		"no /proc/stat":                 {quiet, pairUse{}, false},
		"a run of one tick":             {quiet, pairUse{{1, 10 * time.Millisecond, true}, {0, 10 * time.Millisecond, true}}, false},
	} {
		if got := c.w.disturbed(c.use); got != c.want {
			t.Errorf("%s: %v, trouble %v", name, got, c.use.trouble())
		}
	}
	// This machine's own figures: what a command uses itself is not foreign.
	if _, ok := busyTime(); ok {
		_, _, u, err := runCommand(t.Context(), "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo BenchmarkX 1 1 ns/op", time.Minute, false)
		if err != nil || !u.known || u.took <= 0 || u.foreign < 0 {
			t.Errorf("%+v, %v", u, err)
		}
	}
	marked := "# interleaved start session=a seed=1 rounds=2 side=old\n# interleaved round=1 slot=1 repeated\nBenchmarkX 1 1 ns/op\n# interleaved round=2 slot=1 repeated disturbed\nBenchmarkX 1 1 ns/op\n# interleaved end session=a\n"
	if r := compared(t, marked, marked, Options{}); r.Repeated != 2 || r.Disturbed != 1 {
		t.Errorf("repeated %d, disturbed %d", r.Repeated, r.Disturbed)
	}
}

// TestBothSidesOfAPairRunAsOften: as many iterations as take the time, by the fastest
// run that there was, and a time where nothing is known.
func TestBothSidesOfAPairRunAsOften(t *testing.T) {
	dir := t.TempDir()
	command := func(side string, ns int) string {
		return fmt.Sprintf(`echo {benchtime} >>%s/%s; case {bench} in .|*A"("*) echo "BenchmarkA-2 10 %d ns/op" ;; esac; case {bench} in .|*B"("*) echo "BenchmarkB-2 10 %d ns/op" ;; esac`, dir, side, ns, 1000*ns)
	}
	if err := session(4, command("old", 50), command("new", 40)).Run(t.Context(), new(bytes.Buffer), new(bytes.Buffer)); err != nil {
		t.Fatal(err)
	}
	for _, side := range []string{"old", "new"} {
		b, err := os.ReadFile(filepath.Join(dir, side))
		if err != nil {
			t.Fatal(err)
		}
		ran := strings.Fields(string(b))
		// What the host disturbed ran again.
		a, c := strings.Count(string(b), "2500000x"), strings.Count(string(b), "2500x")
		if ran[0] != "100ms" || a < 3 || c < 3 || a+c+strings.Count(string(b), "100ms") != len(ran) {
			t.Errorf("%s ran %q", side, ran)
		}
	}
	v := &Interleaver{Benchtime: "7x"}
	s := v.execution([2]io.Writer{})
	if s.fastest["A"] = 5; s.benchtime("A") != "7x" || s.benchtime("") != "7x" {
		t.Errorf("iterations became %s", s.benchtime("A"))
	}
}
