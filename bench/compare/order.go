package compare

import "math/rand/v2"

// NewSeed returns a seed for an order, or a name for a session, that nobody had.
func NewSeed() uint64 { return rand.Uint64() }

// An order says which command comes first in each round. Rounds come in twos,
// one old-new and one new-old, in a random order: over all rounds each command
// is as often first as second, which a coin for each round would not promise,
// and no period of the machine can fall in step with it.
type order struct {
	rnd     *rand.Rand
	pending bool
	second  bool // who is first in the pending round
}

func newOrder(seed uint64) *order {
	return &order{rnd: rand.New(rand.NewPCG(seed, 0x6f72646572))} // "order"
}

// next returns the sides of the next round: 0 old, 1 new.
func (o *order) next() [2]int {
	if o.pending = !o.pending; o.pending {
		o.second = o.rnd.IntN(2) == 0
	} else {
		o.second = !o.second
	}
	if o.second {
		return [2]int{1, 0}
	}
	return [2]int{0, 1}
}
