package hist

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestIndexAndBoundsAgree(t *testing.T) {
	for i := range Buckets {
		lo, hi := Bounds(i)
		if Index(lo) != i || Index(hi-1) != i {
			t.Fatalf("bucket %d is [%d,%d) but Index gives %d and %d", i, lo, hi, Index(lo), Index(hi-1))
		}
		if i > 0 {
			if _, end := Bounds(i - 1); end != lo {
				t.Fatalf("bucket %d starts at %d, the one before ends at %d", i, lo, end)
			}
		}
		if lo >= subCount && float64(hi-lo)/float64(lo) > 1.0/subCount {
			t.Fatalf("bucket %d is wider than 1/%d of its value", i, subCount)
		}
	}
	for _, v := range []int64{1 << MaxBits, math.MaxInt64} {
		if Index(v) != Buckets-1 {
			t.Errorf("Index(%d) = %d, want the last bucket", v, Index(v))
		}
	}
	if Index(-5) != 0 {
		t.Errorf("Index(-5) = %d, want 0", Index(-5))
	}
}

func TestQuantileWithinABucketOfTheSortedValues(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var h Hist
	vs := make([]int64, 20000)
	for i := range vs {
		vs[i] = int64(math.Exp(r.Float64() * 20))
		h.Record(vs[i])
	}
	slices.Sort(vs)
	s := h.Snapshot()
	for _, q := range []float64{0.001, 0.1, 0.5, 0.9, 0.99, 0.999} {
		want := vs[min(len(vs)-1, int(q*float64(len(vs))))]
		got := s.Quantile(q)
		if d := Index(int64(got)) - Index(want); d < -1 || d > 1 {
			t.Errorf("Quantile(%v) = %v, sorted values say %d: %d buckets apart", q, got, want, d)
		}
	}
	if s.Quantile(1) != float64(vs[len(vs)-1]) || s.Count != uint64(len(vs)) {
		t.Errorf("Quantile(1) = %v, Count = %d", s.Quantile(1), s.Count)
	}
	var sum int64
	for _, v := range vs {
		sum += v
	}
	if got := s.Mean(); math.Abs(got-float64(sum)/float64(len(vs))) > 1e-6*got {
		t.Errorf("Mean = %v", got)
	}
}

func TestSnapshotMergeSub(t *testing.T) {
	var h Hist
	h.Record(10)
	before := h.Snapshot()
	h.Record(1000)
	after := h.Snapshot()
	after.Sub(before)
	if after.Count != 1 || after.Sum != 1000 {
		t.Fatalf("difference = %d values, sum %d", after.Count, after.Sum)
	}
	after.Merge(before)
	if after.Count != 2 || after.Sum != 1010 || after.Max != 1000 {
		t.Fatalf("merged: %d values, sum %d, max %d", after.Count, after.Sum, after.Max)
	}
	if !math.IsNaN(new(Snapshot).Quantile(0.5)) || !math.IsNaN(new(Snapshot).Mean()) {
		t.Error("an empty snapshot has no quantile and no mean")
	}
}

func TestRecordDoesNotAllocate(t *testing.T) {
	var h Hist
	if n := testing.AllocsPerRun(1000, func() { h.Record(12345) }); n != 0 {
		t.Errorf("%v allocations per Record", n)
	}
}

func BenchmarkRecord(b *testing.B) {
	b.Run("shared", func(b *testing.B) {
		var h Hist
		for i := 0; b.Loop(); i++ {
			h.Record(int64(i))
		}
	})
	b.Run("alone", func(b *testing.B) {
		var h Hist
		for i := 0; b.Loop(); i++ {
			h.RecordAlone(int64(i))
		}
	})
}

func TestRecordAloneIsRecord(t *testing.T) {
	var a, b Hist
	for v := int64(-1); v < 1<<45; v = v*5/4 + 1 {
		a.Record(v)
		b.RecordAlone(v)
	}
	if *a.Snapshot() != *b.Snapshot() {
		t.Errorf("RecordAlone made %+v of what Record makes %+v of", b.Snapshot(), a.Snapshot())
	}
}
