package peers

// element is an element type: the first word is its number, from 1.
type element interface{ e8 | e80 }

type (
	e8  [1]uint64
	e80 [10]uint64
)

func number[T element](i uint64) (e T) {
	e[0] = i
	return e
}

// A tally counts elements, and adds up their numbers, so that a loss and a
// duplicate cannot hide each other.
type tally struct{ n, sum uint64 }

func (t *tally) add(number uint64) {
	t.n++
	t.sum += number
}

func (t *tally) join(o tally) {
	t.n += o.n
	t.sum += o.sum
}

// A span is a range of numbers that one producer sends.
type span struct{ first, last uint64 } // both included

// all is the tally of the span.
func (s span) all() tally {
	n := s.last + 1 - s.first
	return tally{n, n*s.first + n*(n-1)/2}
}

// spans divides the numbers from 1 to n among producers.
func spans(n, producers int) []span {
	ss := make([]span, producers)
	next := uint64(1)
	for i := range ss {
		k := uint64((n + i) / producers)
		ss[i] = span{next, next + k - 1}
		next += k
	}
	return ss
}

// work computes on *x for about a nanosecond per round.
//
//go:noinline
func work(rounds int, x *uint64) {
	y := *x
	for range rounds {
		y = y*6364136223846793005 + 1442695040888963407
	}
	*x = y
}
