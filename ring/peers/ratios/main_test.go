package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRatios(t *testing.T) {
	in := filepath.Join(t.TempDir(), "in")
	err := os.WriteFile(in, []byte(`
BenchmarkA/load=1P1C/queue=chan-2  10  100 ns/op  1 dropped/op
BenchmarkA/load=1P1C/queue=ring-2  10  10 ns/op  1 dropped/op
BenchmarkOther-2  10  7 ns/op
BenchmarkA/load=1P1C/queue=chan-2  10  140 ns/op
BenchmarkA/load=1P1C/queue=chan-2  10  120 ns/op
BenchmarkB/queue=ring-2  10  3000 p50-ns
`), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := run(&out, `^(sec/op|p50-sec)$`, []string{in}); err != nil {
		t.Fatal(err)
	}
	want := `sec/op         chan      ring
A/load=1P1C  120.0n 1.00x  10.00n 12.00x

p50-sec  ring
B        3.000µ 1.00x
`
	squeeze := func(s string) string {
		var lines []string
		for line := range strings.Lines(s) {
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
		return strings.Join(lines, "\n")
	}
	if squeeze(out.String()) != squeeze(want) {
		t.Errorf("printed\n%s\nwant\n%s", out.String(), want)
	}
	if err := run(&out, `^none$`, []string{in}); err == nil {
		t.Error("no error for results without the unit")
	}
	if err := run(&out, `(`, []string{in}); err == nil {
		t.Error("no error for a bad expression")
	}
	if err := run(&out, `.`, []string{in + "-missing"}); err == nil {
		t.Error("no error for a missing file")
	}
}
