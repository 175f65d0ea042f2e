//go:build ringmodel

package ring

import (
	"flag"
	"testing"
	"time"
)

var size = flag.String("size", "night", "which scenarios: quick, night or large")

// TestModelDirect runs the scenarios in this process: go test -tags ringmodel -run ModelDirect.
func TestModelDirect(t *testing.T) {
	for _, name := range ModelScenarios(*size) {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			res, err := ModelCheck(name, 1e8)
			t.Logf("%d states, %d steps, %d runs, depth %d, %v", res.States, res.Steps, res.Runs, res.Depth, time.Since(start))
			if err != nil {
				t.Error(err)
			}
		})
	}
}
