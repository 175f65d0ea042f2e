package ring

import "math"

// A ration is how many batches of a ring may be in consumers' hands at once.
//
// A consumer takes its part of it before it pops, so that there are never more, and passes the ring
// by when there is none. Whoever gives a part back is to such a consumer what a push is: the one that
// has announced its sleep and then looks again sees it, or is woken.
type ration struct {
	_   pad
	max atomicUint32
	out atomicUint32
	_   pad
}

// Rationed bounds how many batches that consumers of the ring's [Set] have popped and not given back, by
// [Ring.Done], there are at once: n, until [Ring.SetRation] says otherwise. Consumers pass the ring by while
// there are as many, as if it were empty, so that they are there for the set's other rings. Evictions and
// [Ring.TryPop] have no part in it. After [Set.Close], who finds the ration used up is told that nothing is left: the rest
// is for those who have it.
//
// Each batch of a rationed ring must be given back, once. n must be at least 1; [NoRation] is no bound.
func Rationed(n int) Option {
	return func(c *config) { c.rationed, c.ration = true, rationOf(n) }
}

// NoRation is a ration that bounds nothing.
const NoRation = math.MaxInt32

func rationOf(n int) uint32 { return uint32(min(max(n, 1), NoRation)) }

// SetRation changes the ration of a [Rationed] ring. With fewer than there are out, consumers pass
// the ring by until some are given back.
func (r *Ring[H]) SetRation(n int) {
	r.ration.max.Store(rationOf(n))
	if r.lot.waiting() && !r.empty() {
		r.lot.wakeOne(false) // who leaves something behind wakes the next
	}
}

// Done gives back a batch that a consumer has popped from a [Rationed] ring. Anybody may.
func (r *Ring[H]) Done() {
	for m := mark(); ; rewind(m) {
		if n := r.ration.out.Load(); r.ration.out.CompareAndSwap(n, n-1) {
			break
		}
	}
	if r.lot.waiting() && !r.empty() {
		r.lot.wakeOne(false)
	}
}

// Out is how many batches of a [Rationed] ring are in consumers' hands.
func (r *Ring[H]) Out() int { return int(r.ration.out.Load()) }

// popRation is pop within the ration.
func (r *Ring[H]) popRation(dst []H, seen *uint64) int {
	if r.empty() || !r.takeRation() {
		return 0
	}
	n := r.pop(dst, seen)
	if n == 0 {
		r.Done()
	}
	return n
}

func (r *Ring[H]) takeRation() bool {
	for m := mark(); ; rewind(m) {
		n := r.ration.out.Load()
		if n >= r.ration.max.Load() {
			return false
		}
		if r.ration.out.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// usedUp reports whether the ration leaves nothing to take.
func (r *Ring[H]) usedUp() bool {
	return r.rationed && r.ration.out.Load() >= r.ration.max.Load()
}
