// Package planted has benchmarks that are slower when built with the tag slow: by a
// lock that goroutines wait for, by an allocation, and by the order of memory.
package planted

import (
	"sync"
	"testing"
)

var sink uint64

func work(v uint64, n int) uint64 {
	for range n {
		v = v*6364136223846793005 + 1442695040888963407
	}
	return v
}

type counter struct {
	mu sync.Mutex
	v  uint64
}

func BenchmarkLock(b *testing.B) {
	var shared counter
	b.SetParallelism(4)
	b.RunParallel(func(pb *testing.PB) {
		v := uint64(0)
		for pb.Next() {
			v = contended(&shared, v)
		}
		shared.mu.Lock()
		shared.v += v
		shared.mu.Unlock()
	})
}

func BenchmarkAllocate(b *testing.B) {
	var buf []byte
	for b.Loop() {
		buf = filled(buf)
		sink += uint64(buf[len(buf)/2])
	}
}

const side = 1024

func BenchmarkLayout(b *testing.B) {
	m := make([]uint64, side*side)
	for i := range m {
		m[i] = uint64(i)
	}
	b.ResetTimer()
	for b.Loop() {
		sink += walked(m)
	}
}
