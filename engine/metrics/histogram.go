package metrics

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/unknot/unknot/engine/hist"
)

const (
	// widest is how much a fine bucket's bounds may differ, and medium those of the buckets beside them up to mediumTo ns.
	widest, medium = 1.05, 1.2
	mediumTo       = 1 << 31
	// The coarse bounds are powers of two from lowest to highest ns: 1 µs to 34 s.
	lowest, highest = 1 << 10, 1 << 35
	// schema is of the native buckets: 2^(1/16), 4.4% each.
	schema = 4
)

// bounds are the buckets of package hist whose ends are classic bounds: powers of two, and between from and to as
// many as it takes for none to be wider than widest, beside that none wider than medium. With 0, 0 they are powers of two alone.
func bounds(from, to time.Duration) (ends []int) {
	last := int64(lowest) / 2
	for i := hist.Index(lowest) - 1; i < hist.Buckets-1; i++ {
		_, end := hist.Bounds(i)
		if end > highest {
			break
		}
		_, next := hist.Bounds(i + 1)
		width := medium
		if end > int64(from) && last < int64(to) {
			width = widest
		}
		narrow := to > 0 && end <= max(mediumTo, int64(to)) && float64(next) > width*float64(last)
		if end&(end-1) == 0 || narrow {
			ends = append(ends, i)
			last = end
		}
	}
	return ends
}

// newHistogram is h as a metric with classic and native buckets.
func newHistogram(d *prometheus.Desc, h *hist.Snapshot, ends []int, labels ...string) prometheus.Metric {
	var m histogram
	// The classic form, for its labels, which are ordered and checked there.
	classic := make(map[float64]uint64, len(ends))
	var below uint64
	next := 0
	for _, i := range ends {
		for ; next <= i; next++ {
			below += h.Counts[next]
		}
		_, end := hist.Bounds(i)
		classic[seconds(end)] = below
	}
	m.Metric = prometheus.MustNewConstHistogram(d, h.Count, float64(h.Sum)/1e9, classic, labels...)
	m.zero, m.spans, m.deltas = native(h)
	return m
}

func seconds(ns int64) float64 { return float64(ns) / 1e9 }

type histogram struct {
	prometheus.Metric
	zero   uint64
	spans  []*dto.BucketSpan
	deltas []int64
}

// Write implements prometheus.Metric.
func (m histogram) Write(to *dto.Metric) error {
	if err := m.Metric.Write(to); err != nil {
		return err
	}
	h := to.Histogram
	h.Schema, h.ZeroThreshold, h.ZeroCount = ptr(int32(schema)), ptr(prometheus.DefNativeHistogramZeroThreshold), ptr(m.zero)
	h.PositiveSpan, h.PositiveDelta = m.spans, m.deltas
	if len(m.spans) == 0 { // so that one without values is told from a classic one
		h.PositiveSpan = []*dto.BucketSpan{{Offset: ptr(int32(0)), Length: ptr(uint32(0))}}
	}
	return nil
}

func ptr[T any](v T) *T { return &v }

// native are the exponential buckets: each of hist's counts where its middle is, so that a value is at most one
// bucket from its own.
func native(h *hist.Snapshot) (zero uint64, spans []*dto.BucketSpan, deltas []int64) {
	zero = h.Counts[0]
	last, had := math.MinInt, int64(0) // the bucket before, and its count
	for i := 1; i < hist.Buckets; i++ {
		if h.Counts[i] == 0 {
			continue
		}
		lo, end := hist.Bounds(i)
		// Bucket n holds what is above 2^((n-1)/16) and no more than 2^(n/16).
		n := int(math.Ceil(math.Log2((float64(lo)+float64(end-1))/2/1e9) * (1 << schema)))
		switch {
		case n == last:
			deltas[len(deltas)-1] += int64(h.Counts[i])
			had += int64(h.Counts[i])
			continue
		case n == last+1:
			*spans[len(spans)-1].Length++
		default:
			offset := n
			if len(spans) > 0 {
				offset = n - last - 1
			}
			spans = append(spans, &dto.BucketSpan{Offset: ptr(int32(offset)), Length: ptr(uint32(1))})
		}
		deltas = append(deltas, int64(h.Counts[i])-had)
		last, had = n, int64(h.Counts[i])
	}
	return zero, spans, deltas
}
