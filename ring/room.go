package ring

// A gate is where a producer sleeps until there is room. One at a time does;
// others who want to wait queue for mu.
//
// Consumers look at resume after each claim, so it is on a line that is written only when
// somebody falls asleep or is woken.
type gate struct {
	_      pad
	resume atomicUint64 // 0: nobody sleeps; else twice the head position that ends the sleep, plus 1
	_      pad
	mu     mutex
	tok    token
}

// PushWait appends all of src, in batches as large as there is room for, and sleeps while there is
// none. It reports the number appended: fewer than asked only if the ring is closed, and then
// the rest of src still belongs to the caller.
//
// A sleeping producer is woken when half of the ring is free, not by the first
// free place: two who move one entry at a time to and fro spend their time on waking
// each other. If consumers stop popping before that, it sleeps on.
//
// Under [SingleProducer], PushWait counts as a push, and Close is no way to end its
// sleep. Producers that use it take turns; Push and PushDrop of others do not wait for them.
func (r *Ring[H]) PushWait(src []H) int {
	n, _ := r.push(src, nil, wait)
	return n
}

// pushRest goes on with a PushWait that has appended src[:n] and found no more room.
func (r *Ring[H]) pushRest(src []H, n int) int {
	if !r.single {
		r.gate.mu.Lock()
	}
	for m := mark(); n < len(src) && !r.isShut(); rewind(m) {
		r.awaitRoom()
		n += r.Push(src[n:])
	}
	if !r.single {
		r.gate.mu.Unlock()
	}
	return n
}

// isShut reports whether Close has been called, to a producer.
func (r *Ring[H]) isShut() bool {
	if r.single {
		return r.shut
	}
	r.pmu.Lock()
	shut := r.shut
	r.pmu.Unlock()
	return shut
}

// awaitRoom sleeps while the ring is full and open, normally until half of it is free.
func (r *Ring[H]) awaitRoom() {
	h := r.head.Load()
	var t uint64
	if r.single {
		t = r.next
	} else {
		t = r.tail.Load()
	}
	if t-h != r.limit {
		return
	}
	// Full, and full it stays as long as the head does not move.
	w := (h+(r.limit+1)/2)<<1 | 1
	r.gate.resume.Store(w)
	at(pointAwait)
	// Announced: whoever moves the head from here on finds us when it has
	// moved far enough, and who closes does too.
	if r.head.Load() == h && !r.isShut() || !r.gate.resume.CompareAndSwap(w, 0) {
		r.gate.tok.acquire() // somebody owes it, or will
	}
}

// passed wakes the sleeping producer, if any, for whom the head has come far enough.
func (g *gate) passed(head uint64) {
	if w := g.resume.Load(); w != 0 && int64(head<<1|1-w) >= 0 {
		g.wake(w)
	}
}

// wake wakes the producer that asked for w, unless somebody else does.
func (g *gate) wake(w uint64) {
	if g.resume.CompareAndSwap(w, 0) {
		g.tok.release()
	}
}
