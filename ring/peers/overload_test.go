//go:build !ringchaos

package peers

import (
	"fmt"
	"testing"
)

// rounds of work take about 1.1 µs on the machine of the figures; Calibration tells.
const rounds = 1000

// BenchmarkOverload: see the package's documentation.
func BenchmarkOverload(b *testing.B) {
	sizes(b, func(b *testing.B, makers []maker) {
		for _, l := range shapes {
			for _, batch := range []int{1, 8, 16, 32} {
				l.capacity, l.push, l.pop, l.rounds = 256, batch, batch, rounds
				for _, m := range makers {
					b.Run(fmt.Sprintf("load=%s/push=%d/queue=%s", l.shape(), batch, m.queue), func(b *testing.B) {
						dropped := run(b, m, l, b.N, true, m.can("sleep"))
						b.ReportMetric(float64(dropped.n)/float64(b.N), "dropped/op")
					})
				}
			}
		}
	})
}

// BenchmarkCalibration is the work of a consumer in BenchmarkOverload.
func BenchmarkCalibration(b *testing.B) {
	x := uint64(b.N)
	for range b.N {
		work(rounds, &x)
	}
}
