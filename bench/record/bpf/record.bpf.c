/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * One row for each notification of a supervisor, seen from outside:
 *
 *	sched_switch   a thread with filters leaves its CPU: this may be its trap
 *	exit  RECV     received; the trap was the thread's last switch
 *	exit  ID_VALID dispatched
 *	enter SEND     answered
 *	exit  SEND     how it ended: the row is handed to user space
 *
 * No arguments of the trapped calls are read.
 */
#include <kernel.h>
#include <process.h>

/* What kernel.h lacks. */
enum { BPF_MAP_TYPE_RINGBUF = 27, BPF_RB_NO_WAKEUP = 1 };

static void *(*const bpf_ringbuf_reserve)(void *map, __u64 size, __u64 flags) = (void *)131;
static void (*const bpf_ringbuf_submit)(void *data, __u64 flags) = (void *)132;

/* Another view of the kernel's task_struct. */
struct task_struct___switches {
	unsigned long nvcsw; /* switches of its own accord */
} __attribute__((preserve_access_index));

INLINE __u32 switches_of(struct task_struct *t)
{
	return ((struct task_struct___switches *)t)->nvcsw;
}

/* The head of struct seccomp_notif: no argument. */
struct notif_head {
	__u64 id;
	__u32 pid;
	__u32 flags;
	__s32 nr;
	__u32 arch;
};

/* Set before loading; process.h has more. */
volatile const __s32 drop_error = -EINTR;
volatile const __u32 table_log2 = 16;

__u64 claimed;   /* notifications that are followed */
__u64 finished;  /* of these, answered or stale */
__u64 unmatched; /* answered, and never seen received */
__u64 overrun;   /* finished, and no room to say so */
__u64 missed;    /* could not be read, or had no place */
__u32 level;     /* 1 + the depth of the supervisor's PID namespace; 0: it received nothing yet */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 24);
} rows SEC(".maps");

/* How a call went; times are 0 where nothing was seen. */
struct row {
	__u64 arrival;
	__u64 received;
	__u64 dispatched;
	__u64 answered;
	__u64 away;
	__u32 pid;
	__s32 nr;
	__u32 arch;
	__u32 flags;
};

#define DROPPED 1
#define STALE 2
#define INLINE_ANSWER 4
#define BLOCKED 8
#define SLEPT 16

/* Has bpf2go make the type. */
const struct row *unused_row __attribute__((unused));

/*
 * Threads with filters, by the low bits of their number; one that has the same
 * takes the place, and the other's next trap is not seen.
 */
struct thread {
	__u32 pid;
	__u32 switches; /* its nvcsw when it last left its CPU, */
	__u32 at_call;  /* and at its last trap; 0: none yet */
	__u64 out; /* when it left its CPU; 0: it is on one */
	__u64 who; /* an end, or an exec, gives its number to another */
};

/* who tells a thread from one that had its number, even from its own process's first before an exec. */
INLINE __u64 who(struct task_struct *t)
{
	return t->start_time ^ t->self_exec_id;
}

#define THREADS (1 << 16)

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, THREADS);
	__type(key, __u32);
	__type(value, struct thread);
} threads SEC(".maps");

INLINE struct thread *thread_of(__u32 pid)
{
	__u32 k = pid & (THREADS - 1);

	return bpf_map_lookup_elem(&threads, &k);
}

/* The supervisor's threads, by the low bits of their number. */
struct server {
	__u32 pid;
	__u32 received; /* calls, so that an answer by the same thread before its next receive is known to be */
	__u64 out;      /* when it left its CPU */
	__u64 away;     /* ns that it had none, all in all */
};

#define SERVERS 1024

__u32 servers_tgid; /* their process; 0: it received nothing yet */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SERVERS);
	__type(key, __u32);
	__type(value, struct server);
} servers SEC(".maps");

INLINE struct server *server_of(__u32 pid)
{
	__u32 k = pid & (SERVERS - 1);
	struct server *s = bpf_map_lookup_elem(&servers, &k);

	return s && s->pid == pid ? s : 0;
}

/* serves is server_of, and has pid take the place of another. */
INLINE struct server *serves(__u32 pid)
{
	__u32 k = pid & (SERVERS - 1);
	struct server *s = bpf_map_lookup_elem(&servers, &k);

	if (s && s->pid != pid) {
		s->pid = pid;
		s->received++;
	}
	return s;
}

/* The notifications in flight; see bench/trace for why it is no hash map. */
struct call {
	__u64 id; /* 0: free */
	__u64 arrival;
	__u64 received;
	__u64 dispatched;
	__u64 answered;
	__u64 began; /* the handler's away when it began, */
	__u64 away;  /* and how much that grew while it worked */
	__u32 pid;
	__s32 nr;
	__u32 arch;
	__u32 flags;
	__u32 handler;  /* thread that received or dispatched it, */
	__u32 switches; /* and its switches then */
	__u32 nth;      /* its receiver's count */
	__s32 error;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << 16);
	__type(key, __u32);
	__type(value, struct call);
} calls SEC(".maps");

#define WAYS 8

INLINE struct call *place(__u64 id, int n)
{
	__u32 k = ((id * 0x9e3779b97f4a7c15ULL >> (64 - table_log2)) + n) & ((1U << table_log2) - 1);

	return bpf_map_lookup_elem(&calls, &k);
}

INLINE struct call *find(__u64 id)
{
	if (!id)
		return 0;
#pragma unroll
	for (int i = 0; i < WAYS; i++) {
		struct call *c = place(id, i);

		if (c && c->id == id)
			return c;
	}
	return 0;
}

INLINE struct call *claim(__u64 id)
{
#pragma unroll
	for (int i = 0; i < WAYS; i++) {
		struct call *c = place(id, i);

		if (c && !c->id && !__sync_val_compare_and_swap(&c->id, 0, id))
			return c;
	}
	return 0;
}

#define COUNT(what) __sync_fetch_and_add(&what, 1)

/* The number that the supervisor knows a thread by; 0: none. */
INLINE __u32 number(struct task_struct *t)
{
	struct pid *p;
	__u32 depth = level - 1;
	__s32 nr;

	nr = t->pid;
	asm volatile("" : "+r"(nr)); /* or one load serves for this and for the stack below, which the verifier refuses */
	if (!depth)
		return nr;
	nr = 0;
	p = t->thread_pid;
	if (!p || p->level < depth)
		return 0;
	bpf_probe_read_kernel(&nr, sizeof(nr), (const char *)&p->numbers[0].nr + depth * sizeof(struct upid));
	return nr;
}

INLINE void received(const void *arg)
{
	struct task_struct *cur = bpf_get_current_task_btf();
	struct notif_head n;
	struct server *r;
	struct thread *t;
	struct call *c;
	__u64 now = bpf_ktime_get_ns();

	if (!level) {
		level = cur->thread_pid->level + 1;
		servers_tgid = cur->tgid;
	}
	if (bpf_probe_read_user(&n, sizeof(n), arg)) {
		COUNT(missed);
		return;
	}
	c = claim(n.id);
	if (!c) {
		COUNT(missed);
		return;
	}
	COUNT(claimed);
	c->arrival = c->dispatched = c->answered = 0;
	c->received = now;
	c->pid = n.pid;
	c->nr = n.nr;
	c->arch = n.arch;
	c->flags = 0;
	c->error = 0;
	c->handler = cur->pid;
	c->switches = switches_of(cur);
	c->nth = 0;
	c->began = c->away = 0;
	r = serves(cur->pid);
	if (r) {
		c->nth = ++r->received;
		c->began = r->away;
	}
	t = n.pid ? thread_of(n.pid) : 0;
	if (t && t->pid == n.pid) {
		__u64 out = t->out;
		/* On a CPU still: the trap's switch is to come. */
		__u32 switches = t->switches + (out ? 0 : 1);

		c->arrival = out && out < now ? out : now;
		if (t->at_call && switches - t->at_call > 1)
			c->flags |= SLEPT;
		t->at_call = switches;
	}
}

INLINE void dispatched(const void *arg)
{
	struct task_struct *cur = bpf_get_current_task_btf();
	struct server *s;
	struct call *c;
	__u64 id;

	if (bpf_probe_read_user(&id, sizeof(id), arg)) {
		COUNT(missed);
		return;
	}
	c = find(id);
	if (!c || c->dispatched)
		return;
	s = serves(cur->pid);
	c->began = s ? s->away : 0;
	c->handler = cur->pid;
	c->switches = switches_of(cur);
	c->dispatched = bpf_ktime_get_ns();
}

INLINE void answering(const void *arg, bool addfd)
{
	__u64 now = bpf_ktime_get_ns();
	struct seccomp_notif_resp resp = {};
	struct task_struct *cur = bpf_get_current_task_btf();
	struct server *r = server_of(cur->pid);
	struct call *c;

	if (bpf_probe_read_user(&resp, addfd ? sizeof(struct seccomp_notif_addfd) : sizeof(resp), arg))
		return;
	if (addfd && !(resp.val & ADDFD_FLAG_SEND)) /* its flags are where val is */
		return;
	c = find(resp.id);
	if (!c)
		return;
	/* Again where a signal broke the answer off: each of these is of the last one. */
	c->answered = now;
	c->error = addfd ? 0 : resp.error;
	c->away = r && c->handler == r->pid ? r->away - c->began : 0;
	c->flags &= ~(BLOCKED | INLINE_ANSWER);
	if (r && c->handler == r->pid && r->received == c->nth)
		c->flags |= INLINE_ANSWER;
	if (c->handler != (__u32)cur->pid || c->switches != switches_of(cur))
		c->flags |= BLOCKED;
}

/* hand gives a call's row to user space and forgets the call. */
INLINE void hand(struct call *c, bool stale)
{
	struct row *row = bpf_ringbuf_reserve(&rows, sizeof(*row), 0);
	__u32 flags = c->flags;

	COUNT(finished);
	if (row) {
		if (stale)
			flags |= STALE;
		else if (c->error == drop_error && !c->dispatched)
			flags |= DROPPED;
		row->arrival = c->arrival;
		row->received = c->received;
		row->dispatched = c->dispatched;
		row->answered = c->answered ? c->answered : bpf_ktime_get_ns();
		row->away = c->answered ? c->away : 0;
		row->pid = c->pid;
		row->nr = c->nr;
		row->arch = c->arch;
		row->flags = flags;
		bpf_ringbuf_submit(row, BPF_RB_NO_WAKEUP);
	} else {
		COUNT(overrun);
	}
	__sync_lock_test_and_set(&c->id, 0);
}

INLINE void returned(__u32 cmd, const void *arg, long ret)
{
	struct seccomp_notif_resp resp = {};
	struct call *c;
	bool answers;

	/* All begin with the id; ADDFD's flags are where val is. */
	if (bpf_probe_read_user(&resp, cmd == NOTIF_ID_VALID ? 8 : sizeof(struct seccomp_notif_addfd), arg)) {
		COUNT(missed);
		return;
	}
	answers = cmd == NOTIF_SEND || (cmd == NOTIF_ADDFD && (resp.val & ADDFD_FLAG_SEND));
	if (ret != -ENOENT && (ret < 0 || !answers))
		return;
	c = find(resp.id);
	if (c)
		hand(c, ret < 0);
	else if (ret >= 0)
		COUNT(unmatched);
}

SEC("tp_btf/sys_enter")
int record_enter(__u64 *ctx)
{
	struct pt_regs *regs;
	const void *arg;
	__u32 cmd;

	if (ctx[1] != NR_ioctl)
		return 0;
	regs = (struct pt_regs *)ctx[0];
	cmd = REGS_ARG2(regs);
	if (cmd != NOTIF_SEND && cmd != NOTIF_ADDFD)
		return 0;
	if (!ours(true))
		return 0;
	arg = (const void *)REGS_ARG3(regs);
	answering(arg, cmd == NOTIF_ADDFD);
	return 0;
}

SEC("tp_btf/sys_exit")
int record_exit(__u64 *ctx)
{
	struct pt_regs *regs = (struct pt_regs *)ctx[0];
	const void *arg;
	__u32 cmd;

	if (REGS_NR(regs) != NR_ioctl)
		return 0;
	cmd = REGS_ARG2(regs);
	if (cmd != NOTIF_RECV && cmd != NOTIF_SEND && cmd != NOTIF_ADDFD && cmd != NOTIF_ID_VALID)
		return 0;
	if (!ours(true))
		return 0;
	arg = (const void *)REGS_ARG3(regs);
	if (cmd == NOTIF_ID_VALID && !ctx[1])
		dispatched(arg);
	else if (cmd != NOTIF_RECV)
		returned(cmd, arg, ctx[1]);
	else if (likely(!ctx[1]))
		received(arg);
	return 0;
}

SEC("tp_btf/sched_switch")
int record_switch(__u64 *ctx)
{
	struct task_struct *prev = (struct task_struct *)ctx[1], *next = (struct task_struct *)ctx[2];
	struct server *s;
	struct thread *t;
	__u32 pid;

	if (!level)
		return 0;
	if ((__u32)prev->tgid == servers_tgid) {
		s = server_of(prev->pid);
		if (s)
			s->out = bpf_ktime_get_ns();
	}
	if ((__u32)next->tgid == servers_tgid) {
		s = server_of(next->pid);
		if (s && s->out) {
			s->away += bpf_ktime_get_ns() - s->out;
			s->out = 0;
		}
	}
	if (prev->seccomp.mode == SECCOMP_MODE_FILTER) {
		pid = number(prev);
		t = pid ? thread_of(pid) : 0;
		if (t) {
			if (t->pid != pid || t->who != who(prev)) {
				t->pid = pid;
				t->who = who(prev);
				t->at_call = 0;
			}
			t->switches = switches_of(prev);
			t->out = bpf_ktime_get_ns();
		}
	}
	if (next->seccomp.mode == SECCOMP_MODE_FILTER) {
		pid = number(next);
		t = pid ? thread_of(pid) : 0;
		if (t && t->pid == pid)
			t->out = 0;
	}
	return 0;
}

char _license[] SEC("license") = "GPL";
