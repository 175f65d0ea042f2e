//go:build !ringmodel

package ring

import (
	"slices"
	"testing"
)

// FuzzRing reads its input as a sequence of operations and performs them on a
// ring, a queue and a slice; all three must agree. The first bytes choose
// capacity, quantum and where, around the wrap of the positions, the ring starts.
func FuzzRing(f *testing.F) {
	f.Add([]byte{3, 0, 2, 0x03, 0x41, 0x82, 0x05, 0xc3, 0x47, 0x81})
	f.Add([]byte{0, 0, 0, 0x40, 0x40, 0x40, 0x80, 0x80})
	f.Add([]byte{7, 3, 5, 0x47, 0x41, 0x41, 0x41, 0x45, 0x83, 0xc7, 0xc0, 0x41})
	f.Add([]byte{12, 200, 1, 0x07, 0x07, 0x47, 0x47, 0x87, 0xc7, 0x47, 0x20, 0x07, 0x60, 0x41, 0x87})
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) < 3 || len(in) > 500 {
			return
		}
		capacity, quantum := int(in[0])%17+1, int(in[1])%20
		opts := []Option{EvictAtLeast(quantum)}
		if in[0]&0x80 != 0 {
			opts = append(opts, SingleProducer())
		}
		quantum = min(max(quantum, 1), capacity)
		r, q := New[uint64](capacity, opts...), NewQueue[uint64](capacity, opts...)
		r.startAt(-uint64(in[2] % 64))
		c := r.Consumer()
		var model []uint64
		closed := false
		id := uint64(0)
		batch := func(n int) []uint64 {
			src := make([]uint64, n)
			for i := range src {
				id++
				src[i] = id * 0x9e3779b97f4a7c15
			}
			return src
		}
		for i, b := range in[3:] {
			n := int(b & 0x1f)
			switch b >> 5 {
			case 0, 1: // Push
				src := batch(n)
				want := min(n, capacity-len(model))
				if closed {
					want = 0
				}
				model = append(model, src[:want]...)
				if a, b := r.Push(src), q.Push(src); a != want || b != want {
					t.Fatalf("op %d: Push of %d = %d (ring), %d (queue), want %d", i, n, a, b, want)
				}
			case 2, 3: // PushDrop
				src := batch(min(n, capacity))
				var want []uint64
				if closed {
					want = src
				} else if len(src) > 0 {
					if over := len(src) - (capacity - len(model)); over > 0 {
						k := min(max(over, quantum), len(model))
						want, model = model[:k], slices.Clone(model[k:])
					}
					model = append(model, src...)
				}
				a, b := make([]uint64, 32), make([]uint64, 32)
				a, b = a[:r.PushDrop(src, a)], b[:q.PushDrop(src, b)]
				if !slices.Equal(a, want) || !slices.Equal(b, want) {
					t.Fatalf("op %d: PushDrop of %d evicted %v (ring), %v (queue), want %v", i, len(src), a, b, want)
				}
			case 4, 5: // TryPop
				want := slices.Clone(model[:min(n, len(model))])
				model = model[len(want):]
				a, b := make([]uint64, n), make([]uint64, n)
				a, b = a[:r.TryPop(a)], b[:q.TryPop(b)]
				if !slices.Equal(a, want) || !slices.Equal(b, want) {
					t.Fatalf("op %d: TryPop of %d = %v (ring), %v (queue), want %v", i, n, a, b, want)
				}
			case 6: // a consumer, whose batches may be short; the queue follows it
				a := make([]uint64, n)
				a = a[:c.TryPop(a)]
				if !slices.Equal(a, model[:min(len(a), len(model))]) || len(a) == 0 && n > 0 && len(model) > 0 {
					t.Fatalf("op %d: Consumer.TryPop of %d = %v, want a prefix of %v", i, n, a, model)
				}
				model = model[len(a):]
				q.TryPop(make([]uint64, len(a)))
			case 7:
				if n == 0x1f {
					r.Close()
					q.Close()
					closed = true
				}
			}
			if a, b := r.Len(), q.Len(); a != len(model) || b != len(model) {
				t.Fatalf("op %d: Len = %d (ring), %d (queue), want %d", i, a, b, len(model))
			}
		}
		r.Close()
		for len(model) > 0 {
			a := make([]uint64, 5)
			n := c.Pop(a)
			if n == 0 || !slices.Equal(a[:n], model[:min(n, len(model))]) {
				t.Fatalf("at the end: Pop = %v, want a prefix of %v", a[:n], model)
			}
			model = model[n:]
		}
		if n := c.Pop(make([]uint64, 1)); n != 0 {
			t.Fatalf("at the end: %d entries too many", n)
		}
	})
}
