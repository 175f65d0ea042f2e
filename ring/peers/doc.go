// Package peers measures package ring beside the queues that it could be
// replaced with: the built-in channel, the MPMC queue of puzpuzpuz/xsync, a
// mutex deque in the manner of Rust's flume, the turn-per-slot form of
// D. Vyukov, the RTS form of DPDK's rte_ring, and the mutex queue of package
// ring itself. It is a module of its own, so that what it compares with is
// no dependency of ours, and has nothing to import: all of it is benchmarks.
//
// Run it by `make bench-ring`, which interleaves whole passes over all
// benchmarks and prints benchstat's table, one column for each queue, and the ratios to chan.
//
// # Benchmarks
//
// Every benchmark adds up what it receives and fails if an element is missing
// or came twice. Elements are of 8 or of 80 bytes (the size of a seccomp
// notification). Each queue is driven by the loop that its user would write,
// without an interface in between.
//
//   - Throughput: 1 or 4 producers, 1 or 4 consumers, capacity 1024, time per
//     element until all have come out. With wait=sleep consumers sleep while there is
//     nothing; with wait=poll they yield and look again, which is all that
//     queues without sleeping consumers offer. Producers that find no room
//     sleep where the queue can do that (chan, ring, queue, flume), else yield.
//   - Overload: producers push all they can and drop the oldest, consumers
//     work for about 1 µs on each element, capacity 256; producers' time per element.
//   - Handoff: one element at a time to a consumer that sleeps; the time from
//     before the push until the consumer has it, and the process's CPU time.
//   - Stall: consumers are descheduled for 5 ms in the middle of a removal; how long
//     the producer's calls take. It needs the hooks of a build with the tag ringchaos.
//   - Calibration: a fixed computation, which shows whether the machine was
//     the same all along.
//
// # Queues
//
//   - chan: buffered channel; drops by select with default, twice
//   - ring: ring.Ring of words; 80-byte elements are in a ring.Slab for each producer
//   - ring-evict16: with EvictAtLeast(16)
//   - ring-asym, ring-asym-evict64: with AsymmetricFence and EvictAtLeast(16), or 64
//   - ring-yield, ring-thread: with YieldOnWake; with a ThreadConsumer
//   - ring-thread-near: a ThreadConsumer bound to the processor that its producer is bound to
//   - queue: ring.Queue, the mutex sibling
//   - flume: one mutex, a deque that grows, a list of sleepers, one element at a time
//   - xsync: xsync.MPMCQueue; Try methods only
//   - vyukov, rts: forms of ring/internal/forms, with batches
//
// A row is absent for code.hybscloud.com/lfq: proxy.golang.org refuses that
// module in every version (403 Forbidden, 2026-11-24; under the name
// github.com/hayabusa-cloud/lfq too), so its figures could not be reproduced.
package peers
