//go:build !ringchaos

package peers

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkThroughput: see the package's documentation.
func BenchmarkThroughput(b *testing.B) {
	sizes(b, func(b *testing.B, makers []maker) {
		for _, wait := range []string{"sleep", "poll"} {
			for _, l := range shapes {
				for _, batch := range [][2]int{{1, 1}, {1, 16}, {8, 8}, {32, 32}} {
					l.capacity, l.push, l.pop = 1024, batch[0], batch[1]
					for _, m := range makers {
						if !m.can(wait) || strings.Contains(m.queue, "evict") {
							continue
						}
						name := fmt.Sprintf("wait=%s/load=%s/push=%d/pop=%d/queue=%s", wait, l.shape(), l.push, l.pop, m.queue)
						b.Run(name, func(b *testing.B) {
							run(b, m, l, b.N, false, wait == "sleep")
						})
					}
				}
			}
		}
	})
}
