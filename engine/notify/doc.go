// Package notify is the kernel's seccomp user notification interface, typed:
// install a filter, receive notifications from its listener, answer them.
//
// It is the bottom of unknot: package engine builds its receive loop on it, a
// storm installs its trap with it. It uses raw system calls only, needs no cgo
// and allocates nothing once a [Listener] exists.
//
// The kernel side is kernel/seccomp.c (seccomp_notify_recv, seccomp_notify_send,
// seccomp_notify_id_valid, seccomp_notify_addfd, seccomp_notify_set_flags,
// seccomp_notify_poll) and seccomp_unotify(2). What it does not say loudly:
//
//   - [Listener.Recv] blocks when nothing is pending; O_NONBLOCK has no effect
//     and EAGAIN never comes. Only with exactly one reader does EPOLLIN promise
//     that Recv will not block. Use one reader for each listener.
//
//   - Poll level-triggered, subscribe EPOLLIN only, test bits. EPOLLERR may be
//     spurious. EPOLLHUP means that no target is left and stays until the
//     descriptor is removed; from then on Recv may return ENOENT at once for ever.
//
//   - ENOENT is a normal outcome of every call: the target died, or was
//     interrupted and will notify again under a new id.
//
//   - EINTR means that *our* thread was signalled and nothing was done. Send,
//     IDValid and AddFD repeat the call themselves, because a caller that forgets
//     to leaves a target hanging; Recv returns it, because there it may be wanted.
//
//   - A signal that reaches the target before [Listener.Recv] ends its call with
//     EINTR, unrun, unless the handler has SA_RESTART; [WaitKillableRecv] covers only
//     the time after. Programs do not expect that of close, clone, pipe or connect:
//     some per cent of such calls under a signal each millisecond fail or, worse,
//     are taken for made (docs/decisions/19-signal-before-receive.md). Receive
//     eagerly, and trap such calls only where you must.
//
// [Classify] says what each errno of each ioctl means for a receive loop.
package notify
