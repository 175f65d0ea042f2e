package peers

import "github.com/puzpuzpuz/xsync/v4"

// xsyncForm is xsync's MPMCQueue, which has Try methods only. A false from either may also
// mean a lost race: all one can do is to try again.
type xsyncForm[T element] struct {
	load
	ended
	q *xsync.MPMCQueue[T]
}

func newXsync[T element](l load) *xsyncForm[T] {
	return &xsyncForm[T]{load: l, q: xsync.NewMPMCQueue[T](l.capacity)}
}

func (f *xsyncForm[T]) send(_ int, s span) {
	for i := s.first; i <= s.last; i++ {
		e := number[T](i)
		for !f.q.TryEnqueue(e) {
			yield()
		}
	}
}

func (f *xsyncForm[T]) sendDrop(_ int, s span) (dropped tally) {
	for i := s.first; i <= s.last; i++ {
		e := number[T](i)
		for !f.q.TryEnqueue(e) {
			if old, ok := f.q.TryDequeue(); ok {
				dropped.add(old[0])
			}
		}
	}
	return dropped
}

func (f *xsyncForm[T]) poll() (got tally) {
	for {
		over := f.flag.Load()
		e, ok := f.q.TryDequeue()
		switch {
		case ok:
			got.eat(e[0], f.rounds)
		case over: // whoever wins the last races goes on
			return got
		default:
			yield()
		}
	}
}
