package compare

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"golang.org/x/perf/benchfmt"
)

// TestTrends: steps and a slow drift are found about where they are, and noise alone
// has as few changes as its level says.
func TestTrends(t *testing.T) {
	day := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	history := func(seed uint64, n int, level func(i int) float64) string {
		rnd := rand.New(rand.NewPCG(seed, 0))
		var b bytes.Buffer
		for i := range n {
			v := level(i) * math.Exp(.02*rnd.NormFloat64())
			x := strings.Repeat(fmt.Sprintf("BenchmarkX-2 100 %v ns/op\n", v), 10)
			r := compared(t, "machine: m\n"+x, fmt.Sprintf("machine: m\ncommit: c%d\ngo: go1.26\n", i)+x, Options{})
			if err := r.History(&b, day.AddDate(0, 0, i)); err != nil {
				t.Fatal(err)
			}
		}
		return b.String()
	}
	trends := func(text string) []*Trend {
		list, err := Trends(Input{"history.txt", []byte(text)})
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	steps := history(1, 60, func(i int) float64 { return 100 * []float64{1, 1.1, 1.02}[i/20] })
	list := trends(steps)
	if len(list) != 1 || len(list[0].Changes) != 2 || list[0].Values != 60 || list[0].Machine != "m" || list[0].Unit != "sec/op" {
		t.Fatalf("steps: %+v", list)
	}
	for i, want := range []struct {
		at     int
		change float64
	}{{20, .1}, {40, 1.02/1.1 - 1}} {
		c := list[0].Changes[i]
		var at int
		_, _ = fmt.Sscanf(c.Commit, "c%d", &at)
		if at < want.at-1 || at > want.at+1 || math.Abs(float64(c.Change)-want.change) > .02 || c.Date != day.AddDate(0, 0, at).Format(time.RFC3339) || c.P > changeLevel {
			t.Errorf("step %d: %+v", i, c)
		}
	}
	// One percent with each comparison, which no single one of them could show.
	drift := trends(history(2, 40, func(i int) float64 { return 100 * math.Pow(1.01, float64(i)) }))[0]
	if len(drift.Changes) == 0 || float64(drift.Last/drift.First) < 1.15 {
		t.Errorf("drift: %+v", drift)
	}
	found := 0
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 9))
		v := make([]float64, 40)
		for i := range v {
			v[i] = rnd.NormFloat64()
		}
		found += len(changePoints(v).at)
	}
	if found > 5 { // 50 tests at 2% and what follows from a false one
		t.Errorf("%d changes in 50 trends of noise", found)
	}
	if c := changePoints([]float64{1, 1, 1, 2, 2, 2}); len(c.at) != 0 {
		t.Errorf("six values: %+v", c)
	}
	// Whatever else reads the format reads a history.
	rd, n := benchfmt.NewReader(strings.NewReader(steps), "x"), 0
	for rd.Scan() {
		switch rec := rd.Result().(type) {
		case *benchfmt.SyntaxError:
			t.Fatal(rec)
		case *benchfmt.Result:
			n++
			if v, ok := rec.Value("new/old"); !ok || v != 1 || rec.GetConfig("commit") != fmt.Sprint("c", n-1) {
				t.Errorf("%s: %v %v", rec.GetConfig("commit"), v, ok)
			}
		}
	}
	if n != 60 {
		t.Errorf("%d results", n)
	}
	if _, err := Trends(Input{"history.txt", []byte("PASS\n")}); err == nil {
		t.Error("no comparisons are no error")
	}
}

func TestPlot(t *testing.T) {
	old, new := interleavedFiles(12, func(n, side int) float64 { return 100 + float64(n%3) + 20*float64(side) })
	name := strings.NewReplacer("BenchmarkX", `BenchmarkX/a<b>&"c"`)
	r := compared(t, name.Replace("commit: a\n"+old), name.Replace("commit: b\n"+new), Options{})
	var b bytes.Buffer
	if some, err := r.Plot(&b); err != nil || !some {
		t.Fatal(some, err)
	}
	d := xml.NewDecoder(bytes.NewReader(b.Bytes()))
	circles := 0
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, b.String())
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "circle" {
			circles++
		}
	}
	if text := b.String(); circles != 12 || !strings.Contains(text, "regressed, +19") || !strings.Contains(text, "old is a, new b") {
		t.Errorf("%d circles\n%s", circles, text)
	}
	plain := sample(1, 10, "X", 100., "ns/op")
	if some, err := compared(t, plain, plain, Options{}).Plot(&b); some || err != nil {
		t.Error("files without rounds have pairs", some, err)
	}
}
