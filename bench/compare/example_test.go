package compare_test

import (
	"fmt"
	"log"
	"math/rand/v2"
	"strings"

	"github.com/unknot/unknot/bench/compare"
)

// results are six runs of one benchmark around a time, in Go benchmark format.
func results(ns float64, seed uint64) []byte {
	var b strings.Builder
	r := rand.New(rand.NewPCG(seed, 0))
	for range 10 {
		fmt.Fprintf(&b, "BenchmarkParse-2 100 %.1f ns/op\n", ns*(1+.01*r.Float64()))
	}
	return []byte(b.String())
}

// Did it get slower? What is asked of are any Go benchmarks.
func ExampleCompare() {
	old := compare.Input{Label: "old.txt", Data: results(1000, 1)}
	slower := compare.Input{Label: "new.txt", Data: results(1200, 2)}
	report, err := compare.Compare(old, slower, compare.Options{Alpha: .05, Threshold: .05})
	if err != nil {
		log.Fatal(err) // there is no verdict at all
	}
	fmt.Println(report.Verdict, "exit status", report.Exit)
	for _, row := range report.Regressed() {
		fmt.Println(row.Benchmark, row.Unit)
	}
	// Output:
	// regressed exit status 1
	// Parse-2 sec/op
}

// A pattern for go test -bench that runs what results name.
func ExampleSelect() {
	fmt.Println(compare.Select([]string{"Parse/size=10-2", "Parse/size=20-2"}))
	// Output: ^(BenchmarkParse)$/^(size=10(-2)?|size=20(-2)?)$
}
