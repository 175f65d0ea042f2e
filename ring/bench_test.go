//go:build !ringmodel

package ring

import "testing"

// BenchmarkSolo is one goroutine that pushes and pops: the cost without any contention.
func BenchmarkSolo(b *testing.B) {
	for _, n := range []int{1, 16} {
		b.Run("Ring/batch="+map[int]string{1: "1", 16: "16"}[n], func(b *testing.B) {
			r := New[uint64](256, SingleProducer())
			src := make([]uint64, n)
			b.ReportAllocs()
			for range b.N / n {
				r.Push(src)
				r.TryPop(src)
			}
		})
	}
}

func BenchmarkFull(b *testing.B) {
	for _, q := range []int{1, 16} {
		for _, n := range []int{1, 16} {
			b.Run("q="+map[int]string{1: "1", 16: "16"}[q]+"/batch="+map[int]string{1: "1", 16: "16"}[n], func(b *testing.B) {
				r := New[uint64](256, SingleProducer(), EvictAtLeast(q))
				src := make([]uint64, n)
				ev := make([]uint64, 16)
				for range b.N / n {
					r.PushDrop(src, ev)
				}
			})
		}
	}
	b.Run("chan", func(b *testing.B) {
		c := make(chan uint64, 256)
		for range b.N {
		again:
			select {
			case c <- 1:
			default:
				select {
				case <-c:
				default:
				}
				goto again
			}
		}
	})
}
