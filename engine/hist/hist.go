// Package hist is the log-linear histogram that every stage of unknot uses:
// the engine's own stages, the storm's round trips, and (with the same bucket
// numbers, computed in BPF) the tracepoints of bench/trace. Because all of
// them share one bucket scheme, their counts can be merged, subtracted and
// compared bucket by bucket.
//
// Values are durations in nanoseconds. Below 2^SubBits each value has a bucket
// of its own; above, every power of two is split into 2^SubBits buckets, so a
// bucket is at most 1/32 = 3.1% wide. Values of 2^MaxBits ns (36 minutes) and
// above fall into the last bucket. The scheme is that of HdrHistogram
// (Gil Tene) with a precision of 5 bits.
//
// Traps: a Quantile is interpolated inside its bucket and is therefore exact
// only to the bucket's width; two quantiles that differ by less than 3% may be
// the same measurement.
package hist

import (
	"math"
	"math/bits"
	"sync/atomic"
)

const (
	// SubBits is the base-2 logarithm of the number of buckets in each power of two.
	SubBits = 5
	// MaxBits bounds the values told apart: larger ones share the last bucket.
	MaxBits = 41
	// Buckets is the number of buckets of every histogram.
	Buckets = (MaxBits - SubBits + 1) << SubBits

	subCount = 1 << SubBits
)

// Index returns the bucket of v (ns). Negative values count as 0.
//
//go:nosplit
func Index(v int64) int {
	if v < subCount {
		return int(max(v, 0))
	}
	e := bits.Len64(uint64(v)) - 1
	if e >= MaxBits {
		return Buckets - 1
	}
	return (e-SubBits+1)<<SubBits | int(v>>(e-SubBits))&(subCount-1)
}

// Bounds returns the lowest value (ns) that falls into bucket i and the lowest
// that falls into the next one.
func Bounds(i int) (lo, hi int64) {
	if i < subCount {
		return int64(i), int64(i) + 1
	}
	e := i>>SubBits + SubBits - 1
	lo = int64(subCount|i&(subCount-1)) << (e - SubBits)
	return lo, lo + 1<<(e-SubBits)
}

// A Hist is a histogram that any number of goroutines may record into at once.
// The zero value is empty and ready to use. It never allocates and takes no lock.
type Hist struct {
	sum    atomic.Int64
	max    atomic.Int64
	counts [Buckets]atomic.Uint64
}

// Record adds one value in ns; what is negative counts as 0. It is no point of preemption (nosplit): see
// bench/storm, whose threads must not meet the Go scheduler between two calls.
//
//go:nosplit
func (h *Hist) Record(v int64) {
	v = max(v, 0)
	h.counts[Index(v)].Add(1)
	h.sum.Add(v)
	for {
		m := h.max.Load()
		if v <= m || h.max.CompareAndSwap(m, v) {
			return
		}
	}
}

// AddTo adds the counts of h, as they are now, to s. While others record, the
// copy may miss values recorded during the call.
func (h *Hist) AddTo(s *Snapshot) {
	for i := range h.counts {
		if n := h.counts[i].Load(); n != 0 {
			s.Counts[i] += n
			s.Count += n
		}
	}
	s.Sum += h.sum.Load()
	s.Max = max(s.Max, h.max.Load())
}

// Snapshot returns a copy of h.
func (h *Hist) Snapshot() *Snapshot {
	s := new(Snapshot)
	h.AddTo(s)
	return s
}

// A Snapshot is a histogram at rest. Sum and Max are in ns; Sum and Max are
// exact where the source recorded them, 0 where it did not (then Mean and
// Quantile(1) are read off the buckets).
type Snapshot struct {
	Count  uint64
	Sum    int64
	Max    int64
	Counts [Buckets]uint64
}

// Add adds n values of v ns each.
func (s *Snapshot) Add(v int64, n uint64) {
	s.Counts[Index(v)] += n
	s.Count += n
	s.Sum += v * int64(n)
	s.Max = max(s.Max, v)
}

// Merge adds o to s.
func (s *Snapshot) Merge(o *Snapshot) {
	for i, n := range o.Counts {
		s.Counts[i] += n
	}
	s.Count += o.Count
	s.Sum += o.Sum
	s.Max = max(s.Max, o.Max)
}

// Sub takes away an earlier snapshot of the same histogram. Max stays that of
// the whole time, since a maximum cannot be taken back.
func (s *Snapshot) Sub(earlier *Snapshot) {
	for i, n := range earlier.Counts {
		s.Counts[i] -= n
	}
	s.Count -= earlier.Count
	s.Sum -= earlier.Sum
}

// Quantile returns the value (ns) below which the fraction q of all values
// lies, interpolated within its bucket and never above Max; NaN when empty.
func (s *Snapshot) Quantile(q float64) float64 {
	if s.Count == 0 {
		return math.NaN()
	}
	if q >= 1 && s.Max > 0 {
		return float64(s.Max)
	}
	rank := q * float64(s.Count)
	var below uint64
	v := math.NaN()
	for i, n := range s.Counts {
		if n == 0 {
			continue
		}
		lo, hi := Bounds(i)
		v = float64(hi)
		if float64(below+n) >= rank {
			v = float64(lo) + float64(hi-lo)*max(0, rank-float64(below))/float64(n)
			break
		}
		below += n
	}
	if s.Max > 0 {
		v = min(v, float64(s.Max))
	}
	return v
}

// Mean returns the mean in ns; NaN when empty.
func (s *Snapshot) Mean() float64 {
	if s.Count == 0 {
		return math.NaN()
	}
	if s.Sum != 0 {
		return float64(s.Sum) / float64(s.Count)
	}
	var t float64
	for i, n := range s.Counts {
		lo, hi := Bounds(i)
		t += float64(n) * float64(lo+hi-1) / 2
	}
	return t / float64(s.Count)
}

// Log2 returns the counts by powers of two: element i counts the values in
// [2^i, 2^(i+1)), element 0 those below 2.
func (s *Snapshot) Log2() []uint64 {
	c := make([]uint64, MaxBits)
	for i, n := range s.Counts {
		if n > 0 {
			lo, _ := Bounds(i)
			c[max(0, bits.Len64(uint64(lo))-1)] += n
		}
	}
	return c
}
