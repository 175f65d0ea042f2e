package peers

import "github.com/unknot/unknot/ring"

// mutexForm is ring.Queue.
type mutexForm[T element] struct {
	load
	ended
	q *ring.Queue[T]
}

func newMutex[T element](l load) *mutexForm[T] {
	return &mutexForm[T]{load: l, q: ring.NewQueue[T](l.capacity)}
}

func (f *mutexForm[T]) send(_ int, s span) {
	buf := make([]T, f.push)
	for i := s.first; i <= s.last; {
		f.q.PushWait(fill(buf, &i, s.last))
	}
}

func (f *mutexForm[T]) sendDrop(_ int, s span) (dropped tally) {
	buf, evicted := make([]T, f.push), make([]T, f.push)
	for i := s.first; i <= s.last; {
		for _, e := range evicted[:f.q.PushDrop(fill(buf, &i, s.last), evicted)] {
			dropped.add(e[0])
		}
	}
	return dropped
}

func (f *mutexForm[T]) receive() (got tally) {
	c, dst := f.q.Consumer(), make([]T, f.pop)
	for {
		n := c.Pop(dst)
		if n == 0 {
			return got
		}
		for _, e := range dst[:n] {
			got.eat(e[0], f.rounds)
		}
	}
}

func (f *mutexForm[T]) poll() (got tally) {
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

func (f *mutexForm[T]) done() {
	f.q.Close()
	f.ended.done()
}
