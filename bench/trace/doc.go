// Package trace measures a supervisor from outside, by eBPF on the kernel's
// system call tracepoints: how long notifications wait from their receive to
// their dispatch, and how long until they are answered or dropped. It needs
// nothing from the supervisor, so it works on any program that uses the notify
// ioctls, and it is the second clock against which the engine's own is checked.
//
// Two programs (bpf/trace.bpf.c) follow the ioctls of one process or of all, by
// notification id, and sort the times into the buckets of package engine/hist
// inside the kernel:
//
//	exit of RECV             received
//	entry of ID_VALID, first dispatched: the end of Wait
//	SEND, or ADDFD that also answers
//	  entry, if it worked    answered: the end of Answer; or, with EINTR (or
//	                         Config.DropErrno) and never dispatched, dropped:
//	                         the end of Drop
//	any of them, ENOENT      stale
//
// With Config.Stages two more, on sched_switch and sched_waking, follow the targets
// too: each call from its trap until the target is back (Stage), and with
// Config.Explain what the threads of the slowest did meanwhile (Call). See
// bpf/stages.h for how a target is told to be a notification's. `unknot trace`
// prints it all.
//
// They attach to the BTF tracepoints sys_enter and sys_exit, or, where the
// kernel has no BTF, to the raw ones; neither needs tracefs. They see every
// system call, so others on the machine pay some 150 ns for each. The tracepoints
// of ioctl alone (syscalls:sys_enter_ioctl) would take 100 ns off that, but need
// tracefs and cost a supervisor more: with empty programs its throughput fell to
// 0.84 of the untraced, with the BTF ones to 0.89 (Linux 6.18, 2 virtual CPUs, 16
// targets); with the programs here it falls to 0.83. BenchmarkTracing and
// BenchmarkBystander measure it anew.
//
// Traps:
//
//   - Dispatch is visible only in supervisors that call ID_VALID when they start
//     on a notification, as the engines here do. In others Wait stays empty.
//   - A handler that answers EINTR itself, without ID_VALID, looks like a drop.
//   - Tracing slows the supervisor and all else: never compare the throughput of
//     a traced run with that of an untraced one.
//   - A notification whose target died, and that the supervisor forgets without
//     asking, keeps its place in the table; so do those of a supervisor that was
//     killed. When places run out, Overflow counts.
//   - Two notifications in flight with the same id are taken for one. Ids start
//     at a random 64-bit number in each filter, so that is not to be expected.
//   - Supervisors that run as 32-bit programs on a 64-bit kernel are not seen.
package trace
