// Package storm makes synthetic system-call storms: the targets that a
// supervisor is measured against.
//
// A storm is a separate process, the same binary run again: N threads in a
// closed loop, each making a trapped getppid that does nothing else, then
// computing for the think time. Each call is timed. Counts and histograms lie
// in memory shared with the parent, so that they can be read while the storm
// rages and after it was killed.
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
// A closed loop hides stalls: a thread that waits issues no calls (coordinated
// omission). Programs that use this package must call [Main] first thing in
// main, and their tests in TestMain.
package storm
