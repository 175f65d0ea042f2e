/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What a supervisor does with its notifications, seen from outside: two
 * programs, on every system call's entry and exit, follow the notification
 * ioctls by notification id.
 *
 *	exit  RECV, success     received: remember when
 *	enter ID_VALID, first   dispatched: wait = now - received
 *	enter SEND              remember when; the exit says what it was:
 *	exit  SEND, success     answered (service over) or dropped
 *	exit  any, ENOENT       stale: the target is gone
 *
 * The moment of an answer is the entry of its SEND: the exit may come much
 * later, since the woken target may take the CPU first.
 *
 * Two variants of both programs differ in how they read the registers: tp_btf
 * directly, which needs the kernel's BTF; raw_tp by a helper, which does not.
 */
#include "hist.h"

/* Set before loading; the verifier removes what they make unreachable. */
volatile const __u32 tgid;    /* 0: every process */
volatile const bool in_pidns; /* tgid is a number in the PID namespace pidns_dev, pidns_ino */
volatile const __u64 pidns_dev;
volatile const __u64 pidns_ino;
volatile const __s32 drop_errno = -EINTR; /* with which the supervisor answers what it drops */

/*
 * What is counted goes into one of two banks. To forget everything counted so
 * far, user space empties the other bank and switches over: no count is torn.
 */
__u32 bank;

enum stage { WAIT, ANSWER, DROP, STAGES };

/*
 * Rows per CPU with one writer each, so their increments need not be atomic:
 * WAIT and counts of ENTER belong to the program on sys_enter, the rest to the
 * one on sys_exit, and the kernel lets no program run twice at once on a CPU.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2 * STAGES);
	__type(key, __u32);
	__type(value, struct hist);
} hists SEC(".maps");

enum side { ENTER, EXIT, SIDES };

struct counters {
	__u64 received;
	__u64 stale;
	__u64 retried;
	__u64 unmatched;
	__u64 overflow;
	__u64 unread;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2 * SIDES);
	__type(key, __u32);
	__type(value, struct counters);
} counts SEC(".maps");

/*
 * The notifications received and not yet answered: an open hash table in an
 * array, since the kernel's hash map took as long as all the rest of these
 * programs. It has a near part, which fits a core's cache and is enough for some
 * hundred in flight, and a far part for MaxInFlight, used when the near one is
 * full: one large table, whose every slot is touched in turn, cost 3% of a
 * supervisor's throughput. A notification lives in the first free slot of
 * NEAR_WAYS slots from its home in the near part on, then FAR_WAYS in the far
 * part; if none is free it is lost, and counted as overflow.
 *
 * Ids are a counter of each filter with a random 64-bit start, so that two
 * listeners have the same id in flight is not to be expected, and the listener
 * need not be part of the key. Multiplied by 2^64 / golden ratio, the ids of one
 * listener are spread evenly however many there are.
 */
struct flight {
	__u64 id; /* 0: the slot is free */
	__u64 received;
	__u64 dispatched; /* first ID_VALID; 0: none yet */
	__u64 answered;   /* entry of the last SEND; 0: none yet */
};

volatile const __u32 near_log2 = 10; /* log2 of the size of the near part */
volatile const __u32 far_log2 = 17;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, (1 << 10) + (1 << 17));
	__type(key, __u32);
	__type(value, struct flight);
} flights SEC(".maps");

#define NEAR_WAYS 4
#define FAR_WAYS 8
#define WAYS (NEAR_WAYS + FAR_WAYS)

/* slot returns the n-th place where the notification with this hash may be. */
INLINE struct flight *slot(__u64 hash, __u32 n)
{
	__u32 k;

	if (n < NEAR_WAYS)
		k = ((hash >> (64 - near_log2)) + n) & ((1U << near_log2) - 1);
	else
		k = (1U << near_log2) + (((hash >> (64 - far_log2)) + n) & ((1U << far_log2) - 1));
	return bpf_map_lookup_elem(&flights, &k);
}

INLINE __u64 hash(__u64 id)
{
	return id * 0x9e3779b97f4a7c15ULL;
}

INLINE struct flight *find(__u64 id)
{
	__u64 h = hash(id);

	if (!id)
		return 0; /* asked for by programs that test whether a descriptor is a listener */
#pragma unroll
	for (int i = 0; i < WAYS; i++) {
		struct flight *f = slot(h, i);

		if (f && f->id == id)
			return f;
	}
	return 0;
}

/* claim takes a free slot: id goes in first, and nobody asks for it before its RECV returned. */
INLINE struct flight *claim(__u64 id)
{
	__u64 h = hash(id);

#pragma unroll
	for (int i = 0; i < WAYS; i++) {
		struct flight *f = slot(h, i);

		if (f && !f->id && !__sync_val_compare_and_swap(&f->id, 0, id))
			return f;
	}
	return 0;
}

/* release frees a slot: an exchange, so that what was read from it is not read later than that. */
INLINE void release(struct flight *f)
{
	__sync_lock_test_and_set(&f->id, 0);
}

#define COUNT(side, field)                                                     \
	do {                                                                   \
		__u32 _k = (bank & 1) * SIDES + side;                          \
		struct counters *_c = bpf_map_lookup_elem(&counts, &_k);       \
		if (_c)                                                        \
			_c->field++;                                           \
	} while (0)

INLINE void record(enum stage stage, __u64 from, __u64 to)
{
	__u32 key = (bank & 1) * STAGES + stage;
	struct hist *h = bpf_map_lookup_elem(&hists, &key);
	__u64 v = to - from;
	__u32 i;

	if (!h)
		return;
	i = hist_index(v);
	asm volatile("" : "+r"(i)); /* hides from the compiler that i is in range, which the verifier cannot see */
	if (i < BUCKETS)
		h->counts[i]++;
	h->sum += v;
	if (v > h->max)
		h->max = v;
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
	return !bpf_get_ns_current_pid_tgid(pidns_dev, pidns_ino, &ns, sizeof(ns)) && ns.tgid == tgid;
}

INLINE void on_enter(__u32 cmd, const void *arg, bool btf)
{
	struct flight *f;
	__u64 id, now;

	if (cmd != NOTIF_ID_VALID && cmd != NOTIF_SEND && cmd != NOTIF_ADDFD)
		return;
	if (!ours(btf))
		return;
	now = bpf_ktime_get_ns();
	if (bpf_probe_read_user(&id, sizeof(id), arg)) {
		COUNT(ENTER, unread);
		return;
	}
	f = find(id);
	if (!f)
		return;
	if (cmd != NOTIF_ID_VALID) {
		f->answered = now;
		return;
	}
	if (f->dispatched)
		return; /* asked again */
	f->dispatched = now;
	record(WAIT, f->received, now);
}

INLINE void exit_receive(const void *arg)
{
	struct flight *f;
	__u64 id;

	COUNT(EXIT, received);
	if (bpf_probe_read_user(&id, sizeof(id), arg)) {
		COUNT(EXIT, unread);
		return;
	}
	f = claim(id);
	if (!f) {
		COUNT(EXIT, overflow);
		return;
	}
	f->dispatched = 0;
	f->answered = 0;
	f->received = bpf_ktime_get_ns();
}

/* The notification at f is done with: answered, if ret says so, or stale. */
INLINE void finish(struct flight *f, bool drop, long ret)
{
	__u64 to;

	if (ret < 0) {
		COUNT(EXIT, stale);
	} else {
		/* If the id could not be read at the entry, this moment has to do. */
		to = likely(f->answered) ? f->answered : bpf_ktime_get_ns();
		record(drop && !f->dispatched ? DROP : ANSWER, f->received, to);
	}
	release(f);
}

INLINE void exit_other(__u32 cmd, const void *arg, long ret)
{
	struct seccomp_notif_resp resp = {};
	struct flight *f;
	bool answers;
	__u32 size;

	/* All three begin with the id; ADDFD's flags are where val is. */
	size = cmd == NOTIF_SEND ? sizeof(resp) : cmd == NOTIF_ADDFD ? sizeof(struct seccomp_notif_addfd) : sizeof(resp.id);
	if (bpf_probe_read_user(&resp, size, arg)) {
		COUNT(EXIT, unread);
		return;
	}
	answers = cmd == NOTIF_SEND || (cmd == NOTIF_ADDFD && (resp.val & ADDFD_FLAG_SEND));
	if (answers && ret == -EINTR)
		COUNT(EXIT, retried);
	if (ret != -ENOENT && (ret < 0 || !answers))
		return; /* still to be answered */
	f = find(resp.id);
	if (f)
		finish(f, cmd == NOTIF_SEND && resp.error == drop_errno, ret);
	else if (ret >= 0)
		COUNT(EXIT, unmatched);
}

INLINE void on_exit(__u32 cmd, const void *arg, long ret, bool btf)
{
	if (cmd == NOTIF_ID_VALID && likely(!ret))
		return;
	if (cmd != NOTIF_RECV && cmd != NOTIF_SEND && cmd != NOTIF_ID_VALID && cmd != NOTIF_ADDFD)
		return;
	if (!ours(btf))
		return;
	if (cmd != NOTIF_RECV)
		exit_other(cmd, arg, ret);
	else if (likely(!ret))
		exit_receive(arg);
}

SEC("tp_btf/sys_enter")
int enter_btf(__u64 *ctx)
{
	struct pt_regs *regs;

	if (ctx[1] != NR_ioctl)
		return 0;
	regs = (struct pt_regs *)ctx[0];
	on_enter(REGS_ARG2(regs), (const void *)REGS_ARG3(regs), true);
	return 0;
}

SEC("tp_btf/sys_exit")
int exit_btf(__u64 *ctx)
{
	struct pt_regs *regs = (struct pt_regs *)ctx[0];

	if (REGS_NR(regs) != NR_ioctl)
		return 0;
	on_exit(REGS_ARG2(regs), (const void *)REGS_ARG3(regs), ctx[1], true);
	return 0;
}

/* Without BTF: the registers are copied. */
SEC("raw_tp/sys_enter")
int enter_raw(__u64 *ctx)
{
	const struct fixed_regs *regs;
	__u64 cmd, arg;

	if (ctx[1] != NR_ioctl)
		return 0;
	regs = (const struct fixed_regs *)ctx[0];
	bpf_probe_read_kernel(&cmd, sizeof(cmd), &REGS_ARG2(regs));
	bpf_probe_read_kernel(&arg, sizeof(arg), &REGS_ARG3(regs));
	on_enter(cmd, (const void *)arg, false);
	return 0;
}

SEC("raw_tp/sys_exit")
int exit_raw(__u64 *ctx)
{
	const struct fixed_regs *regs = (const struct fixed_regs *)ctx[0];
	__u64 nr, cmd, arg;

	bpf_probe_read_kernel(&nr, sizeof(nr), &REGS_NR(regs));
	if (nr != NR_ioctl)
		return 0;
	bpf_probe_read_kernel(&cmd, sizeof(cmd), &REGS_ARG2(regs));
	bpf_probe_read_kernel(&arg, sizeof(arg), &REGS_ARG3(regs));
	on_exit(cmd, (const void *)arg, ctx[1], false);
	return 0;
}

char _license[] SEC("license") = "GPL";
