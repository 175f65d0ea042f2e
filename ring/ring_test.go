//go:build !ringmodel

package ring

import (
	"slices"
	"sync"
	"testing"
	"time"
)

// both is what Ring and Queue have in common.
type both interface {
	Push(src []uint64) int
	PushWait(src []uint64) int
	PushDrop(src, evicted []uint64) int
	TryPop(dst []uint64) int
	Len() int
	Cap() int
	Close()
}

var (
	_ both = (*Ring[uint64])(nil)
	_ both = (*Queue[uint64])(nil)
)

// kinds runs f for each kind of queue.
func kinds(t *testing.T, f func(t *testing.T, make func(capacity int, opts ...Option) both)) {
	t.Run("Ring", func(t *testing.T) {
		f(t, func(n int, opts ...Option) both { return New[uint64](n, opts...) })
	})
	t.Run("RingSingle", func(t *testing.T) {
		f(t, func(n int, opts ...Option) both { return New[uint64](n, append(opts, SingleProducer())...) })
	})
	t.Run("Queue", func(t *testing.T) {
		f(t, func(n int, opts ...Option) both { return NewQueue[uint64](n, opts...) })
	})
}

func wantPanic(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s did not panic", what)
		}
	}()
	f()
}

// popN pops n entries with q.TryPop.
func popAll(q interface{ TryPop([]uint64) int }) []uint64 {
	var got []uint64
	buf := make([]uint64, 3)
	for {
		n := q.TryPop(buf)
		if n == 0 {
			return got
		}
		got = append(got, buf[:n]...)
	}
}

func TestPushUntilFull(t *testing.T) {
	kinds(t, func(t *testing.T, mk func(int, ...Option) both) {
		q := mk(5) // not a power of two: the capacity is exact
		if got := q.Push([]uint64{1, 2, 3}); got != 3 {
			t.Fatalf("Push of 3 into 5 = %d", got)
		}
		if got := q.Push([]uint64{4, 5, 6, 7}); got != 2 {
			t.Fatalf("Push of 4 into room of 2 = %d", got)
		}
		if got := q.Push([]uint64{8}); got != 0 {
			t.Fatalf("Push into full = %d", got)
		}
		if q.Len() != 5 || q.Cap() != 5 {
			t.Fatalf("Len, Cap = %d, %d, want 5, 5", q.Len(), q.Cap())
		}
		if got, want := popAll(q), []uint64{1, 2, 3, 4, 5}; !slices.Equal(got, want) {
			t.Fatalf("popped %v, want %v", got, want)
		}
		if q.Len() != 0 {
			t.Fatalf("Len of empty = %d", q.Len())
		}
	})
}

// TestPushWait has a producer meet a full queue: it must wait until half of it is free, and then
// append the rest, in order.
func TestPushWait(t *testing.T) {
	kinds(t, func(t *testing.T, mk func(int, ...Option) both) {
		q := mk(4)
		if n := q.PushWait([]uint64{1, 2, 3}); n != 3 {
			t.Fatalf("PushWait of 3 into 4 = %d", n)
		}
		done := make(chan int, 1)
		go func() { done <- q.PushWait([]uint64{4, 5, 6, 7, 8, 9, 10}) }()
		var got []uint64
		buf := make([]uint64, 1)
		within(t, time.Minute, "the wait for room", func() {
			for len(got) < 10 {
				got = append(got, buf[:q.TryPop(buf)]...)
			}
			if n := <-done; n != 7 {
				t.Errorf("PushWait of 7 = %d", n)
			}
		})
		if want := []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}; !slices.Equal(got, want) {
			t.Errorf("popped %v, want %v", got, want)
		}
	})
}

// TestCloseEndsPushWait: what is not in the queue stays the caller's.
func TestCloseEndsPushWait(t *testing.T) {
	for name, q := range map[string]both{"Ring": New[uint64](2), "Queue": NewQueue[uint64](2)} {
		t.Run(name, func(t *testing.T) {
			var waiting sync.WaitGroup
			counts := make([]int, 3)
			for i := range counts {
				waiting.Go(func() { counts[i] = q.PushWait([]uint64{1, 2, 3}) })
			}
			within(t, time.Minute, "PushWait of a closed queue", func() {
				for q.Len() != 2 {
					time.Sleep(time.Millisecond)
				}
				time.Sleep(time.Millisecond) // most often, they sleep by now
				q.Close()
				waiting.Wait()
			})
			if sum := counts[0] + counts[1] + counts[2]; sum != 2 || q.Len() != 2 {
				t.Errorf("PushWait = %v, but %d are in the queue", counts, q.Len())
			}
			if n := q.PushWait([]uint64{4}); n != 0 {
				t.Errorf("PushWait after Close = %d", n)
			}
		})
	}
}

func TestPushDropEvictsTheOldest(t *testing.T) {
	kinds(t, func(t *testing.T, mk func(int, ...Option) both) {
		q := mk(3)
		ev := make([]uint64, 3)
		if k := q.PushDrop([]uint64{1, 2}, ev); k != 0 {
			t.Fatalf("evicted %d from a ring with room", k)
		}
		k := q.PushDrop([]uint64{3, 4}, ev)
		if !slices.Equal(ev[:k], []uint64{1}) {
			t.Fatalf("evicted %v, want [1]", ev[:k])
		}
		k = q.PushDrop([]uint64{5, 6, 7}, ev)
		if !slices.Equal(ev[:k], []uint64{2, 3, 4}) {
			t.Fatalf("evicted %v, want [2 3 4]", ev[:k])
		}
		if got, want := popAll(q), []uint64{5, 6, 7}; !slices.Equal(got, want) {
			t.Fatalf("left %v, want %v", got, want)
		}
	})
}

func TestEvictAtLeast(t *testing.T) {
	kinds(t, func(t *testing.T, mk func(int, ...Option) both) {
		q := mk(6, EvictAtLeast(4))
		ev := make([]uint64, 6)
		q.Push([]uint64{1, 2, 3, 4, 5, 6})
		k := q.PushDrop([]uint64{7}, ev)
		if !slices.Equal(ev[:k], []uint64{1, 2, 3, 4}) {
			t.Fatalf("evicted %v, want [1 2 3 4]", ev[:k])
		}
		for _, v := range []uint64{8, 9, 10} {
			if k := q.PushDrop([]uint64{v}, ev); k != 0 {
				t.Fatalf("evicted %d although the last eviction left room", k)
			}
		}
		k = q.PushDrop([]uint64{11, 12, 13, 14, 15}, ev)
		if !slices.Equal(ev[:k], []uint64{5, 6, 7, 8, 9}) {
			t.Fatalf("evicted %v, want [5 6 7 8 9]", ev[:k])
		}
		// A quantum above the capacity is the capacity.
		q = mk(2, EvictAtLeast(100))
		q.Push([]uint64{1, 2})
		if k := q.PushDrop([]uint64{3}, ev); !slices.Equal(ev[:k], []uint64{1, 2}) {
			t.Fatalf("evicted %v, want [1 2]", ev[:k])
		}
	})
}

func TestNothingAsked(t *testing.T) {
	kinds(t, func(t *testing.T, mk func(int, ...Option) both) {
		q := mk(1)
		if q.Push(nil) != 0 || q.PushWait(nil) != 0 || q.PushDrop(nil, nil) != 0 || q.TryPop(nil) != 0 {
			t.Fatal("an empty batch moved something")
		}
		q.Push([]uint64{1})
		if q.Push(nil) != 0 || q.PushWait(nil) != 0 || q.PushDrop(nil, nil) != 0 || q.TryPop(nil) != 0 || q.Len() != 1 {
			t.Fatal("an empty batch moved something")
		}
	})
}

func TestPushDropPanics(t *testing.T) {
	kinds(t, func(t *testing.T, mk func(int, ...Option) both) {
		q := mk(3, EvictAtLeast(2))
		wantPanic(t, "a batch above the capacity", func() { q.PushDrop(make([]uint64, 4), make([]uint64, 9)) })
		wantPanic(t, "evicted shorter than src", func() { q.PushDrop(make([]uint64, 3), make([]uint64, 2)) })
		wantPanic(t, "evicted shorter than the quantum", func() { q.PushDrop(make([]uint64, 1), make([]uint64, 1)) })
		q.PushDrop([]uint64{1, 2, 3}, make([]uint64, 3)) // the failed calls hold no lock
		wantPanic(t, "capacity 0", func() { mk(0) })
	})
}

func TestClose(t *testing.T) {
	kinds(t, func(t *testing.T, mk func(int, ...Option) both) {
		q := mk(4)
		q.Push([]uint64{1, 2})
		q.Close()
		q.Close()
		if n := q.Push([]uint64{3}); n != 0 {
			t.Fatalf("Push after Close = %d", n)
		}
		ev := make([]uint64, 4)
		if k := q.PushDrop([]uint64{4, 5}, ev); !slices.Equal(ev[:k], []uint64{4, 5}) {
			t.Fatalf("PushDrop after Close evicted %v, want what it was given", ev[:k])
		}
		if got, want := popAll(q), []uint64{1, 2}; !slices.Equal(got, want) {
			t.Fatalf("left %v, want %v", got, want)
		}
	})
}

// TestHandleTypes passes values through each width and sign.
func TestHandleTypes(t *testing.T) {
	r := New[int32](2)
	r.Push([]int32{-1, 7})
	d := make([]int32, 2)
	if n := r.TryPop(d); n != 2 || d[0] != -1 || d[1] != 7 {
		t.Errorf("int32: popped %v", d[:n])
	}
	type id int64
	s := New[id](2)
	s.Push([]id{-5, 1 << 62})
	e := make([]id, 2)
	if n := s.TryPop(e); n != 2 || e[0] != -5 || e[1] != 1<<62 {
		t.Errorf("int64: popped %v", e[:n])
	}
}

type popper interface{ Pop([]uint64) int }

// consumers runs f for each kind of consumer.
func consumers(t *testing.T, f func(t *testing.T, q both, consumer func() popper)) {
	t.Run("Goroutine", func(t *testing.T) {
		r := New[uint64](8)
		f(t, r, func() popper { return r.Consumer() })
	})
	t.Run("Yield", func(t *testing.T) {
		r := New[uint64](8, YieldOnWake())
		f(t, r, func() popper { return r.Consumer() })
	})
	t.Run("Thread", func(t *testing.T) {
		r := New[uint64](8)
		f(t, r, func() popper { return r.ThreadConsumer() })
	})
	t.Run("Queue", func(t *testing.T) {
		q := NewQueue[uint64](8)
		f(t, q, func() popper { return q.Consumer() })
	})
	t.Run("QueueThread", func(t *testing.T) {
		q := NewQueue[uint64](8)
		f(t, q, func() popper { return q.ThreadConsumer() })
	})
}

// within fails the test if f takes longer than d, with all stacks.
func within(t *testing.T, d time.Duration, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(d):
		panic(what + " did not end within " + d.String())
	}
}

func TestPopSleepsUntilPush(t *testing.T) {
	consumers(t, func(t *testing.T, q both, consumer func() popper) {
		const n = 200
		var wg sync.WaitGroup
		got := make([][]uint64, 3)
		for i := range got {
			wg.Go(func() {
				c := consumer()
				buf := make([]uint64, 2)
				for {
					k := c.Pop(buf)
					if k == 0 {
						return
					}
					got[i] = append(got[i], buf[:k]...)
				}
			})
		}
		within(t, time.Minute, "the hand-over", func() {
			for v := uint64(0); v < n; {
				if q.Push([]uint64{v}) == 1 {
					v++
				}
				if v%16 == 0 {
					time.Sleep(50 * time.Microsecond) // let them fall asleep
				}
			}
			q.Close()
			wg.Wait()
		})
		all := slices.Concat(got...)
		slices.Sort(all)
		for i, v := range all {
			if uint64(i) != v {
				t.Fatalf("entry %d is %d", i, v)
			}
		}
		if len(all) != n {
			t.Fatalf("%d entries of %d came out", len(all), n)
		}
		if k := consumer().Pop(make([]uint64, 1)); k != 0 {
			t.Fatalf("Pop after Close = %d", k)
		}
	})
}

func TestSlab(t *testing.T) {
	s := NewSlab[[80]byte](3)
	is := make([]uint32, 4)
	if n := s.Take(is); n != 3 {
		t.Fatalf("took %d of 3 cells", n)
	}
	seen := map[uint32]bool{is[0]: true, is[1]: true, is[2]: true}
	if len(seen) != 3 || !seen[0] || !seen[1] || !seen[2] {
		t.Fatalf("took cells %v", is[:3])
	}
	if n := s.Take(is[3:]); n != 0 {
		t.Fatalf("took %d cells of none", n)
	}
	s.At(is[0])[3] = 9
	s.Put(is[1], is[0])
	s.Keep(is[2])
	a := make([]uint32, 4)
	if n := s.Take(a); n != 3 || a[0] != is[2] || a[1] != is[1] || a[2] != is[0] {
		t.Fatalf("took %v after putting back %v", a[:n], is[:3])
	}
	if s.At(is[0])[3] != 9 {
		t.Fatal("the content of a cell did not stay")
	}
}

func TestSetTakesTurns(t *testing.T) {
	s := NewSet[uint64]()
	a, b := s.Add(4), s.Add(4)
	a.Push([]uint64{1, 2, 3, 4})
	b.Push([]uint64{11, 12})
	c := s.Consumer()
	buf := make([]uint64, 2)
	var got []uint64
	for range 3 {
		n := c.Pop(buf)
		got = append(got, buf[:n]...)
	}
	if want := []uint64{1, 2, 11, 12, 3, 4}; !slices.Equal(got, want) {
		t.Fatalf("popped %v, want %v", got, want)
	}
	if c.From() != a {
		t.Error("the last batch did not come from the first ring")
	}
	a.Close() // does not end the set
	b.Push([]uint64{13})
	if n := c.Pop(buf); n != 1 || buf[0] != 13 {
		t.Fatalf("popped %v", buf[:n])
	}
	s.Remove(a)
	s.Close()
	within(t, time.Minute, "Pop of a closed set", func() {
		if n := c.Pop(buf); n != 0 {
			t.Errorf("popped %v of a closed set", buf[:n])
		}
	})
}

// TestRationed: a ring whose ration is out is passed by, and there again when a batch is given back.
func TestRationed(t *testing.T) {
	s := NewSet[uint64]()
	a, b := s.Add(8, Rationed(2)), s.Add(8)
	a.Push([]uint64{1, 2, 3, 4, 5})
	b.Push([]uint64{11})
	c := s.Consumer()
	dst := make([]uint64, 1)
	pop := func() uint64 {
		if c.TryPop(dst) == 0 {
			return 0
		}
		return dst[0]
	}
	if got := []uint64{pop(), pop(), pop(), pop()}; !slices.Equal(got, []uint64{1, 11, 2, 0}) || a.Out() != 2 {
		t.Errorf("popped %v, %d out", got, a.Out())
	}
	if n := a.TryPop(dst); n != 1 || dst[0] != 3 || a.Out() != 2 { // has no part in it
		t.Errorf("TryPop: %d, %d out", n, a.Out())
	}
	a.Done()
	if got := []uint64{pop(), pop()}; !slices.Equal(got, []uint64{4, 0}) {
		t.Errorf("one given back: popped %v", got)
	}
	a.SetRation(NoRation)
	if got := []uint64{pop(), pop()}; !slices.Equal(got, []uint64{5, 0}) || a.Out() != 3 {
		t.Errorf("no ration: popped %v, %d out", got, a.Out())
	}
	a.SetRation(1)
	a.Push([]uint64{6})
	a.Done()
	a.Done()
	if got := pop(); got != 0 {
		t.Errorf("as many out as there may be: popped %d", got)
	}
	woken := make(chan uint64)
	go func() {
		c := s.ThreadConsumer()
		c.Pop(dst)
		woken <- dst[0]
	}()
	a.Done()
	within(t, time.Minute, "Pop", func() {
		if got := <-woken; got != 6 {
			t.Errorf("popped %d", got)
		}
	})
	if a.Push([]uint64{7}); a.Out() != 1 || Rationed(0) == nil {
		t.Errorf("%d out", a.Out())
	}
}
