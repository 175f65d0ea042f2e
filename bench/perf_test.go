package bench

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/unknot/unknot/engine/notify"
)

// TestPerfAnswersEachCall: Perf itself holds what it answered against what its
// target counts.
func TestPerfAnswersEachCall(t *testing.T) {
	for _, sync := range []bool{false, true} {
		start := time.Now()
		took, err := Perf(t.Context(), 2000, sync)
		if sync && errors.Is(err, errors.ErrUnsupported) {
			t.Skip(err)
		}
		if err != nil || took <= 0 || took > time.Since(start) {
			t.Errorf("sync %v: %v, %v", sync, took, err)
		}
	}
}

func TestPerfCanBeInterrupted(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if took, err := Perf(ctx, math.MaxInt64, false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, %v", took, err)
	}
}

// BenchmarkPerf is `unknot bench perf --sync-mode`: one operation is one call.
func BenchmarkPerf(b *testing.B) {
	if err := notify.FeatureSyncWakeUp.Probe(); err != nil {
		b.Skip(err)
	}
	took, err := Perf(b.Context(), uint64(b.N), true)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(took.Nanoseconds())/float64(b.N), "ns/op")
}
