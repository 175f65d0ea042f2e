package compare

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

// FuzzCompare: whatever the files are, there is no panic, the report can be
// written, and exit code 0 means that a gated row was compared and found well,
// and none otherwise.
func FuzzCompare(f *testing.F) {
	x := sample(1, 10, "X", 100., "ns/op", 3., "=B/op")
	old, new := interleavedFiles(6, func(n, side int) float64 { return float64(100 + n + side) })
	for _, in := range [][2]string{
		{x, x}, {old, new}, {x, ""}, {x, x[:50]}, {"pkg: a\n" + x, "pkg: b\nmachine: c\n" + x},
		{"Unit X better=lower\nBenchmarkX 1 0 X\n", "BenchmarkX 1 1 X\n"},
		{"Unit B/op assume=exact\n" + x, x}, {"# interleaved start session=a\n# interleaved round=1\n# interleaved end\n" + x, x},
		{"a\"b: c\n" + x, "a\"b: d\n" + x}, {"BenchmarkX 1 -1 ns/op\n", "BenchmarkX 1 1e308 ns/op\n"},
		{"BenchmarkX 1 1e-320 ns/op\nBenchmarkX 1 1e-320 ns/op\n", "BenchmarkX 1 1e300 ns/op\nBenchmarkX 1 1e300 ns/op\n"},
	} {
		f.Add([]byte(in[0]), []byte(in[1]))
	}
	f.Fuzz(func(t *testing.T, old, new []byte) {
		if len(old)+len(new) > 1<<16 {
			t.Skip("long")
		}
		r, err := Compare(Input{"old.txt", old}, Input{"new.txt", new}, Options{})
		if err != nil {
			return
		}
		var b, text, md bytes.Buffer
		if err := r.JSON(&b); err != nil || !json.Valid(b.Bytes()) {
			t.Fatalf("json: %v", err)
		}
		_, _ = r.Text(&text), r.Markdown(&md)
		well, bad := 0, 0
		for _, row := range r.Rows {
			switch {
			case !row.Gated:
			case row.Verdict == Pass || row.Verdict == Improved:
				well++
				if row.Old == nil || row.New == nil {
					t.Fatalf("%s is %s and missing on a side", row.Benchmark, row.Verdict)
				}
			case row.Verdict == Regressed || row.Verdict == Inconclusive:
				bad++
			default:
				t.Fatalf("verdict %q", row.Verdict)
			}
		}
		if (r.Exit == ExitPass) != (well > 0 && bad == 0) {
			t.Fatalf("exit %d with %d well and %d not", r.Exit, well, bad)
		}
	})
}

// FuzzFloor: whatever a noise floor's file holds, it is none, or is written and read as the same, and results can be compared by it.
func FuzzFloor(f *testing.F) {
	good := Floor{Format: floorFormat, Machine: "m", Date: time.Unix(1.7e9, 0).UTC(), Rows: []FloorRow{{Benchmark: "X", Unit: "ns/op", Floor: .012}, {Pkg: "p", Benchmark: "X", Unit: "B/op"}}}
	b, err := good.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(bytes.Replace(b, []byte("0.012"), []byte("1e308"), 1))
	f.Add([]byte(`{"format": 1, "date": "0001-01-01T00:00:00Z", "rows": [{"floor": -1}]}`))
	old, new := interleavedFiles(6, func(n, side int) float64 { return float64(100 + n + side) })
	f.Fuzz(func(t *testing.T, b []byte) {
		fl, err := decodeFloor(b)
		if err != nil {
			return
		}
		again, err := fl.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if same, err := decodeFloor(again); err != nil || !reflect.DeepEqual(fl.Rows, same.Rows) || !fl.Date.Equal(same.Date) {
			t.Fatalf("%+v is %+v, %v", fl, same, err)
		}
		r, err := Compare(Input{"old.txt", []byte(old)}, Input{"new.txt", []byte(new)}, Options{Floor: fl})
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := r.JSON(&out); err != nil || !json.Valid(out.Bytes()) {
			t.Fatalf("json: %v", err)
		}
	})
}
