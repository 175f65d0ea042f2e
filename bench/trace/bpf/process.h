/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Whose system calls count. */
#ifndef UNKNOT_PROCESS_H
#define UNKNOT_PROCESS_H

#include "kernel.h"

/* Set before loading; the verifier removes what they make unreachable. */
volatile const __u32 tgid;    /* 0: every process */
volatile const bool in_pidns; /* tgid is a number in the PID namespace pidns_dev, pidns_ino */
volatile const __u64 pidns_dev;
volatile const __u64 pidns_ino;

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
	return !bpf_get_ns_current_pid_tgid(pidns_dev, pidns_ino, &ns, sizeof(ns)) && ns.tgid == tgid;
}

#endif
