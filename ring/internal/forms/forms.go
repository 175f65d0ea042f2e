// Package forms has the two well-known shapes of array queues that package
// ring is not built like, with batches, for comparison: the tests need them to show
// that they can tell a queue that is not linearizable, the benchmarks to
// show what a stalled consumer does to a producer.
//
// A form's Hook, if set, is called in each window in which a goroutine holds a
// claim that it has not completed. A claimed slot belongs to the claimer alone,
// so both forms carry elements of any type.
package forms

import "sync/atomic"

type pad [128]byte

// Windows, the argument of Hook.
const (
	Pushing = iota // places are claimed, and not yet filled
	Popping        // entries are claimed, and not yet read
)

// A Vyukov is a ring with a turn number per slot: D. Vyukov, "Bounded MPMC
// queue", 1024cores.net, 2010, with claims of several consecutive slots.
type Vyukov[T any] struct {
	_     pad
	tail  atomic.Uint64
	_     pad
	head  atomic.Uint64
	_     pad
	slots []turn[T]
	Hook  func(window int)
}

type turn[T any] struct {
	seq atomic.Uint64
	val T
}

// NewVyukov returns a queue of the given capacity, a power of two of at least two.
func NewVyukov[T any](capacity int) *Vyukov[T] {
	if capacity < 2 || capacity&(capacity-1) != 0 {
		panic("forms: capacity is not a power of two")
	}
	q := &Vyukov[T]{slots: make([]turn[T], capacity)}
	for i := range q.slots {
		q.slots[i].seq.Store(uint64(i))
	}
	return q
}

func (q *Vyukov[T]) slot(p uint64) *turn[T] { return &q.slots[p&uint64(len(q.slots)-1)] }

// Push appends a prefix of src and reports its length.
func (q *Vyukov[T]) Push(src []T) int {
	for {
		p := q.tail.Load()
		n := 0
		old := false
		for n < len(src) {
			seq := q.slot(p + uint64(n)).seq.Load()
			if seq != p+uint64(n) {
				old = int64(seq-p-uint64(n)) > 0
				break
			}
			n++
		}
		if n == 0 {
			if old {
				continue
			}
			return 0
		}
		if !q.tail.CompareAndSwap(p, p+uint64(n)) {
			continue
		}
		if q.Hook != nil {
			q.Hook(Pushing)
		}
		for i, v := range src[:n] {
			s := q.slot(p + uint64(i))
			s.val = v
			s.seq.Store(p + uint64(i) + 1)
		}
		return n
	}
}

// TryPop removes up to len(dst) entries.
func (q *Vyukov[T]) TryPop(dst []T) int {
	for {
		p := q.head.Load()
		n := 0
		old := false
		for n < len(dst) {
			seq := q.slot(p + uint64(n)).seq.Load()
			if seq != p+uint64(n)+1 {
				old = int64(seq-p-uint64(n)-1) > 0
				break
			}
			n++
		}
		if n == 0 {
			if old {
				continue
			}
			return 0
		}
		if !q.head.CompareAndSwap(p, p+uint64(n)) {
			continue
		}
		if q.Hook != nil {
			q.Hook(Popping)
		}
		for i := range dst[:n] {
			s := q.slot(p + uint64(i))
			dst[i] = s.val
			s.seq.Store(p + uint64(i) + uint64(len(q.slots)))
		}
		return n
	}
}

// An RTS is a ring in the manner of DPDK's rte_ring with relaxed tail sync:
// both ends have a head, advanced by claims, and a tail, moved up to the head
// by whoever finishes last. Position and count share a word, 32 bits each.
type RTS[T any] struct {
	_     pad
	prod  end
	_     pad
	cons  end
	_     pad
	slots []T
	Hook  func(window int)
}

type end struct{ head, tail atomic.Uint64 } // count<<32 | position

// NewRTS returns a queue of the given capacity, a power of two.
func NewRTS[T any](capacity int) *RTS[T] {
	if capacity < 1 || capacity&(capacity-1) != 0 {
		panic("forms: capacity is not a power of two")
	}
	return &RTS[T]{slots: make([]T, capacity)}
}

// finish counts one claim as done, and moves the tail to the head if it was the last.
func (e *end) finish() {
	for {
		t := e.tail.Load()
		h := e.head.Load()
		next := t>>32 + 1
		pos := uint32(t)
		if uint32(next) == uint32(h>>32) {
			pos = uint32(h)
		}
		if e.tail.CompareAndSwap(t, next<<32|uint64(pos)) {
			return
		}
	}
}

// Push appends a prefix of src and reports its length.
func (q *RTS[T]) Push(src []T) int {
	for {
		h := q.prod.head.Load()
		free := uint32(len(q.slots)) - (uint32(h) - uint32(q.cons.tail.Load()))
		if free > uint32(len(q.slots)) {
			continue
		}
		n := min(free, uint32(len(src)))
		if n == 0 {
			return 0
		}
		if !q.prod.head.CompareAndSwap(h, (h>>32+1)<<32|uint64(uint32(h)+n)) {
			continue
		}
		if q.Hook != nil {
			q.Hook(Pushing)
		}
		for i, v := range src[:n] {
			q.slots[(uint32(h)+uint32(i))&uint32(len(q.slots)-1)] = v
		}
		q.prod.finish()
		return int(n)
	}
}

// TryPop removes up to len(dst) entries.
func (q *RTS[T]) TryPop(dst []T) int {
	for {
		h := q.cons.head.Load()
		left := uint32(q.prod.tail.Load()) - uint32(h)
		if left > uint32(len(q.slots)) {
			continue
		}
		n := min(left, uint32(len(dst)))
		if n == 0 {
			return 0
		}
		if !q.cons.head.CompareAndSwap(h, (h>>32+1)<<32|uint64(uint32(h)+n)) {
			continue
		}
		if q.Hook != nil {
			q.Hook(Popping)
		}
		for i := range dst[:n] {
			dst[i] = q.slots[(uint32(h)+uint32(i))&uint32(len(q.slots)-1)]
		}
		q.cons.finish()
		return int(n)
	}
}

// PushDrop appends all of src to a queue that cannot evict in one step: it
// pushes what fits, pops what is in the way, and tries again. It returns the
// number popped into evicted. If evicted is used up it waits for room, as it
// does while a stalled consumer is in the way.
func PushDrop[T any](q interface {
	Push([]T) int
	TryPop([]T) int
}, src, evicted []T) int {
	k := 0
	for {
		src = src[q.Push(src):]
		if len(src) == 0 {
			return k
		}
		k += q.TryPop(evicted[k:min(len(evicted), k+len(src))])
	}
}
