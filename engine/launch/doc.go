// Package launch starts a command under a seccomp filter whose calls this
// process supervises.
//
// That is harder than it looks. The obvious way, notify.Install on a locked
// thread and then os/exec on it, deadlocks: the child of Go's fork waits for its
// trapped execve to be answered, the parent waits for the child in a system
// call that looks to the Go runtime like one that returns at once, and the
// supervisor's next stop of the world, for a garbage collection, waits for the
// parent. [Start] needs no stop of any thread of this process.
//
// # The parts
//
//	this process ──fork──► guard ──vfork──► the command
//	     ▲  control socket   │                 │ installs the filter on itself,
//	     └───────────────────┘                 │ waits until its listener is served,
//	        listener, signals, end             └ then execve
//
// The guard is a small process in C, without a thread of the Go runtime. It
// stays between the two, in the command's process group and cgroup: a signal
// that it gets has gone to all of them ([Saw]), which siginfo does not tell. It
// is a subreaper, so that what outlives the command becomes its child; when
// this process dies, it kills them all ([Command].Leave).
//
// What the command inherits is what this process was started with, not what the
// Go runtime has made of it: a C constructor recorded that before the runtime
// began. Ignored and blocked signals, pending ones, closed standard descriptors,
// the limit of open files, interval timers, the parent-death signal, the
// subreaper flag and SCHED_RESET_ON_FORK are restored.
//
// # Without cgo
//
// The constructor and the guard are C. In a build without cgo this program is run
// again to become the command, for which main must call [Init] first. There is
// then no guard ([Guarded]): the command goes on when this process dies, and
// no_new_privs is always set. Of the ignored signals only HUP and INT, and of what
// is listed above only the limit of open files, are as they were.
package launch
