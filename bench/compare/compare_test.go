package compare

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// sample writes n runs of one benchmark around a value, with 1% of noise that is
// the same for a seed.
func sample(seed uint64, n int, name string, values ...any) string {
	rnd := rand.New(rand.NewPCG(seed, 1))
	var b strings.Builder
	for range n {
		fmt.Fprintf(&b, "Benchmark%s 100", name)
		for i := 0; i < len(values); i += 2 {
			v := values[i].(float64)
			if strings.HasPrefix(values[i+1].(string), "=") {
				fmt.Fprintf(&b, " %v %s", v, values[i+1].(string)[1:])
				continue
			}
			fmt.Fprintf(&b, " %v %s", v*(1+.01*rnd.NormFloat64()), values[i+1])
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func compared(t *testing.T, old, new string, o Options) *Report {
	t.Helper()
	r, err := Compare(Input{"old.txt", []byte(old)}, Input{"new.txt", []byte(new)}, o)
	if err != nil {
		t.Fatal(err)
	}
	// Whatever the report says, all three formats can say it.
	for _, write := range []func(*Report, *bytes.Buffer) error{
		func(r *Report, b *bytes.Buffer) error { return r.Text(b) },
		func(r *Report, b *bytes.Buffer) error { return r.JSON(b) },
		func(r *Report, b *bytes.Buffer) error { return r.Markdown(b) },
	} {
		var b bytes.Buffer
		if err := write(r, &b); err != nil || b.Len() == 0 {
			t.Errorf("write: %v", err)
		}
	}
	return r
}

func (r *Report) row(t *testing.T, benchmark, unit string) *Row {
	t.Helper()
	for _, row := range r.Rows {
		if row.Benchmark == benchmark && row.Unit == unit {
			return row
		}
	}
	t.Fatalf("no row %s %s", benchmark, unit)
	return nil
}

func TestVerdicts(t *testing.T) {
	old := sample(1, 10, "X", 100., "ns/op")
	oldMB := sample(1, 10, "X", 100., "MB/s")
	for _, c := range []struct {
		name     string
		old, new string
		o        Options
		want     Verdict
		exit     int
		reason   string
	}{
		{"A/A", old, sample(2, 10, "X", 100., "ns/op"), Options{}, Pass, 0, ""},
		{"10% slower", old, sample(2, 10, "X", 110., "ns/op"), Options{}, Regressed, 1, ""},
		{"10% faster", old, sample(2, 10, "X", 90., "ns/op"), Options{}, Improved, 0, ""},
		{"3% slower passes at 5%", old, sample(2, 10, "X", 103., "ns/op"), Options{}, Pass, 0, ""},
		{"3% slower fails at 1%", old, sample(2, 10, "X", 103., "ns/op"), Options{Threshold: .01}, Regressed, 1, ""},
		{"just at the threshold", old, sample(2, 10, "X", 105., "ns/op"), Options{}, Inconclusive, 3, "too noisy"},
		{"too noisy for 0.5%", old, sample(2, 10, "X", 100., "ns/op"), Options{Threshold: .005}, Inconclusive, 3, "should do"},
		{"throughput that falls", oldMB, sample(2, 10, "X", 90., "MB/s"), Options{Gate: []string{"MB/s"}}, Regressed, 1, ""},
		{"throughput that rises", oldMB, sample(2, 10, "X", 110., "MB/s"), Options{Gate: []string{"MB/s"}}, Improved, 0, ""},
		{"throughput that stays", oldMB, sample(2, 10, "X", 100., "MB/s"), Options{Gate: []string{"B/s"}}, Pass, 0, ""},
		{"more runs on one side", old, sample(2, 7, "X", 100., "ns/op"), Options{}, Inconclusive, 3, "truncated"},
		{"allowed", old, sample(2, 7, "X", 100., "ns/op"), Options{AllowUneven: true}, Pass, 0, ""},
		{"not a number", old, strings.Repeat("BenchmarkX 100 NaN ns/op\n", 10), Options{}, Inconclusive, 3, "finite"},
		{"negative", old, sample(2, 10, "X", -100., "ns/op"), Options{}, Inconclusive, 3, "finite"},
	} {
		r := compared(t, c.old, c.new, c.o)
		reason := ""
		for _, row := range r.Rows {
			if row.Gated {
				reason = row.Reason
			}
		}
		if r.Verdict != c.want || r.Exit != c.exit || !strings.Contains(reason, c.reason) || (c.reason == "") != (reason == "") {
			t.Errorf("%s: %s, exit %d, %q; want %s, %d, %q", c.name, r.Verdict, r.Exit, reason, c.want, c.exit, c.reason)
		}
	}
}

// TestInputsThatAreNotWhole: each of these must be an error, which is exit code 2.
func TestInputsThatAreNotWhole(t *testing.T) {
	good := sample(1, 10, "X", 100., "ns/op")
	session := "# interleaved start session=a seed=1 rounds=2 side=old\n# interleaved round=1 slot=1\n"
	for name, c := range map[string]struct{ text, says string }{
		"empty":              {"", "empty"},
		"no results":         {"PASS\nok  \tx\t1s\n", "no benchmark results"},
		"another format":     {"{\"a\": 1}\n", "no benchmark results"},
		"only names":         {"BenchmarkX\nBenchmarkX\n", "no benchmark results"},
		"no end of line":     {good[:len(good)-1], "truncated"},
		"half a number":      {good[:len(good)-9], "truncated"},
		"half a line":        {good + "BenchmarkX 100 12\n", "missing units"},
		"no values":          {good + "BenchmarkX 100\n", "missing measurements"}, // trap 2
		"no iterations":      {good + "BenchmarkX 12.5 ns/op\n", "iteration count"},
		"infinite":           {good + "BenchmarkX 100 1e999 ns/op\n", "parsing measurement"},
		"failed":             {good + "--- FAIL: BenchmarkY\nFAIL\n", "failed benchmark run"},
		"panicked":           {good + "panic: boom\n", "failed benchmark run"},
		"another direction":  {"Unit ns/op better=higher\n" + good, "which way is better"},
		"and for MB/s":       {"Unit MB/s better=lower\n" + good, "which way is better"},
		"an exact time":      {"Unit ns/op assume=exact\n" + good, "never exact"},
		"unit contradiction": {"Unit a better=lower\nUnit a better=higher\n" + good, "already set"},
		"session cut off":    {session + good, "does not end"},
		"session within one": {session + good + session + good, "does not end"},
		"a result too long":  {good + "BenchmarkX" + strings.Repeat("x", 1<<17) + " 1 1 ns/op\n", ".txt:11: a result of 131092 bytes"},
		"compressed":         {"\x1f\x8b\x08\n", "compressed (gzip): decompress"},
		"a result in pieces": {good + "BenchmarkY-2 \tlistening on :80\n", ".txt:11: \"listening on :80\" stands where BenchmarkY-2 has"},
		"failed events":      {"{\"Action\":\"output\",\"Output\":\"BenchmarkX 1 1 ns/op\\n\"}\n{\"Action\":\"fail\"}\n", "failed benchmark run"},
		"binary":             {"\x00\x01\xff\n", "no benchmark results"},
		"all of it filtered": {sample(1, 10, "Y", 100., "ns/op"), "filter leaves"},
	} {
		for i, in := range [][2]string{{c.text, good}, {good, c.text}} {
			o := Options{}
			if strings.HasPrefix(name, "all of it") {
				o.Filter = ".name:X"
			}
			_, err := Compare(Input{"old.txt", []byte(in[0])}, Input{"new.txt", []byte(in[1])}, o)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s, side %d: %v, want %q", name, i, err, c.says)
			}
		}
	}
	for name, o := range map[string]Options{
		"threshold": {Threshold: -1}, "alpha": {Alpha: 2}, "factor": {FloorFactor: .5}, "filter": {Filter: ".name:"}, "gate": {Gate: []string{"furlongs"}},
		"nan": {Threshold: math.NaN()},
	} {
		if _, err := Compare(Input{"old.txt", []byte(good)}, Input{"new.txt", []byte(good)}, o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestWhatIsMissingIsInconclusive: absence is no pass, on either side.
func TestWhatIsMissingIsInconclusive(t *testing.T) {
	x, y := sample(1, 10, "X", 100., "ns/op"), sample(1, 10, "Y", 100., "ns/op")
	both := sample(1, 10, "X", 100., "ns/op", 5., "=allocs/op")
	for name, c := range map[string][2]string{
		"renamed":            {x, y},
		"one of two gone":    {x + y, x},
		"a unit gone":        {both, x},
		"mixed units":        {x, strings.ReplaceAll(x, "ns/op", "us/op")},
		"another package":    {"pkg: a\n" + x, "pkg: b\n" + x},
		"another GOMAXPROCS": {strings.ReplaceAll(x, "X", "X-2"), strings.ReplaceAll(x, "X", "X-4")},
		"cut between lines":  {x + y, x + y[:len(y)/2][:strings.LastIndexByte(y[:len(y)/2], '\n')+1]},
		"only unknown units": {sample(1, 10, "X", 1., "widgets"), sample(1, 10, "X", 1., "widgets")},
	} {
		for _, in := range [][2]string{c, {c[1], c[0]}} {
			if r := compared(t, in[0], in[1], Options{}); r.Verdict != Inconclusive || r.Exit != ExitInconclusive {
				t.Errorf("%s: %s, exit %d", name, r.Verdict, r.Exit)
			}
		}
	}
	// Who names the gate says what matters.
	if r := compared(t, both, x, Options{Gate: []string{"ns/op"}}); r.Verdict != Pass {
		t.Errorf("a unit beside the gate: %s", r.Verdict)
	}
}

func TestMachines(t *testing.T) {
	x := sample(1, 10, "X", 100., "ns/op")
	for name, c := range map[string]struct {
		old, new string
		want     Verdict
	}{
		"same":            {"machine: a\n", "machine: a\n", Pass},
		"one says none":   {"machine: a\n", "", Pass},
		"another":         {"machine: a\n# machine kernel: 6.1\n", "machine: b\n# machine kernel: 6.8\n", Inconclusive},
		"another CPU":     {"cpu: A\n", "cpu: B\n", Inconclusive},
		"another OS":      {"goos: linux\n", "goos: darwin\n", Inconclusive},
		"two in one file": {"machine: a\n" + x + "machine: b\n", "machine: b\n" + x, Inconclusive},
	} {
		r := compared(t, c.old+x, c.new+x, Options{})
		if r.Verdict != c.want || (len(r.Mismatch) > 0) != (c.want == Inconclusive) {
			t.Errorf("%s: %s, %v", name, r.Verdict, r.Mismatch)
		}
		if name == "another" && !strings.Contains(strings.Join(r.Mismatch, "\n"), "kernel: 6.1, 6.8") {
			t.Errorf("the difference is not named: %v", r.Mismatch)
		}
	}
	// Even what is plainly slower: it may be the machine.
	if r := compared(t, "machine: a\n"+x, "machine: b\n"+sample(2, 10, "X", 200., "ns/op"), Options{}); r.Verdict != Inconclusive {
		t.Errorf("a regression on another machine: %s", r.Verdict)
	}
}

// The traps of the format and of the libraries that read it, by their numbers in
// the package documentation.

func TestTrap3OnlyHyphenatedNsAreScaled(t *testing.T) {
	declare := "Unit p99-dispatch-ns better=lower\nUnit p99_ns better=lower\n"
	old := declare + sample(1, 10, "X", 2500., "p99-dispatch-ns", 2500., "p99_ns")
	r := compared(t, old, old, Options{Gate: []string{"p99-dispatch-ns"}})
	var b bytes.Buffer
	if err := r.Text(&b); err != nil {
		t.Fatal(err)
	}
	if row := r.row(t, "X", "p99-dispatch-sec"); !row.Gated || row.Better != "lower" || row.Verdict != Pass || !strings.Contains(b.String(), "µ") {
		t.Errorf("%+v\n%s", row, b.String())
	}
	if row := r.row(t, "X", "p99_ns"); float64(row.Old.Center) < 2000 {
		t.Errorf("p99_ns was scaled: %v", row.Old.Center)
	}
}

func TestTrap4AnUndeclaredUnitIsNotGated(t *testing.T) {
	old, new := sample(1, 10, "X", 100., "ns/op", 5., "widgets"), sample(2, 10, "X", 100., "ns/op", 50., "widgets")
	r := compared(t, old, new, Options{})
	row := r.row(t, "X", "widgets")
	if row.Gated || row.Better != "" || math.Abs(float64(row.Change)-9) > .2 || r.Verdict != Pass {
		t.Errorf("%+v, %s", row, r.Verdict)
	}
	r = compared(t, old, new, Options{Gate: []string{"widgets"}})
	if row := r.row(t, "X", "widgets"); r.Exit != ExitInconclusive || !strings.Contains(row.Reason, "better=lower") {
		t.Errorf("gated: %+v", row)
	}
	if r := compared(t, "Unit widgets better=lower\n"+old, new, Options{Gate: []string{"widgets"}}); r.Verdict != Regressed {
		t.Errorf("declared on one side: %s", r.Verdict)
	}
	if r := compared(t, "Unit widgets better=sideways\n"+old, new, Options{Gate: []string{"widgets"}}); r.Verdict != Inconclusive {
		t.Errorf("declared nonsense: %s", r.Verdict)
	}
}

func TestTraps5And6ExactUnits(t *testing.T) {
	declare := "Unit allocs/op assume=exact\n"
	gate := Options{Gate: []string{"allocs/op"}}
	for _, c := range []struct {
		old, new string
		want     Verdict
	}{
		{sample(1, 1, "X", 100., "=allocs/op"), sample(1, 1, "X", 100., "=allocs/op"), Pass},
		{sample(1, 1, "X", 100., "=allocs/op"), sample(1, 1, "X", 104., "=allocs/op"), Pass},
		{sample(1, 1, "X", 100., "=allocs/op"), sample(1, 1, "X", 106., "=allocs/op"), Regressed},
		{sample(1, 1, "X", 0., "=allocs/op"), sample(1, 1, "X", 1., "=allocs/op"), Regressed},
		{sample(1, 1, "X", 106., "=allocs/op"), sample(1, 1, "X", 100., "=allocs/op"), Improved},
		// Exact that varies is not exact: its mode is any of the values.
		{sample(1, 10, "X", 100., "allocs/op"), sample(1, 10, "X", 200., "allocs/op"), Inconclusive},
	} {
		if r := compared(t, declare+c.old, c.new, gate); r.Verdict != c.want {
			t.Errorf("%s, want %s\n%s%s", r.Verdict, c.want, c.old, c.new)
		}
	}
	// A latency is never exact: one run of it shows nothing.
	if r := compared(t, sample(1, 1, "X", 100., "ns/op"), sample(1, 1, "X", 200., "ns/op"), Options{}); r.Verdict != Inconclusive {
		t.Errorf("one run a side: %s", r.Verdict)
	}
}

func TestTrap7ABaselineOfZero(t *testing.T) {
	gate := Options{Gate: []string{"B/op"}}
	zero, some := sample(1, 10, "X", 0., "=B/op"), sample(1, 10, "X", 16., "=B/op")
	for _, c := range []struct {
		old, new string
		want     Verdict
	}{{zero, zero, Pass}, {zero, some, Regressed}, {some, zero, Improved}, {some, some, Pass}} {
		r := compared(t, c.old, c.new, gate)
		if r.Verdict != c.want {
			t.Errorf("%s, want %s\n%s%s", r.Verdict, c.want, c.old, c.new)
		}
		if row := r.Rows[0]; c.old == zero && c.new == some && !math.IsNaN(float64(row.Change)) && !math.IsInf(float64(row.Change), 1) {
			t.Errorf("change from 0: %v", row.Change)
		}
	}
}

// interleavedFiles makes the files of a session whose values value chooses.
func interleavedFiles(rounds int, value func(round, side int) float64) (old, new string) {
	var b [2]bytes.Buffer
	for side := range b {
		_ = markStart(&b[side], "s1", 7, rounds, 0, "x")
		for n := range rounds {
			_ = markRound(&b[side], n+1, side+1, "")
			fmt.Fprintf(&b[side], "BenchmarkX 100 %v ns/op\n", value(n, side))
		}
		_ = markEnd(&b[side], "s1")
	}
	return b[0].String(), b[1].String()
}

func TestTrap7SummariesDoNotSortTheRounds(t *testing.T) {
	// Every round has its own level, 10% dearer on one side: sorted or not, the
	// sides overlap wholly, and only the rounds tell.
	level := func(n int) float64 { return 100 * math.Exp(float64(n*7%20)/5) }
	old, new := interleavedFiles(20, func(n, side int) float64 { return level(n) * (1 + .1*float64(side)) })
	r := compared(t, old, new, Options{})
	row := r.row(t, "X", "sec/op")
	if r.Verdict != Regressed || !row.Paired || row.Pairs != 20 || math.Abs(float64(row.Change)-.1) > 1e-6 || r.Seed == nil || *r.Seed != 7 {
		t.Errorf("%s %+v", r.Verdict, row)
	}
	// The same numbers in files without rounds show nothing.
	strip := func(s string) (out string) {
		for l := range strings.Lines(s) {
			if !strings.HasPrefix(l, "#") {
				out += l
			}
		}
		return out
	}
	if r := compared(t, strip(old), strip(new), Options{}); r.Verdict != Inconclusive {
		t.Errorf("unpaired: %s", r.Verdict)
	}
}

func TestTrap8TooFewRuns(t *testing.T) {
	one := func(n int, rows int, value float64) (s string) {
		for i := range rows {
			s += sample(uint64(i)+uint64(value), n, fmt.Sprintf("X%d", i), value, "ns/op")
		}
		return s
	}
	for _, c := range []struct {
		n, rows int
		want    Verdict
	}{{3, 1, Inconclusive}, {4, 1, Pass}, {5, 20, Inconclusive}, {6, 20, Pass}} {
		r := compared(t, one(c.n, c.rows, 100), one(c.n, c.rows, 100.4), Options{})
		if r.Verdict != c.want {
			t.Errorf("%d runs, %d rows: %s, want %s: %s", c.n, c.rows, r.Verdict, c.want, r.Rows[0].Reason)
		}
	}
	// In a session, 2^-rounds.
	for rounds, want := range map[int]Verdict{4: Inconclusive, 5: Pass} {
		old, new := interleavedFiles(rounds, func(n, side int) float64 { return 100 + float64(n+side)/10 })
		if r := compared(t, old, new, Options{}); r.Verdict != want {
			t.Errorf("%d rounds: %s, want %s", rounds, r.Verdict, want)
		}
	}
}

func TestTrap9KeysThatDifferDoNotHideTheComparison(t *testing.T) {
	x := sample(1, 10, "X", 100., "ns/op")
	r := compared(t, "commit: a\ndate: 1\nnote: same\n"+x, "commit: b\ndate: 2\nnote: same\n"+x, Options{})
	if r.Verdict != Pass || r.Benchstat != "benchstat -ignore commit,date old.txt new.txt" {
		t.Errorf("%s, %s", r.Verdict, r.Benchstat)
	}
	// A key that says what was measured does tell rows apart.
	two := "path: a\n" + x + "path: b\n" + strings.ReplaceAll(x, "100 1", "100 2")
	if r := compared(t, two, two, Options{}); r.Verdict != Pass || len(r.Rows) != 2 {
		t.Errorf("%s, %d rows", r.Verdict, len(r.Rows))
	}
	// One that changes with each run cannot be told from that, so it is asked.
	dated := func(from int) (s string) {
		for i, l := range strings.SplitAfter(strings.TrimSpace(x), "\n") {
			s += fmt.Sprintf("date: %d\n%s", from+i, l)
		}
		return s + "\n"
	}
	r = compared(t, dated(0), dated(100), Options{})
	if r.Verdict != Inconclusive || !strings.Contains(strings.Join(r.Notes, "\n"), "date has no value in common") {
		t.Errorf("%s, %v", r.Verdict, r.Notes)
	}
	if r := compared(t, dated(0), dated(100), Options{Ignore: []string{"date"}}); r.Verdict != Pass {
		t.Errorf("ignored: %s", r.Verdict)
	}
}

func TestRoundsThatLackASideAreInconclusive(t *testing.T) {
	old, new := interleavedFiles(20, func(n, side int) float64 { return 100 + float64(n+side)/10 })
	lines := strings.SplitAfter(new, "\n")
	r := compared(t, old, strings.Join(append(lines[:4:4], lines[5:]...), ""), Options{})
	if row := r.Rows[0]; r.Verdict != Inconclusive || !strings.Contains(row.Reason, "1 of 20 rounds") {
		t.Errorf("%s: %s", r.Verdict, row.Reason)
	}
	// Rounds of different sessions were not side by side.
	r = compared(t, old, strings.ReplaceAll(new, "session=s1", "session=s2"), Options{})
	if r.Rows[0].Paired {
		t.Error("two sessions are paired")
	}
}

func TestFloor(t *testing.T) {
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	floor := func(f float64, machine string, age time.Duration) Options {
		return Options{Now: now, Floor: &Floor{Format: 1, Machine: machine, Date: now.Add(-age), Rows: []FloorRow{{Benchmark: "X", Unit: "sec/op", Floor: f}}}}
	}
	old := "machine: a\n" + sample(1, 10, "X", 100., "ns/op")
	at := func(v float64) string { return "machine: a\n" + sample(2, 10, "X", v, "ns/op") }
	for _, c := range []struct {
		name   string
		new    float64
		o      Options
		want   Verdict
		theta  float64
		reason string
	}{
		{"none", 100, Options{}, Pass, .05, ""},
		{"low", 110, floor(.01, "a", 0), Regressed, .05, ""},
		{"raises θ", 106, floor(.04, "a", 0), Inconclusive, .06, ""},
		{"without it", 106, Options{}, Regressed, .05, ""},
		{"above the threshold", 100, floor(.06, "a", 0), Inconclusive, .09, "above the threshold"},
		{"and still plain", 130, floor(.06, "a", 0), Regressed, .09, ""},
		{"another machine's", 100, floor(.01, "b", 0), Inconclusive, .05, "another machine"},
		{"and plainly worse", 130, floor(.01, "b", 0), Inconclusive, .05, "another machine"},
		{"stale", 100, floor(.01, "a", 31*24*time.Hour), Inconclusive, .05, "stale"},
		{"without a machine", 110, floor(.9, "", 0), Regressed, .05, ""},
		{"of the future", 110, floor(.9, "a", -time.Hour), Regressed, .05, ""},
		{"nearly stale", 100, floor(.01, "a", 29*24*time.Hour), Pass, .05, ""},
	} {
		r := compared(t, old, at(c.new), c.o)
		row := r.Rows[0]
		if r.Verdict != c.want || math.Abs(float64(row.Theta)-c.theta) > 1e-9 || !strings.Contains(row.Reason, c.reason) {
			t.Errorf("%s: %s, θ %v, %q", c.name, r.Verdict, row.Theta, row.Reason)
		}
	}
	if r := compared(t, old, at(100), Options{}); !strings.Contains(strings.Join(r.Notes, "\n"), "no noise floor is recorded") {
		t.Errorf("%v", r.Notes)
	}
	for says, o := range map[string]Options{"of which machine": floor(.9, "", 0), "is in the future": floor(.9, "a", -time.Hour)} {
		if r := compared(t, old, at(100), o); !strings.Contains(strings.Join(r.Notes, "\n"), "set aside, as it") || !strings.Contains(strings.Join(r.Notes, "\n"), says) {
			t.Errorf("%s: %v", says, r.Notes)
		}
	}
	other := floor(.04, "a", 0)
	other.Floor.Rows[0].Pkg = "elsewhere"
	if r := compared(t, old, at(100), other); float64(r.Rows[0].Theta) != .05 || !strings.Contains(strings.Join(r.Notes, "\n"), "has nothing on 1 of the gated rows") {
		t.Errorf("a floor of another package: θ %v, %v", r.Rows[0].Theta, r.Notes)
	}
	// One that is stale and of another machine, too, says nothing about other
	// benchmarks than its own.
	other = floor(.04, "b", 31*24*time.Hour)
	other.Floor.Rows[0].Benchmark = "Y"
	if r := compared(t, old, at(100), other); r.Verdict != Pass || !strings.Contains(strings.Join(r.Notes, "\n"), "has nothing on 1 of the gated rows") {
		t.Errorf("a stale floor of another benchmark: %s, %v", r.Verdict, r.Notes)
	}
}

func TestCalibrate(t *testing.T) {
	// Three comparisons of 10 rounds: no change, 2% one way, 3% the other.
	old, new := interleavedFiles(30, func(n, side int) float64 {
		return 100 * []float64{1, 1.02, 1 / 1.03}[n/10*side]
	})
	f, err := Calibrate(Input{"a", []byte(old)}, Input{"b", []byte(new)}, 10)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Rows) != 1 || math.Abs(f.Rows[0].Floor-.03) > 1e-6 || f.Comparisons != 3 {
		t.Errorf("%+v", f)
	}
	plain := []byte(sample(1, 10, "X", 100., "ns/op"))
	if _, err := Calibrate(Input{"a", plain}, Input{"b", plain}, 10); err == nil {
		t.Error("files without rounds were taken")
	}
	if _, err := Calibrate(Input{"a", []byte(old)}, Input{"b", []byte(new)}, 31); err == nil {
		t.Error("no comparison is whole, and there is a floor")
	}
}

func TestConfirmation(t *testing.T) {
	at := func(rounds int, factor, noise float64) *Report {
		rnd := rand.New(rand.NewPCG(9, uint64(rounds)))
		old, new := interleavedFiles(rounds, func(_, side int) float64 {
			return 100 * (1 + (factor-1)*float64(side)) * math.Exp(noise*rnd.NormFloat64())
		})
		return compared(t, old, new, Options{})
	}
	for _, c := range []struct {
		name   string
		fresh  *Report
		want   Verdict
		reason string
	}{
		{"again", at(20, 1.10, .01), Regressed, ""},
		{"weaker, and still beyond θ", at(20, 1.065, .03), Regressed, ""},
		{"gone", at(20, 1.00, .01), Inconclusive, "fresh rounds did not confirm"},
		{"less than θ", at(20, 1.03, .01), Inconclusive, "they say +"},
		{"too few to show anything", at(4, 1.10, .01), Inconclusive, "no change"},
	} {
		r := at(20, 1.10, .01)
		if r.Verdict != Regressed {
			t.Fatalf("planted: %s", r.Verdict)
		}
		r.Confirm(c.fresh, 20)
		var b bytes.Buffer
		_ = r.Text(&b)
		if r.Verdict != c.want || !strings.Contains(r.Rows[0].Reason, c.reason) || !strings.Contains(b.String(), "confirmation: ") {
			t.Errorf("%s: %s, %q", c.name, r.Verdict, r.Rows[0].Reason)
		}
	}
	r := at(20, 1.10, .01)
	r.Confirm(compared(t, sample(1, 10, "Y", 1., "ns/op"), sample(1, 10, "Y", 1., "ns/op"), Options{}), 20)
	if r.Verdict != Inconclusive || !strings.Contains(r.Rows[0].Reason, "missing") {
		t.Errorf("missing in the fresh rounds: %s, %q", r.Verdict, r.Rows[0].Reason)
	}
}

func TestHolm(t *testing.T) {
	got := holm([]float64{.01, .04, .03, .005})
	for i, want := range []float64{.03, .06, .06, .02} {
		if math.Abs(got[i]-want) > 1e-12 {
			t.Errorf("adjusted %v", got)
		}
	}
}

func TestMarkdownEscapesNames(t *testing.T) {
	x := sample(1, 10, "X/a|b=<img>@all`_*", 100., "ns/op")
	var b bytes.Buffer
	if err := compared(t, x, x, Options{}).Markdown(&b); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), `X/a\|b=&lt;img&gt;\@all\`+"`"+`\_\*`) {
		t.Errorf("%s", b.String())
	}
}
