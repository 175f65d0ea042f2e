// Package storm makes synthetic system-call storms: the targets that a
// supervisor is measured against.
//
// A storm is a separate process, the same binary run again: N threads that make
// trapped calls, getppid or a [Mix] of calls, some with paths in their memory. Each
// call is timed. Counts and histograms lie in memory shared with the parent, so
// that they can be read while the storm rages and after it was killed.
//
// # Closed and open loops
//
// In a closed loop each thread calls again once it has its answer and has thought
// ([Think]): there are never more calls than threads, and a supervisor that stalls
// is asked for less. That hides stalls (coordinated omission): the calls that would
// have been made meanwhile, and would have waited, are never made.
//
// In an open loop calls have intended starts: a schedule, made by an arrival
// process ([Process]) or by anything else that is [Arrivals], such as a recording.
// The schedule lies in the shared memory; the threads take its calls in order,
// each sleeps until its call's time and makes it. A latency from the intended start
// (corrected) shows what one from when the call was made (uncorrected) does not.
// An open loop needs more threads than are ever held up: a call that a thread takes
// after its time, because it had none earlier, is late, and with more late calls
// than one in a thousand the load was not what it should have been, which [Window.Void] says.
//
// To storm with a load of one's own, implement [Arrivals], or hand a []Arrival to
// [Config]: for each call its time, which call it is, and a tag that the supervisor
// finds in the sixth argument, to tell it how long to work, for instance.
//
// # Hostile targets
//
// [Hostile] targets do not wait in peace: they are killed with their calls, signalled,
// replaced by others, stopped by their own runtime. Such a storm is not for its speed
// but for what must hold in it: targets that live have their answers, the storm ends,
// and a supervisor's answers that no target saw are no more than [Report.Disturbed].
// Killed and forked targets are processes of their own, whose CPU time [Storm.CPU]
// does not have.
//
// # How the threads stay out of each other's way
//
// A target thread must wait for its answer and for nothing else, or the storm
// measures the Go scheduler. So the target process has more processors in the
// scheduler's sense (GOMAXPROCS) than threads, its threads are locked and call
// by raw system calls, and neither the garbage collector nor SIGURG preemption
// ever stops them (SIGURG would also interrupt the trapped calls, which would
// then notify twice). They wait for the start on a futex, and their loop calls
// nothing that looks at its stack's limit: there, a goroutine that has run for
// 10 ms yields, and a locked thread comes back only when another wakes it. That
// alone cost 64 threads a twentieth of their speed.
//
// # Traps
//
// Programs that use this package must call [Main] first thing in main, and their
// tests in TestMain.
//
// A thread sleeps until an intended start, and wakes up late: some tens of µs on a
// virtual machine. [Window.Lag] has it; it is part of the corrected latency.
package storm
