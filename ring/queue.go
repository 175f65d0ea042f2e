package ring

import (
	"fmt"
	"sync"
)

// A Queue has the methods of [Ring] for any element type, guarded by one mutex.
// Use it for elements that are not words. It is as fast as a Ring at batches
// of eight and more, and slower below; a goroutine that is descheduled while it
// holds the mutex holds everybody up. In the tests it is what Ring is
// compared with.
//
// Its batches are never short: each operation moves as much as fits.
// A removed element's slot is zeroed, so the queue does not keep it alive.
// The zero value is not usable; call [NewQueue].
type Queue[T any] struct {
	mu      sync.Mutex
	buf     []T
	first   int // index of the oldest
	n       int // number of elements
	quantum int
	shut    bool
	yield   bool
	top     *waiter   // sleeping consumers, last in first out
	room    sync.Cond // producers that wait for room
	waiting int       // how many
}

// NewQueue returns a queue that holds at most capacity elements. It panics if
// capacity is less than one. [SingleProducer] has no effect on it.
func NewQueue[T any](capacity int, opts ...Option) *Queue[T] {
	if capacity < 1 {
		panic(fmt.Sprintf("ring: capacity %d is less than 1", capacity))
	}
	c := config{quantum: 1}
	for _, o := range opts {
		o(&c)
	}
	q := &Queue[T]{
		buf:     make([]T, capacity),
		quantum: min(max(c.quantum, 1), capacity),
		yield:   c.yield,
	}
	q.room.L = &q.mu
	return q
}

// Cap reports the capacity.
func (q *Queue[T]) Cap() int { return len(q.buf) }

// Len reports the number of elements.
func (q *Queue[T]) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.n
}

// Push appends a prefix of src, as much as fits, and reports its length. On a closed
// queue it reports 0.
func (q *Queue[T]) Push(src []T) int {
	if len(src) == 0 {
		return 0
	}
	q.mu.Lock()
	n := min(len(src), len(q.buf)-q.n)
	if n == 0 || q.shut {
		q.mu.Unlock()
		return 0
	}
	q.append(src[:n])
	q.unlockAndWake(q.yield)
	return n
}

// PushWait appends all of src and sleeps while there is no room. It reports the
// number appended, fewer than asked only if the queue is closed. Like [Ring.PushWait] it
// is woken when half of the queue is free.
func (q *Queue[T]) PushWait(src []T) int {
	n := q.Push(src)
	for n < len(src) {
		q.mu.Lock()
		for q.n == len(q.buf) && !q.shut {
			q.waiting++
			q.room.Wait()
			q.waiting--
		}
		if q.shut {
			q.mu.Unlock()
			return n
		}
		k := min(len(src)-n, len(q.buf)-q.n)
		q.append(src[n : n+k])
		q.unlockAndWake(q.yield)
		n += k
	}
	return n
}

// PushDrop appends all of src. If there is no room it first removes the
// oldest elements, as few as possible (see [EvictAtLeast]), stores them oldest
// first in evicted and reports how many; all in one step. A closed queue
// evicts what it is given. It panics as [Ring.PushDrop] does.
func (q *Queue[T]) PushDrop(src, evicted []T) int {
	if len(src) == 0 {
		return 0
	}
	if len(src) > len(q.buf) || len(evicted) < max(len(src), q.quantum) {
		pushDropPanic(len(src), len(evicted), len(q.buf), q.quantum)
	}
	q.mu.Lock()
	if q.shut {
		q.mu.Unlock()
		return copy(evicted, src)
	}
	k := 0
	if over := len(src) - (len(q.buf) - q.n); over > 0 {
		k = q.remove(evicted[:min(max(over, q.quantum), q.n)])
	}
	q.append(src)
	q.unlockAndWake(q.yield)
	return k
}

// TryPop removes up to len(dst) of the oldest elements, stores them in dst and
// reports how many. It never waits.
func (q *Queue[T]) TryPop(dst []T) int {
	q.mu.Lock()
	at(pointLocked)
	n := q.remove(dst)
	q.mu.Unlock()
	return n
}

// Close ends the stream: pushes append nothing more, and once the queue is
// empty sleeping consumers return 0.
func (q *Queue[T]) Close() {
	q.mu.Lock()
	q.shut = true
	q.room.Broadcast()
	w := q.top
	q.top = nil
	q.mu.Unlock()
	for w != nil {
		next := w.next // w may sleep again elsewhere once it is woken
		w.wake()
		w = next
	}
}

// append adds src, for which there is room, under q.mu.
func (q *Queue[T]) append(src []T) {
	i := q.first + q.n
	if i >= len(q.buf) {
		i -= len(q.buf)
	}
	k := copy(q.buf[i:], src)
	copy(q.buf, src[k:])
	q.n += len(src)
}

// remove moves the oldest elements to dst, as many as it takes, under q.mu.
func (q *Queue[T]) remove(dst []T) int {
	n := min(len(dst), q.n)
	k := copy(dst[:n], q.buf[q.first:])
	clear(q.buf[q.first : q.first+k])
	copy(dst[k:n], q.buf)
	clear(q.buf[:n-k])
	q.first += n
	if q.first >= len(q.buf) {
		q.first -= len(q.buf)
	}
	q.n -= n
	if q.waiting > 0 && q.n <= len(q.buf)/2 {
		q.room.Broadcast()
	}
	return n
}

// unlockAndWake releases q.mu and wakes one consumer if one sleeps while
// there are elements.
func (q *Queue[T]) unlockAndWake(yield bool) {
	w := q.top
	if w == nil || q.n == 0 {
		q.mu.Unlock()
		return
	}
	q.top = w.next
	q.mu.Unlock()
	w.handOff(yield)
}

// Consumer returns a new consumer, to be used by a goroutine.
func (q *Queue[T]) Consumer() *QueueConsumer[T] { return q.consumer(false) }

// ThreadConsumer is like [Queue.Consumer], for a wired thread; see [Ring.ThreadConsumer].
func (q *Queue[T]) ThreadConsumer() *QueueConsumer[T] { return q.consumer(true) }

func (q *Queue[T]) consumer(thread bool) *QueueConsumer[T] {
	c := &QueueConsumer[T]{q: q}
	c.w.init(thread)
	return c
}

// A QueueConsumer pops from a [Queue] and sleeps while it is empty. It must
// not be used by two goroutines at once.
type QueueConsumer[T any] struct {
	q *Queue[T]
	w waiter
}

// TryPop is [Queue.TryPop].
func (c *QueueConsumer[T]) TryPop(dst []T) int { return c.q.TryPop(dst) }

// Pop is like TryPop, but sleeps while the queue is empty. It returns 0 only
// after Close, when the queue is empty, or if dst is empty.
func (c *QueueConsumer[T]) Pop(dst []T) int {
	if len(dst) == 0 {
		return 0
	}
	q := c.q
	for {
		q.mu.Lock()
		if n := q.remove(dst); n != 0 {
			q.unlockAndWake(false) // each consumer that leaves something wakes the next
			return n
		}
		if q.shut {
			q.mu.Unlock()
			return 0
		}
		c.w.arm()
		c.w.next = q.top
		q.top = &c.w
		q.mu.Unlock()
		c.w.sleep()
	}
}
