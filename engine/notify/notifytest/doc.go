// Package notifytest is the kernel's side of seccomp user notification, without a kernel: filters with listeners, and targets whose calls
// wait there, die, are signalled and come again. What each ioctl answers in which state was read off kernel/seccomp.c; the
// same scripts run on this package and on the running kernel (testdata/scripts), and must print the same.
//
//	k := notifytest.New(notifytest.Linux6_18)
//	f := k.Install(0)
//	t := f.Process().Thread()
//	l := f.Listener()            // a *notify.Listener: give it to an engine, or call its methods
//	t.Start(notify.Data{NR: unix.SYS_GETPPID})
//	…
//	got := t.Wait()              // what the target saw
//
// # States
//
// A notification is INIT from when its target traps until RECV takes it, SENT until SEND answers it, then REPLIED until the
// target runs and takes it off the list. RECV takes the oldest that is INIT. SEND answers ENOENT for an id that is not on the
// list and EINPROGRESS for one that is not SENT; ID_VALID is 0 for SENT alone. A target that dies or is signalled takes its
// notification off in whatever state, but not at once: it has to run first. [Thread.Hold] opens that window.
//
// # Determinism
//
// Nothing happens by itself: each method is one step, and is done when it returns. There is no clock: [Kernel.Spend] is told what each
// step costs, which grows with what is outstanding, and may have a virtual clock pass it (testing/synctest). What
// a seed decides is whoever drives: [Kernel.Fault] is asked before each ioctl what shall go wrong.
//
// # Kernels
//
// A [Profile] says in what kernels differ. What a profile lacks answers as that kernel does.
//
// # With the engine's own system calls
//
// A [Filter.Listener] of an ordinary build is carried ([notify.Carried]): the engine waits for it in the real epoll, on threads of its own,
// in real time. Under the build tag fakekernel the ioctls, epoll, eventfds and threads of the engine are this package's, too
// (Kernel.Use), so that a run is as repeatable as the Go scheduler: docs/decisions/24-fake-kernel.md.
//
// Not simulated: filters' programs (each call of a thread notifies), nested listeners, pid namespaces, LSMs.
package notifytest
