//go:build race || ringatomic || ringmodel

package ring

// slots is the storage of a ring, a power of two of words, here all atomic:
// the race detector understands it, the model checker steps through it. On
// amd64 each store is then an exchange, some 5 ns; see slots_plain.go.
type slots[H Handle] struct{ w []atomicUint64 }

func (s *slots[H]) init(n uint64) { s.w = make([]atomicUint64, n) }

func (s *slots[H]) get(pos uint64, dst []H) {
	for i := range dst {
		dst[i] = H(s.w[(pos+uint64(i))&uint64(len(s.w)-1)].Load())
	}
}

func (s *slots[H]) put(pos uint64, src []H) {
	for i, v := range src {
		s.w[(pos+uint64(i))&uint64(len(s.w)-1)].Store(uint64(v))
	}
}
