// Package osthread starts goroutines on OS threads of their own, for code that
// changes its thread for good: a seccomp filter, landlock, an affinity, a
// private file table.
//
// A goroutine that calls runtime.LockOSThread and never unlocks takes its
// thread with it when it ends, so such changes cannot leak into the rest of
// the program; and the Go runtime never clones new threads from a locked one.
// The trap is the main thread: a fresh goroutine may well run on it, it does
// not end with its goroutine, and /proc/self describes it. Start therefore
// never uses the main thread.
package osthread
