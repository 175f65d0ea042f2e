package peers

import "sync"

// A flume is a queue in the manner of Rust's flume crate, which the notifier
// thread that this project descends from uses: one mutex around a deque that
// grows and the lists of those who sleep, one element for each hold of it.
type flume[T any] struct {
	mu       sync.Mutex
	notEmpty sync.Cond
	notFull  sync.Cond
	limit    int
	deque    []T // a ring of power-of-two length, as VecDeque is
	first, n int
	asleep   struct{ receivers, senders int }
	closed   bool
}

func newFlumeQueue[T any](capacity int) *flume[T] {
	q := &flume[T]{limit: capacity, deque: make([]T, 4)}
	q.notEmpty.L = &q.mu
	q.notFull.L = &q.mu
	return q
}

func (q *flume[T]) pushBack(e T) {
	if q.n == len(q.deque) {
		d := make([]T, 2*len(q.deque))
		k := copy(d, q.deque[q.first:])
		copy(d[k:], q.deque[:q.first])
		q.deque, q.first = d, 0
	}
	q.deque[(q.first+q.n)&(len(q.deque)-1)] = e
	q.n++
}

func (q *flume[T]) popFront() T {
	e := q.deque[q.first]
	q.first = (q.first + 1) & (len(q.deque) - 1)
	q.n--
	return e
}

// trySend reports whether there was room.
func (q *flume[T]) trySend(e T) bool {
	q.mu.Lock()
	if q.n >= q.limit {
		q.mu.Unlock()
		return false
	}
	q.sendLocked(e)
	return true
}

func (q *flume[T]) send(e T) {
	q.mu.Lock()
	for q.n >= q.limit {
		q.asleep.senders++
		q.notFull.Wait()
		q.asleep.senders--
	}
	q.sendLocked(e)
}

// sendLocked releases the mutex.
func (q *flume[T]) sendLocked(e T) {
	q.pushBack(e)
	wake := q.asleep.receivers > 0
	q.mu.Unlock()
	if wake {
		q.notEmpty.Signal()
	}
}

// tryRecv reports whether there was an element.
func (q *flume[T]) tryRecv() (e T, ok bool) {
	q.mu.Lock()
	if q.n == 0 {
		q.mu.Unlock()
		return e, false
	}
	return q.recvLocked(), true
}

// recv reports false once the queue is closed and empty.
func (q *flume[T]) recv() (e T, ok bool) {
	q.mu.Lock()
	for q.n == 0 {
		if q.closed {
			q.mu.Unlock()
			return e, false
		}
		q.asleep.receivers++
		q.notEmpty.Wait()
		q.asleep.receivers--
	}
	return q.recvLocked(), true
}

func (q *flume[T]) recvLocked() T {
	e := q.popFront()
	wake := q.asleep.senders > 0
	q.mu.Unlock()
	if wake {
		q.notFull.Signal()
	}
	return e
}

func (q *flume[T]) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.notEmpty.Broadcast()
}

// flumeForm drives it as flume is driven: what drops the oldest tries to send, and
// on full receives one and tries again.
type flumeForm[T element] struct {
	load
	q *flume[T]
}

func newFlume[T element](l load) *flumeForm[T] {
	return &flumeForm[T]{l, newFlumeQueue[T](l.capacity)}
}

func (f *flumeForm[T]) send(_ int, s span) {
	for i := s.first; i <= s.last; i++ {
		f.q.send(number[T](i))
	}
}

func (f *flumeForm[T]) sendDrop(_ int, s span) (dropped tally) {
	for i := s.first; i <= s.last; i++ {
		e := number[T](i)
		for !f.q.trySend(e) {
			if old, ok := f.q.tryRecv(); ok {
				dropped.add(old[0])
			}
		}
	}
	return dropped
}

func (f *flumeForm[T]) receive() (got tally) {
	for {
		e, ok := f.q.recv()
		if !ok {
			return got
		}
		got.eat(e[0], f.rounds)
	}
}

func (f *flumeForm[T]) done() { f.q.close() }
