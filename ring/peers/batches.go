package peers

import "github.com/unknot/unknot/ring/internal/forms"

// batchForm is a queue with batches and nothing to sleep on: the forms that
// package ring is not built like.
type batchForm[T element, Q interface {
	Push([]T) int
	TryPop([]T) int
}] struct {
	load
	ended
	q Q
}

func newVyukov[T element](l load) *batchForm[T, *forms.Vyukov[T]] {
	return &batchForm[T, *forms.Vyukov[T]]{load: l, q: forms.NewVyukov[T](l.capacity)}
}

func newRTS[T element](l load) *batchForm[T, *forms.RTS[T]] {
	return &batchForm[T, *forms.RTS[T]]{load: l, q: forms.NewRTS[T](l.capacity)}
}

func (f *batchForm[T, Q]) send(_ int, s span) {
	buf := make([]T, f.push)
	for i := s.first; i <= s.last; {
		src := fill(buf, &i, s.last)
		for {
			src = src[f.q.Push(src):]
			if len(src) == 0 {
				break
			}
			yield()
		}
	}
}

func (f *batchForm[T, Q]) sendDrop(_ int, s span) (dropped tally) {
	buf, evicted := make([]T, f.push), make([]T, f.capacity)
	for i := s.first; i <= s.last; {
		for _, e := range evicted[:forms.PushDrop[T](f.q, fill(buf, &i, s.last), evicted)] {
			dropped.add(e[0])
		}
	}
	return dropped
}

func (f *batchForm[T, Q]) poll() (got tally) {
	dst := make([]T, f.pop)
	for {
		over := f.flag.Load()
		n := f.q.TryPop(dst)
		if n == 0 {
			if over {
				return got
			}
			yield()
		}
		for _, e := range dst[:n] {
			got.eat(e[0], f.rounds)
		}
	}
}
