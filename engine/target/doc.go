// Package target is the thread that made a trapped call, as its supervisor may look at it and act for it: its
// memory, its descriptors, who it is, and opening files in its place. It stands beside the answer: a
// handler gets a [Target] by engine.Request.Target, or, without the engine, by [New] from a listener and a
// notification.
//
//	func handle(r engine.Request) {
//		t, d := r.Target(), r.Data()
//		path, err := t.String(d.Args[1], target.PathMax)
//		if err != nil {
//			_ = r.Fail(target.Errno(err, unix.EPERM))
//			return
//		}
//		// ...
//	}
//
// # What is true of a result
//
// A thread id says nothing for long: the target may die, and its id become a stranger's. So what was read is
// handed out only if the kernel says *afterwards* that the notification still waits
// (SECCOMP_IOCTL_NOTIF_ID_VALID): then the thread existed all the while, and has not executed another program.
// Else the result is [ErrGone], and the bytes that were read are wiped. What is written goes through a
// descriptor of the target's memory (/proc/TID/mem) that was opened before the kernel was asked, and
// stays that memory whoever has the id later.
//
// What is true is that the memory had these bytes. Other threads of the target, and whoever shares its
// memory, may change them at any time, between two pages of one read too.
//
// # A look decides nothing about a call that the kernel makes
//
// When a handler looks at an argument in memory and then answers with Continue, the kernel reads the argument
// again, and the target may have changed it: a deny list of paths with Continue is void. Safe are Fail, Return,
// and to act oneself with the argument that was copied: [Target.OpenAt] and AddFD.
//
// A call that a signal interrupts notifies again, under a new id, when it is restarted. So what a
// handler does may be done twice: make it such that twice is as good as once (open, not append; create without
// O_EXCL, or remember what was made). WAIT_KILLABLE_RECV leaves only the time before the call is received.
//
// # Rights
//
// To look into another process takes ptrace access to it: the same user and a target that may be
// dumped, or CAP_SYS_PTRACE in the target's user namespace; Yama (kernel.yama.ptrace_scope) may ask for more. An
// [*Error] says which was missing.
//
// A target in a user namespace of its own is read and acted for by root, and by the user who made the namespace. It is then
// the user that it is outside, and its capabilities, which are for its namespace, open nothing for it in [Target.OpenAt] and
// [Target.ActAt]; where they matter there is [Target.InUserNamespace]. Who made the namespace and is not root can be no user but
// itself here: for a target that is another of the users mapped there (subordinate ids), only InUserNamespace acts.
//
// A receive thread that has confined itself (package confine) may do none of this: there
// every method returns [ErrConfined], so use the queue path.
//
// The package uses signal 40 to take its own threads out of an open that hangs; see [Target.OpenAt].
package target
