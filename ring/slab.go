package ring

import (
	"fmt"
)

// A Slab is fixed storage for elements that travel by index: the receive loop
// takes free cells and fills them, a [Ring] of uint32 carries their indexes, and
// whoever has done with an element puts its cell back. Nothing is allocated
// or moved after [NewSlab], so a cell's address may be given to a system call.
//
// Taking is for one goroutine at a time, the slab's owner (normally the
// producer). Putting back is for anybody, concurrently, and lock-free. An
// owner that evicts entries from the ring holds their cells, and may fill
// them again at once: in overload, free cells need not pass through here at all.
//
// To never run short, a slab needs as many cells as the ring's capacity, plus
// the batch of each consumer, plus what the owner itself holds.
//
// Cells are adjacent; pad T to a multiple of 64 bytes if neighbours are
// written by different processors at high rate.
//
// The free list is a stack of R. K. Treiber's, whose owner takes all of it at
// once by one exchange: since no compare-and-swap ever removes a single cell,
// there is no ABA problem, and no counter that might wrap.
type Slab[T any] struct {
	cells []T
	next  []uint32 // next[i] is the free cell after i, plus 1; 0 ends the list
	check slabCheck

	_    pad
	mine uint32 // first free cell of the owner's own list, plus 1
	_    pad
	free atomicUint32 // first cell put back since the owner last looked, plus 1
	_    pad
}

// NewSlab returns a slab of n cells, all free. It panics if n is negative or
// does not fit an index.
func NewSlab[T any](n int) *Slab[T] {
	if n < 0 || uint64(n) >= 1<<32-1 {
		panic(fmt.Sprintf("ring: slab of %d cells", n))
	}
	s := &Slab[T]{cells: make([]T, n), next: make([]uint32, n)}
	s.check.init(n)
	for i := range s.next {
		s.next[i] = uint32(i+2) % uint32(n+1)
	}
	if n > 0 {
		s.mine = 1
	}
	return s
}

// Len reports the number of cells.
func (s *Slab[T]) Len() int { return len(s.cells) }

// At returns cell i. Its content is the business of whoever holds i.
func (s *Slab[T]) At(i uint32) *T { return &s.cells[i] }

// Take stores up to len(dst) free cells in dst and reports how many: fewer
// only if no more were free. Only the owner may call it.
func (s *Slab[T]) Take(dst []uint32) int {
	for n := range dst {
		if s.mine == 0 {
			if s.free.Load() == 0 {
				return n
			}
			s.mine = s.free.Swap(0)
		}
		i := s.mine - 1
		s.mine = s.next[i]
		s.check.taken(i)
		dst[n] = i
	}
	return len(dst)
}

// Put gives cells back. The caller must hold them and no longer touch them.
// All of is become free at once.
func (s *Slab[T]) Put(is ...uint32) {
	if len(is) == 0 {
		return
	}
	for _, i := range is {
		s.check.put(i)
	}
	for n, i := range is[:len(is)-1] {
		s.next[i] = is[n+1] + 1
	}
	last := is[len(is)-1]
	for {
		top := s.free.Load()
		// Plain: until the exchange below succeeds nobody else looks at it.
		s.next[last] = top
		if s.free.CompareAndSwap(top, is[0]+1) {
			return
		}
	}
}

// Keep makes cells free that the owner itself holds. It is Put without its
// atomic operation, and like Take for the owner alone.
func (s *Slab[T]) Keep(is ...uint32) {
	for _, i := range is {
		s.check.put(i)
		s.next[i] = s.mine
		s.mine = i + 1
	}
}
