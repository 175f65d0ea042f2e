/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Whose system calls count. */
#ifndef UNKNOT_PROCESS_H
#define UNKNOT_PROCESS_H

#include "kernel.h"

/*
 * Set before loading; the verifier removes what they make unreachable. User space
 * knows processes and threads by their numbers in its own PID namespace.
 */
volatile const __u32 tgid;    /* 0: every process */
volatile const bool in_pidns; /* that is not the machine's first, but this: */
volatile const __u64 pidns_dev;
volatile const __u64 pidns_ino; /* 0: unknown */

__u32 pidns_depth; /* its level + 1; 0: nobody in it was seen yet */

#define MAX_PID_NS_LEVEL 32

/* at_level returns the number that p has at a level, if that is in user space's namespace. */
INLINE __u32 at_level(const struct pid *p, __u32 level)
{
	struct {
		__s32 nr;
		struct pid_namespace *ns;
	} u = {};
	__u32 inum = 0;

	if (bpf_probe_read_kernel(&u, sizeof(u), (const char *)&p->numbers[0] + level * sizeof(u)))
		return 0;
	if (bpf_probe_read_kernel(&inum, sizeof(inum), &u.ns->ns.inum) || inum != pidns_ino)
		return 0;
	return u.nr;
}

/* number_here returns the number of a thread in user space's PID namespace; 0: it has none there. */
INLINE __u32 number_here(struct task_struct *t)
{
	struct pid *p;
	__u32 nr, level, depth = pidns_depth;

	if (!in_pidns)
		return t->pid;
	if (!pidns_ino)
		return 0;
	p = t->thread_pid;
	if (!p)
		return 0;
	level = p->level;
	if (depth)
		return level + 1 < depth ? 0 : at_level(p, depth - 1);
	for (__u32 i = 0; i <= MAX_PID_NS_LEVEL && i <= level; i++) {
		nr = at_level(p, i);
		if (nr) {
			pidns_depth = i + 1;
			return nr;
		}
	}
	return 0;
}

/* The calling process. */
INLINE __u32 self(bool btf)
{
	struct task_struct *t;

	if (!btf)
		return bpf_get_current_pid_tgid() >> 32;
	t = bpf_get_current_task_btf(); /* inlined by newer kernels: a quarter of the time */
	return t->tgid;
}

INLINE bool ours(bool btf)
{
	struct bpf_pidns_info ns = {};

	if (!tgid)
		return true;
	if (!in_pidns)
		return self(btf) == tgid;
	if (btf) { /* in a namespace inside that one, too */
		struct task_struct *t = bpf_get_current_task_btf();

		return number_here(t->group_leader) == tgid;
	}
	return !bpf_get_ns_current_pid_tgid(pidns_dev, pidns_ino, &ns, sizeof(ns)) && ns.tgid == tgid;
}

#endif
