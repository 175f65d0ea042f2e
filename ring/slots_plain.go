//go:build !race && !ringatomic && !ringmodel

package ring

// slots is the storage of a ring, a power of two of words.
//
// Here the words are plain: get may race with put, on purpose. A get whose
// claim succeeds has not raced (see Ring.push); one that has raced is
// discarded together with its failed claim. The claim and the publication are
// atomic operations that neither the compiler nor the processor moves these
// accesses across (sync/atomic is sequentially consistent, on arm64 by
// load-acquire and store-release). A word-sized racing read is bounded by
// the Go memory model, but the race detector would rightly report it, so
// slots_atomic.go replaces this file under it.
type slots[H Handle] struct{ w []H }

func (s *slots[H]) init(n uint64) { s.w = make([]H, n) }

func (s *slots[H]) get(pos uint64, dst []H) {
	w := s.w
	i := pos & uint64(len(w)-1)
	if len(dst) == 1 && i < uint64(len(w)) {
		dst[0] = w[i]
		return
	}
	if k := copy(dst, w[i:]); k < len(dst) {
		copy(dst[k:], w)
	}
}

func (s *slots[H]) put(pos uint64, src []H) {
	w := s.w
	i := pos & uint64(len(w)-1)
	if len(src) == 1 && i < uint64(len(w)) {
		w[i] = src[0]
		return
	}
	if k := copy(w[i:], src); k < len(src) {
		copy(w, src[k:])
	}
}
