package main

import (
	"fmt"
	"io"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/unknot/unknot/engine/hist"
)

// printHDR prints the percentiles of s, which has nanoseconds, in HdrHistogram's
// text format, in µs, after a line that says what they are of.
func printHDR(w io.Writer, what string, s *hist.Snapshot) error {
	h := hdrhistogram.New(1, 1<<hist.MaxBits, 3)
	for i, n := range s.Counts {
		if n > 0 {
			lo, hi := hist.Bounds(i)
			_ = h.RecordValues(min((lo+hi)/2, max(1, s.Max)), int64(n)) // never out of range
		}
	}
	if _, err := fmt.Fprintf(w, "#[%s, in µs]\n", what); err != nil {
		return err
	}
	_, err := h.PercentilesPrint(w, 5, 1000)
	return err
}
