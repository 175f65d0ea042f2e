//go:build !ringmodel

package ring

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestSlabStress is the engine in small: one owner fills cells and sends them
// through a ring that drops the oldest, workers check and put back. A cell
// that two hold at once shows as a wrong content, or as a data race.
func TestSlabStress(t *testing.T) {
	disturb(t, 50)
	type cell struct{ a, b uint64 }
	const capacity, workers, batch, rounds = 5, 3, 2, 50000
	s := NewSlab[cell](capacity + workers*batch + batch)
	r := New[uint32](capacity, SingleProducer())
	var served atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			c := r.Consumer()
			is := make([]uint32, batch)
			for {
				n := c.Pop(is)
				if n == 0 {
					return
				}
				for _, i := range is[:n] {
					if x := s.At(i); x.b != ^x.a {
						t.Errorf("cell %d has %d, %d", i, x.a, x.b)
					} else {
						x.a, x.b = 0, 0
					}
				}
				served.Add(int64(n))
				s.Put(is[:n]...)
			}
		})
	}
	sent, dropped, short := int64(0), int64(0), 0
	within(t, time.Minute, "the stress", func() {
		is, ev := make([]uint32, batch), make([]uint32, batch)
		for v := uint64(1); v <= rounds; v++ {
			n := s.Take(is)
			if n < len(is) {
				short++
			}
			for _, i := range is[:n] {
				*s.At(i) = cell{v, ^v}
			}
			k := r.PushDrop(is[:n], ev)
			if v%2 == 0 {
				s.Keep(ev[:k]...)
			} else {
				s.Put(ev[:k]...)
			}
			sent += int64(n)
			dropped += int64(k)
			if v%64 == 0 {
				runtime.Gosched()
			}
		}
		r.Close()
		wg.Wait()
	})
	if got := served.Load() + dropped; got != sent {
		t.Errorf("sent %d, served %d, dropped %d", sent, served.Load(), dropped)
	}
	if short > 0 {
		t.Errorf("a slab of the stated size ran short %d times", short)
	}
	if n := s.Take(make([]uint32, s.Len()+1)); n != s.Len() {
		t.Errorf("%d of %d cells came back", n, s.Len())
	}
}

func TestSlabPutTwice(t *testing.T) {
	if !hooked {
		t.Skip("checked under the race detector only")
	}
	s := NewSlab[int](2)
	is := make([]uint32, 1)
	s.Take(is)
	s.Put(is...)
	wantPanic(t, "putting a cell back twice", func() { s.Put(is...) })
}
