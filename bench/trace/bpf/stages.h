/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The target's side of a call, and who ran meanwhile. It needs the scheduler's
 * tracepoints and a task's storage, and so the kernel's BTF.
 *
 *	sched_switch, target sleeps for the first time since its last sys_exit: trap
 *	sched_waking, by a supervisor inside SEND, of the target: the call is joined
 *	              with the notification, whose times go to the target
 *	sched_switch, target gets a CPU: it runs again
 *	sys_enter     the call itself begins, if the answer was CONTINUE
 *	sys_exit      all is known: the stages are counted
 *
 * The wake-up says which task a notification was of. The thread id that RECV
 * returned only confirms it, since an interrupt may wake somebody else just then.
 */
#ifndef UNKNOT_STAGES_H
#define UNKNOT_STAGES_H

#include "flights.h"
#include "kernel.h"

volatile const bool stages;
volatile const bool explain; /* also keep what it takes to split the slowest call into causes */

/* Who used the CPU how long: a supervisor's thread, with explain. */
struct usage {
	__u64 busy;  /* ns on a CPU, until it last left it */
	__u64 wait;  /* ns runnable without one, until it last got one */
	__u64 on;    /* since when it is on a CPU; 0: it is not */
	__u64 off;   /* when it last left it */
	__u64 woken; /* since when it is runnable, and last was before on */
	__u32 owner; /* thread id: the row may be another thread's */
	__u32 pad;
};

#define USAGES 1024

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, USAGES);
	__type(key, __u32);
	__type(value, struct usage);
} usages SEC(".maps");

/* What explains a call in flight, beside its times; parallel to flights. */
struct cause {
	__u64 entered;        /* the receiver's RECV */
	__u64 receiver_off;   /* when the receiver last left the CPU before it received */
	__u64 receiver_woken; /* and was last woken, if it was */
	__u64 receiver_busy;  /* its usage when it received */
	__u64 receiver_wait;
	__u64 handler_busy; /* usage of the handling thread at its start, and from its end on the difference */
	__u64 handler_wait;
	__u32 receiver; /* threads */
	__u32 handler;
	__s32 nr; /* of the system call */
	__u32 split; /* handler_busy and handler_wait are differences */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* as many as flights, with explain */
	__type(key, __u32);
	__type(value, struct cause);
} causes SEC(".maps");

/*
 * A thread that is a target, or a supervisor's, or both. First what is touched for
 * calls that are not followed too: the kernel has it in one cache line.
 */
struct thread {
	__u64 exited;  /* target: its last sys_exit */
	__u64 trapped; /* target: when it first slept since; 0: it has not */
	__u64 ran;     /* target: when it first got a CPU after the answer; 0: not yet */
	__u64 on;      /* supervisor: since when it is on a CPU */
	__u32 joined;  /* target: the call has been answered, and is not yet counted */
	__u32 sending; /* supervisor: inside SEND: NOTHING, UNKNOWN, UNREAD, or SLOT + the flight's slot */
	__u64 sending_id;
	__u32 supervises;
	__u32 receiver; /* target, with explain: of its last call */

	/* As a target. */
	__u64 entered; /* sys_enter after the answer: continued */
	__u64 receiver_ran, received, dispatched, answered; /* of the flight */
	__u64 woken; /* by the answer; with explain */
	__u64 id;
	__u64 receiver_busy; /* usage of the last receiver at trapped */
	__u64 receiver_wait;
	struct cause cause;

	/* As a supervisor's. */
	__u64 receiving; /* entry of RECV; with explain */
};

enum { NOTHING, UNKNOWN, UNREAD, SLOT };

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __s32);
	__type(value, struct thread);
} threads SEC(".maps");

/*
 * With sampling most threads have nothing to do with a followed call most of the
 * time. How many of the threads with a number, modulo MARKS, do is kept aside:
 * looking here is a load, looking into the task's storage a call with a lock.
 * Threads that share a mark, or died with one, are merely looked into more often.
 */
#define MARKS 1024

__u32 senders[MARKS]; /* thread.sending is not NOTHING */
__u32 runners[MARKS]; /* thread.joined or thread.supervises */

INLINE bool marked(const __u32 *marks, const struct task_struct *t)
{
	return sampled == ~0U || marks[(__u32)t->pid % MARKS];
}

INLINE void mark(__u32 *marks, const struct task_struct *t, bool more)
{
	if (sampled != ~0U)
		__sync_fetch_and_add(&marks[(__u32)t->pid % MARKS], more ? 1 : -1);
}

/* The longest call of all that were counted on a CPU, as it was. */
struct slow {
	__u64 total; /* trapped to end */
	__u64 id;
	__u64 exited, trapped, received, dispatched, answered, woken, ran, entered, end;
	__u64 receiver_ran, receiver_entered, receiver_off, receiver_woken;
	__u64 receiver_busy, receiver_wait; /* from trapped to received; -1: unknown */
	__u64 handler_busy, handler_wait;   /* from dispatched, or else received, to answered; -1: unknown */
	__u32 target, receiver, handler;
	__s32 nr;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2); /* a row for each bank */
	__type(key, __u32);
	__type(value, struct slow);
} slowest SEC(".maps");

INLINE struct thread *thread_of(struct task_struct *t)
{
	return bpf_task_storage_get(&threads, t, 0, 0);
}

/* thread_made is for process context only: it may allocate. */
INLINE struct thread *thread_made(struct task_struct *t)
{
	return bpf_task_storage_get(&threads, t, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
}

INLINE void set_sending(struct task_struct *cur, struct thread *s, __u32 sending)
{
	if (!s->sending != !sending)
		mark(senders, cur, sending);
	s->sending = sending;
}

INLINE void set_joined(struct task_struct *t, struct thread *s, bool joined)
{
	if (s->joined != joined)
		mark(runners, t, joined);
	s->joined = joined;
}

INLINE void set_supervises(struct task_struct *cur, struct thread *s)
{
	if (!s->supervises)
		mark(runners, cur, true);
	s->supervises = 1;
}

INLINE struct usage *usage_row(__u32 tid)
{
	__u32 k = tid % USAGES;

	return bpf_map_lookup_elem(&usages, &k);
}

/* busy_until and wait_until are what u has come to by now. */
INLINE __u64 busy_until(const struct usage *u, __u64 now)
{
	return u->busy + (u->on ? now - u->on : 0);
}

INLINE __u64 wait_until(const struct usage *u, __u64 now)
{
	return u->wait + (!u->on && u->woken ? now - u->woken : 0);
}

/* own_usage returns the calling thread's row; one that was another's begins anew. */
INLINE struct usage *own_usage(struct task_struct *cur, const struct thread *s, __u64 now)
{
	struct usage *u = usage_row(cur->pid);

	if (u && u->owner != (__u32)cur->pid) {
		u->owner = cur->pid;
		u->busy = u->wait = u->off = u->woken = 0;
		u->on = s->on ? s->on : now;
	}
	return u;
}

/* is_target: p is the thread that the supervisor thread cur was told of as pid. */
INLINE bool is_target(struct task_struct *cur, struct task_struct *p, __u32 pid)
{
	__u32 level = cur->thread_pid->level;
	__s32 nr = 0;

	if (!level)
		return (__u32)p->pid == pid;
	if (!pid)
		return true; /* the supervisor cannot see it; the wake-up has to do */
	if (p->thread_pid->level < level)
		return false;
	bpf_probe_read_kernel(&nr, sizeof(nr), (const char *)&p->thread_pid->numbers[0].nr + level * sizeof(struct upid));
	return (__u32)nr == pid;
}

#endif
