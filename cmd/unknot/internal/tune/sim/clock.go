package sim

import "container/heap"

// An event happens at a time of the simulation's clock; those of one time in
// the order in which they were asked for.
type event struct {
	at    int64
	seq   uint64
	do    func()
	place int
	next  *event // among the spare ones
}

type events []*event

func (h events) Len() int { return len(h) }
func (h events) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}
func (h events) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}
func (h *events) Push(x any) {
	e := x.(*event)
	e.place = len(*h)
	*h = append(*h, e)
}
func (h *events) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	e.place = -1
	return e
}

// at has do called at a time that is not in the past.
func (s *sim) at(t int64, do func()) *event {
	s.seq++
	e := s.spare
	if e == nil {
		e = new(event)
	} else {
		s.spare = e.next
	}
	*e = event{at: max(t, s.now), seq: s.seq, do: do}
	heap.Push(&s.events, e)
	return e
}

func (s *sim) after(d int64, do func()) *event { return s.at(s.now+d, do) }

// cancel takes back an event that has not happened, if there is one. Whoever
// keeps an event forgets it when it happens: it is used again.
func (s *sim) cancel(e *event) {
	if e != nil {
		heap.Remove(&s.events, e.place)
		s.release(e)
	}
}

func (s *sim) release(e *event) {
	e.do, e.next = nil, s.spare
	s.spare = e
}

// runUntil lets everything happen up to t.
func (s *sim) runUntil(t int64) {
	for len(s.events) > 0 && s.events[0].at <= t {
		e := heap.Pop(&s.events).(*event)
		s.now = e.at
		do := e.do
		s.release(e)
		do()
	}
	s.now = t
}

// A fifo is a queue of calls.
type fifo struct {
	calls []*call
	first int
}

func (q *fifo) len() int { return len(q.calls) - q.first }

func (q *fifo) push(c *call) {
	if q.first > 64 && q.first*2 > len(q.calls) {
		q.calls = q.calls[:copy(q.calls, q.calls[q.first:])]
		q.first = 0
	}
	q.calls = append(q.calls, c)
}

func (q *fifo) pop() *call {
	c := q.calls[q.first]
	q.calls[q.first] = nil
	q.first++
	return c
}
