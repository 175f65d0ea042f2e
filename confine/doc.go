// Package confine reduces one OS thread to what a receive loop needs: receive,
// answer, log, park. The thread that touches every hostile request then cannot
// open, connect, execute, or map code, even when it is made to try; the rest of
// the process goes on unchanged.
//
// It is made for the receive thread of package engine and knows nothing of it:
// [Prepare] draws three random words and probes the kernel, [Plan.Cookies] go to
// the engine's listeners, and [Plan.Confine] is called on the thread before it
// receives anything:
//
//	plan, err := confine.Prepare(confine.Config{})
//	cfg.Cookies = plan.Cookies()
//	cfg.PrivateFiles = plan.Level() == confine.Private
//	cfg.ThreadHook = func(th engine.Thread) error {
//		st, err := plan.Confine(confine.Thread(th))
//		// log st
//		return err
//	}
//
// In this order, each step an error that ends the thread: mask the signals,
// no_new_privs, no speculative store bypass (best effort, reported), a file
// table of its own (unshare) without what it does not need (close_range),
// landlock that allows nothing, and last a seccomp filter whose default is to
// kill the process. Then another thread looks at this one from outside, in
// /proc/self/task, and only if everything is as it should be does Confine
// return nil. [Rules] is the filter's table with the reason for each line;
// docs/confine.md is made from it.
//
// Steps may be refused, as by a container's seccomp profile. The error names the
// call; [Config.Best] goes on without instead. A kernel without landlock is no
// error unless [Config.RequireLandlock]; [Plan.Missing] tells of it.
//
// # What a confined thread can no longer do
//
// Everything that is not in the table kills the process, or for files fails with
// ENOSYS. Others must do it, before or for it: SET_FLAGS, ADDFD, affinity,
// epoll_ctl, timers, opening files. An inline handler of the engine runs on this
// thread, so it may compute and answer, nothing else. What package engine offers beyond
// (AddFD, a target's memory) fails here with engine.ErrConfined. Try other handlers with
// [Trap], which prints the Go stack of what would have been killed.
//
// # What it does not give
//
// It is no boundary against code execution: the thread shares its memory with
// the rest of the process, and who owns it can write another thread's stack. It
// bounds what hostile *requests* can make the thread do, and it fails closed.
//
// The Go runtime shares the thread too, so the table has what a thread that
// starts a garbage collection, stops the world or ends may call. For the same
// reason the runtime's poller, an epoll instance and an eventfd, stays open in
// a private file table: without it the next garbage collection would be fatal.
//
// # Afterwards
//
// As long as a confined thread lives, the process must not change its user or
// group ids (unless [Config.UIDs] and [Config.GIDs] allow it), nor use
// syscall.AllThreadsSyscall or psx: these run a system call on every thread,
// which kills the process here. A filter cannot be spread over all threads
// either (SECCOMP_FILTER_FLAG_TSYNC fails). debug.SetCrashOutput would have a
// panic of the confined thread write to one more descriptor: do not use it.
// Do not call cgo on the thread. With GODEBUG=efence=1 the runtime needs
// mprotect, which is not allowed.
//
// The listener is open twice at level [Private]: in the thread's own table and
// in the process's. Targets see ENOSYS only once both are closed. The thread may
// close its own; its end closes it too.
package confine
