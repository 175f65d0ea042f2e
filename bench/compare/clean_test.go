package compare

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf16"
)

// utf16Text is what a Windows shell's > makes of text.
func utf16Text(s string, little, mark bool) string {
	units := utf16.Encode([]rune(s))
	if mark {
		units = append([]uint16{0xfeff}, units...)
	}
	var b []byte
	for _, u := range units {
		if little {
			b = append(b, byte(u), byte(u>>8))
		} else {
			b = append(b, byte(u>>8), byte(u))
		}
	}
	return string(b)
}

// events is what go test -json makes of text: each result in two events.
func events(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		at := strings.IndexByte(line, ' ') + 1
		for _, part := range []string{line[:at], line[at:]} {
			e, _ := json.Marshal(map[string]string{"Action": "output", "Package": "p", "Output": part})
			fmt.Fprintf(&b, "%s\n", e)
		}
	}
	return b.String()
}

// TestWhatCanBeReadIsRead: each of these holds the same results as plain text, and
// must compare with it as such, on either side, in every row.
func TestWhatCanBeReadIsRead(t *testing.T) {
	head := "goos: linux\ngoarch: amd64\npkg: p\n"
	good := head + sample(1, 10, "X-2", 100., "ns/op") + sample(2, 10, "Y-2", 100., "ns/op")
	lines := strings.SplitAfter(good, "\n")
	within := func(s string) string { return strings.Join(lines[:7], "") + s + strings.Join(lines[7:], "") }
	pieces := strings.Replace(good, "BenchmarkX-2 100 ", "BenchmarkX-2   \t2026/11/29 20:00:00 listening\n     100\t ", 1)
	onOneLine := strings.Replace(good, "BenchmarkX-2 100 ", "BenchmarkX-2   \tlistening     100\t ", 1)
	for name, c := range map[string]struct{ text, note string }{
		"a byte order mark":         {"\xef\xbb\xbf" + good, ""},
		"UTF-16":                    {utf16Text(good, true, true), ""},
		"UTF-16, the other way":     {utf16Text(good, false, true), ""},
		"UTF-16 without a mark":     {utf16Text(good, true, false), ""},
		"the same, the other way":   {utf16Text(good, false, false), ""},
		"ends of lines as DOS has":  {strings.ReplaceAll(good, "\n", "\r\n"), ""},
		"events":                    {events(good), ""},
		"events among other lines":  {events(good) + "# p\nsome warning\n", ""},
		"coverage":                  {within("coverage: 41.0% of statements\n"), ""},
		"a log":                     {within("2026/11/29 20:00:00 listening\nhello\n\tat x.go:3\n"), ""},
		"a log that looks like one": {within("warning: slow\n"), ".txt:8: the key warning differs and is ignored"},
		"several such":              {within("warning: slow\nerror: none\n"), ".txt:9: the key error differs and is ignored"},
		"a long line":               {within(strings.Repeat("x", 1<<17) + "\n"), ""},
		"a long line of a key":      {within("key: " + strings.Repeat("x", 1<<17) + "\n"), ""},
		"sentences":                 {within("Benchmarking three things\nBenchmark results follow\nBenchmarkX: starting\n"), ""},
		"FAIL in a word":            {within("FAILOVER to b\n"), ""},
		"a result in two pieces":    {pieces, ""},
		"and on one line":           {onOneLine, ""},
		"no headers":                {good[len(head):], ".txt has no pkg lines"},
	} {
		for side, in := range [][2]string{{good, c.text}, {c.text, good}} {
			r := compared(t, in[0], in[1], Options{})
			notes := strings.Join(r.Notes, "\n")
			if r.Verdict != Pass || len(r.Rows) != 2 || r.Rows[0].Old.N != 10 || r.Rows[0].New.N != 10 || !strings.Contains(notes, c.note) {
				t.Errorf("%s, side %d: %s, %d rows, %q", name, side, r.Verdict, len(r.Rows), notes)
			}
		}
	}
	// Events of packages that ran at once are mixed.
	a, b := strings.SplitAfter(events("pkg: a\n"+sample(1, 10, "X", 1., "ns/op")), "\n"), strings.SplitAfter(strings.ReplaceAll(events("pkg: b\n"+sample(2, 10, "X", 9., "ns/op")), `"p"`, `"q"`), "\n")
	mixed := ""
	for i := range a {
		mixed += a[i] + b[i]
	}
	if r := compared(t, mixed, mixed, Options{}); r.Verdict != Pass || len(r.Rows) != 2 || r.Rows[0].Old.N != 10 {
		t.Errorf("mixed: %s, %d rows", r.Verdict, len(r.Rows))
	}
}

// TestWhatIsMissingSaysWhy: and by which flag two that look like one can be that.
func TestWhatIsMissingSaysWhy(t *testing.T) {
	x := sample(1, 10, "X-2", 100., "ns/op")
	for name, c := range map[string]struct{ old, new, says string }{
		"another module":  {"pkg: ex/a\n" + x, "pkg: ex/v2/a\n" + x, `missing in new.txt, which has it with pkg "ex/v2/a" and not "ex/a": if both are one, --ignore pkg`},
		"a key":           {"path: a\n" + x + "path: b\n" + x, "path: a\n" + x + "path: c\n" + x, `which has it with path "c" and not "b": if both are one, --ignore path`},
		"two packages":    {"pkg: a\n" + x + "pkg: b\n" + x, x + x, "--ignore pkg"},
		"GOMAXPROCS":      {x, strings.ReplaceAll(x, "X-2", "X-4"), "which has X-4: was it run with another GOMAXPROCS?"},
		"nothing like it": {x, strings.ReplaceAll(x, "X-2", "Y-2"), "missing in new.txt"},
	} {
		r := compared(t, c.old, c.new, Options{})
		said := strings.Join(r.Notes, "\n")
		for _, row := range r.Rows {
			said += "\n" + row.Reason
		}
		if r.Verdict != Inconclusive || !strings.Contains(said, c.says) {
			t.Errorf("%s: %s\n%s", name, r.Verdict, said)
		}
	}
	r := compared(t, "pkg: ex/a\n"+x, "pkg: ex/v2/a\n"+x, Options{Ignore: []string{"pkg"}})
	if r.Verdict != Pass {
		t.Errorf("ignored: %s", r.Verdict)
	}
}

// TestNewBenchmarksAreANote where Options say so, and what is gone never is.
func TestNewBenchmarksAreANote(t *testing.T) {
	x, y := sample(1, 10, "X", 100., "ns/op"), sample(1, 10, "Y", 100., "ns/op")
	for name, c := range map[string]struct {
		old, new string
		want     Verdict
		exit     int
	}{
		"one more":          {x, x + y, Pass, 0},
		"one more, slower":  {x, strings.ReplaceAll(x, " 100 ", " 100 1") + y, Regressed, 1},
		"the first":         {"PASS\n", y, New, 0},
		"renamed":           {x, y, Inconclusive, 3},
		"one less":          {x + y, x, Inconclusive, 3},
		"one more unit":     {x, strings.ReplaceAll(x, "ns/op", "ns/op 3 B/op"), Pass, 0},
		"and another's out": {strings.ReplaceAll(x, "ns/op", "ns/op 3 widgets"), strings.ReplaceAll(x, "ns/op", "ns/op 3 B/op"), Inconclusive, 3},
	} {
		r := compared(t, c.old, c.new, Options{AllowNew: true})
		if r.Verdict != c.want || r.Exit != c.exit {
			t.Errorf("%s: %s, exit %d", name, r.Verdict, r.Exit)
		}
		if r := compared2(c.old, c.new, Options{}); r != nil && r.Exit == 0 {
			t.Errorf("%s: passes where new ones are not allowed", name)
		}
	}
	if _, err := Compare(Input{"old.txt", []byte(x)}, Input{"new.txt", []byte("PASS\n")}, Options{AllowNew: true}); err == nil {
		t.Error("no results in new are no error")
	}
}

func compared2(old, new string, o Options) *Report {
	r, _ := Compare(Input{"old.txt", []byte(old)}, Input{"new.txt", []byte(new)}, o)
	return r
}

// TestCountsThatAlternate: 9 or 10 allocations are 9.5, and more rounds decide unless
// the change is about θ itself, which the reason then says.
func TestCountsThatAlternate(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 0))
	run := func(rounds int, value func(n, side int) float64) *Row {
		old, new := interleavedFiles(rounds, value)
		unit := strings.NewReplacer("ns/op", "allocs/op")
		return compared(t, unit.Replace(old), unit.Replace(new), Options{Gate: []string{"allocs/op"}}).Rows[0]
	}
	nine := func(int, int) float64 { return 9 + float64(rnd.IntN(2)) }
	if r := run(40, nine); r.Verdict != Pass || !(r.Lo < r.Change && r.Change < r.Hi && r.Hi < .05) {
		t.Errorf("the same: %s %v [%v, %v]: %s", r.Verdict, r.Change, r.Lo, r.Hi, r.Reason)
	}
	if r := run(40, func(_, side int) float64 { return nine(0, 0) + 2*float64(side) }); r.Verdict != Regressed || !(r.Lo > .05) {
		t.Errorf("two more: %s %v [%v, %v]: %s", r.Verdict, r.Change, r.Lo, r.Hi, r.Reason)
	}
	if r := run(6, nine); r.Verdict != Inconclusive || !strings.Contains(r.Reason, "rounds should do") {
		t.Errorf("six rounds: %s: %s", r.Verdict, r.Reason)
	}
	r := run(100, func(n, side int) float64 {
		if side == 1 {
			return 10
		}
		return 9 + float64(n%2)
	})
	if r.Verdict != Inconclusive || strings.Contains(r.Reason, "rounds should do") || !strings.Contains(r.Reason, "is about 5.0% itself") {
		t.Errorf("always 10: %s %v: %s", r.Verdict, r.Change, r.Reason)
	}
	// Where noise alone hides it, that is said.
	old, new := interleavedFiles(30, func(n, side int) float64 { return 100 * math.Exp(float64(side*(n%2*2-1)*(n/2+9))/9) })
	if r := compared(t, old, new, Options{}).Rows[0]; r.Verdict != Inconclusive || !strings.Contains(r.Reason, "more rounds would hardly do: make each run longer") {
		t.Errorf("noise: %s: %s", r.Verdict, r.Reason)
	}
}
