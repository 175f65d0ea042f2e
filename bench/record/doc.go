// Package record writes down what load a supervisor has: when calls are made, by
// how many threads, and how long they wait and are served. It is what a queue is
// sized for, and what a storm can repeat. docs/recording.md says how, what it costs,
// and has the file format.
//
// [Record] follows any supervisor by the kernel's tracepoints. A [Recording] is one
// row for each call; every figure (rate, burstiness, think time, service times by
// system call, calls in flight) is computed from the rows by its methods. No
// arguments, paths, values or names are stored.
//
// Traps:
//
//   - Service times are known only where dispatch is visible; see [Recording.Service].
//   - In a closed loop the arrivals depend on the answers: they are those of the
//     supervisor that was recorded, and a faster one would have got more. See
//     [Recording.Feedback] and [Recording.Think].
//   - A call whose trap was not seen is put at its receive, and then the
//     supervisor's own backlog looks like bursts. See [Recording.Trapped].
package record
