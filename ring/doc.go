// Package ring holds the queue in the middle of the engine: a bounded
// multi-producer, multi-consumer ring with batched operations that, when it
// is full, can give up its oldest entries to make room for fresh ones.
//
// In the pipeline it stands between the receive loop, which pushes one handle
// per notification, and the workers, which pop them. A handle is a machine
// word, normally an index into a [Slab]; whoever a handle is given to owns
// what it names, and no handle is ever given to two callers or to none:
//
//   - [Ring.Push], [Ring.PushWait] and [Ring.PushDrop] take ownership of what they append;
//   - [Ring.PushWait] sleeps while there is no room;
//   - [Ring.PushDrop] hands the oldest entries back in evicted when there is
//     no room;
//   - [Ring.TryPop] and [Consumer.Pop] hand entries to a consumer.
//
// # Algorithm
//
// Entries are read first and claimed afterwards, by one compare-and-swap of
// the head position for the whole batch; consumers and evicting producers use
// the same word, so each position has exactly one winner. A goroutine that is
// descheduled between the read and the claim owns nothing and holds nobody
// up; one that is descheduled after the claim is already done. The Go
// scheduler's own run queue steals batches in this way (runqgrab in
// runtime/proc.go), and evicts in this way too (runqputslow); unlike the
// turn-per-slot rings in the tradition of D. Vyukov, or the tail-chasing
// modes of DPDK's rte_ring, there is no window in which a stalled party makes
// others wait or lets them see an order that never was.
//
// Batches are atomic but may be short: an operation moves between one and all
// of what was asked, and zero only if the ring was truly full (Push) or empty
// (TryPop, Pop) at one instant during the call.
//
// Every word is linearizable without locks between consumers and a single
// producer. Several producers exclude each other with a mutex.
//
// # Where the time goes
//
// One atomic read-modify-write is most of a push, and most of a pop, of a single
// entry. A cache line that goes to another processor costs more, so none
// goes without need: constants are apart from what producers write,
// producers remember a head and consumers a tail, and the words that say who
// sleeps are written only by those who fall asleep or wake somebody.
//
// A consumer neither spins nor yields before it sleeps: one that looks at the tail while
// it is being written makes each push pay for the line. It is cheaper to take
// long turns, often on one processor; hence a producer in [Ring.PushWait]
// sleeps until half of the ring is free.
//
// # Traps
//
// An entry that a consumer has popped can no longer be evicted: besides the
// capacity, up to consumers × batch entries are in flight.
//
// The queue does not decide how fast a sleeping consumer starts; the scheduler
// does. See [YieldOnWake] and [Ring.ThreadConsumer].
//
// The slots are read with plain loads that may race with a producer; what a
// lost race has read is discarded. Builds with the race detector, and builds
// with the tag ringatomic, use atomic slots instead.
package ring
