package peers

import "github.com/unknot/unknot/ring"

var (
	evict16 = ring.EvictAtLeast(16)
	evict64 = ring.EvictAtLeast(64)
	asym    = ring.AsymmetricFence()
)

// mostEvicted is the length that a buffer for evicted entries needs.
const mostEvicted = 64

func options(l load, opts []ring.Option) []ring.Option {
	if l.producers == 1 {
		opts = append(opts, ring.SingleProducer())
	}
	return opts
}

// newRing puts small elements into the ring itself, and large ones into slabs.
func newRing[T element](l load, opts ...ring.Option) any {
	switch any(*new(T)).(type) {
	case e8:
		return newWords(l, opts...)
	default:
		return newCells[T](l, opts...)
	}
}

// wordsForm is ring.Ring with its elements as handles.
type wordsForm struct {
	load
	ended
	r *ring.Ring[uint64]
}

func newWords(l load, opts ...ring.Option) *wordsForm {
	return &wordsForm{load: l, r: ring.New[uint64](l.capacity, options(l, opts)...)}
}

// fillWords is fill.
func fillWords(src []uint64, next *uint64, last uint64) []uint64 {
	src = src[:min(uint64(len(src)), last+1-*next)]
	for i := range src {
		src[i] = *next
		*next++
	}
	return src
}

func (f *wordsForm) send(_ int, s span) {
	buf := make([]uint64, f.push)
	for i := s.first; i <= s.last; {
		f.r.PushWait(fillWords(buf, &i, s.last))
	}
}

func (f *wordsForm) sendDrop(_ int, s span) (dropped tally) {
	buf, evicted := make([]uint64, f.push), make([]uint64, max(f.push, mostEvicted))
	for i := s.first; i <= s.last; {
		for _, e := range evicted[:f.r.PushDrop(fillWords(buf, &i, s.last), evicted)] {
			dropped.add(e)
		}
	}
	return dropped
}

func (f *wordsForm) receive() (got tally) {
	c, dst := f.r.Consumer(), make([]uint64, f.pop)
	for {
		n := c.Pop(dst)
		if n == 0 {
			return got
		}
		for _, e := range dst[:n] {
			got.eat(e, f.rounds)
		}
	}
}

func (f *wordsForm) poll() (got tally) {
	c, dst := f.r.Consumer(), make([]uint64, f.pop)
	for {
		over := f.flag.Load()
		n := c.TryPop(dst)
		if n == 0 {
			if over {
				return got
			}
			yield()
		}
		for _, e := range dst[:n] {
			got.eat(e, f.rounds)
		}
	}
}

func (f *wordsForm) done() {
	f.r.Close()
	f.ended.done()
}

// cellsForm is ring.Ring of indexes into slabs, one for each producer: a handle
// is the producer's number and the cell's. Producers write into cells,
// consumers copy out of them, and evicted cells are the next to be filled.
type cellsForm[T element] struct {
	load
	ended
	slabs []*ring.Slab[T]
	r     *ring.Ring[uint64]
}

func newCells[T element](l load, opts ...ring.Option) *cellsForm[T] {
	f := &cellsForm[T]{load: l, r: ring.New[uint64](l.capacity, options(l, opts)...)}
	// The most that can be out at once: in the ring, with consumers, and with
	// producers, who hold what they are about to push and what they evicted.
	cells := l.capacity + l.consumers*l.pop + l.producers*2*max(l.push, mostEvicted)
	for range l.producers {
		f.slabs = append(f.slabs, ring.NewSlab[T](cells))
	}
	return f
}

// A loader fills cells of one producer's slab.
type loader[T element] struct {
	slab    *ring.Slab[T]
	high    uint64 // the producer's number, in the upper half
	cells   []uint32
	handles []uint64
}

func (f *cellsForm[T]) loader(p int) *loader[T] {
	return &loader[T]{f.slabs[p], uint64(p) << 32, make([]uint32, f.push), make([]uint64, f.push)}
}

// fill is the function of that name. It never finds the slab short.
func (l *loader[T]) fill(next *uint64, last uint64) []uint64 {
	n := l.slab.Take(l.cells[:min(uint64(len(l.cells)), last+1-*next)])
	if n == 0 {
		panic("peers: slab is short")
	}
	for i, c := range l.cells[:n] {
		*l.slab.At(c) = number[T](*next)
		*next++
		l.handles[i] = l.high | uint64(c)
	}
	return l.handles[:n]
}

func (f *cellsForm[T]) send(p int, s span) {
	l := f.loader(p)
	for i := s.first; i <= s.last; {
		f.r.PushWait(l.fill(&i, s.last))
	}
}

func (f *cellsForm[T]) sendDrop(p int, s span) (dropped tally) {
	l, evicted := f.loader(p), make([]uint64, max(f.push, mostEvicted))
	for i := s.first; i <= s.last; {
		for _, h := range evicted[:f.r.PushDrop(l.fill(&i, s.last), evicted)] {
			slab, cell := f.slabs[h>>32], uint32(h)
			dropped.add((*slab.At(cell))[0])
			if slab == l.slab {
				slab.Keep(cell)
			} else {
				slab.Put(cell)
			}
		}
	}
	return dropped
}

// take copies the elements out and gives their cells back.
func (f *cellsForm[T]) take(handles []uint64, dst []T, cells []uint32) []T {
	for i, h := range handles {
		dst[i] = *f.slabs[h>>32].At(uint32(h))
	}
	if len(f.slabs) == 1 {
		for i, h := range handles {
			cells[i] = uint32(h)
		}
		f.slabs[0].Put(cells[:len(handles)]...)
	} else {
		for _, h := range handles {
			f.slabs[h>>32].Put(uint32(h))
		}
	}
	return dst[:len(handles)]
}

func (f *cellsForm[T]) receive() (got tally) {
	c, handles, dst, cells := f.r.Consumer(), make([]uint64, f.pop), make([]T, f.pop), make([]uint32, f.pop)
	for {
		n := c.Pop(handles)
		if n == 0 {
			return got
		}
		for _, e := range f.take(handles[:n], dst, cells) {
			got.eat(e[0], f.rounds)
		}
	}
}

func (f *cellsForm[T]) poll() (got tally) {
	c, handles, dst, cells := f.r.Consumer(), make([]uint64, f.pop), make([]T, f.pop), make([]uint32, f.pop)
	for {
		over := f.flag.Load()
		n := c.TryPop(handles)
		if n == 0 {
			if over {
				return got
			}
			yield()
		}
		for _, e := range f.take(handles[:n], dst, cells) {
			got.eat(e[0], f.rounds)
		}
	}
}

func (f *cellsForm[T]) done() {
	f.r.Close()
	f.ended.done()
}
