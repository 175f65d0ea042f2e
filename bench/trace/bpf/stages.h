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
#include <kernel.h>

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
	__u32 handler_here; /* the handler's number in user space's PID namespace */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* as many as flights, with explain */
	__type(key, __u32);
	__type(value, struct cause);
} causes SEC(".maps");

/*
 * A thread that is a target, or a supervisor's, or both. What both sides touch for
 * each call is first, in a cache line, as the two may be on different CPUs. (With two
 * lines it was not measurably slower.)
 */
struct thread {
	__u64 owner;   /* of a row: its thread's start_time; 0: free */
	/* As a target. */
	__u64 exited;  /* its last sys_exit */
	__u64 trapped; /* when it first slept since; 0: it has not */
	__u64 ran;     /* when it first got a CPU after the answer; 0: not yet */
	__u64 receiver_ran, received, dispatched; /* of the flight */
	__u64 answered; /* too; not 0: the call is joined, that is answered and not yet counted */

	/* As a supervisor's. */
	__u64 on;      /* since when it is on a CPU */
	__u64 sending_id;
	__u32 sending; /* inside SEND: NOTHING, UNKNOWN, UNREAD, or SLOT + the flight's slot */
	__u32 supervises;
	__u64 receiving; /* entry of RECV; with explain */

	/* As a target, rarely. */
	__u64 entered; /* sys_enter after the answer: continued */
	__u64 woken; /* by the answer; with explain */
	__u64 id;
	__u64 receiver_busy; /* usage of the last receiver at trapped */
	__u64 receiver_wait;
	__u32 receiver; /* of its last call; with explain */
	__u32 pid; /* of a row: its thread's number, which an exec changes */
	struct cause cause;
	__u64 pads[4]; /* whole cache lines */
};

_Static_assert(sizeof(struct thread) % 64 == 0, "rows of whole cache lines");

enum { NOTHING, UNKNOWN, UNREAD, SLOT };

/*
 * A thread's row is the one of its number modulo ROWS, if that is free. Those whose
 * row is taken are displaced: what is known of them is in the task's storage, which
 * there is for any number of threads, but each look into it is a call. With nothing
 * but storage, the looks of one call took 7% of a supervisor's throughput.
 */
#define ROWS 8192

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, ROWS);
	__type(key, __u32);
	__type(value, struct thread);
} rows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __s32);
	__type(value, struct thread);
} displaced SEC(".maps");

bool displacing; /* there has been one */

INLINE struct thread *row(struct task_struct *t)
{
	__u32 k = (__u32)t->pid % ROWS;

	return bpf_map_lookup_elem(&rows, &k);
}

/* thread_of returns what is known of a thread, if anything is. */
INLINE struct thread *thread_of(struct task_struct *t)
{
	struct thread *r = row(t);

	if (r && r->owner == t->start_time)
		return r;
	return unlikely(displacing) ? bpf_task_storage_get(&displaced, t, 0, 0) : 0;
}

/* thread_made is thread_of, and makes what there is not yet: for the calling thread only. */
INLINE struct thread *thread_made(struct task_struct *cur)
{
	struct thread *s = thread_of(cur), *r;

	if (likely(s))
		return s;
	r = row(cur);
	if (r && !__sync_val_compare_and_swap(&r->owner, 0, cur->start_time)) {
		r->pid = cur->pid;
		return r;
	}
	displacing = true;
	return bpf_task_storage_get(&displaced, cur, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
}

/*
 * With sampling most threads have nothing to do with a followed call most of the
 * time. How many of the threads with a number, modulo MARKS, do is kept aside:
 * looking here is a load. Threads that share a mark are merely looked into more often.
 */
#define MARKS 4096

__u32 senders[MARKS]; /* thread.sending is not NOTHING */
__u32 runners[MARKS]; /* thread.answered or thread.supervises */

INLINE bool marked(const __u32 *marks, const struct task_struct *t)
{
	return !sampling() || marks[(__u32)t->pid % MARKS];
}

INLINE void mark(__u32 *marks, const struct task_struct *t, bool more)
{
	if (sampling())
		__sync_fetch_and_add(&marks[(__u32)t->pid % MARKS], more ? 1 : -1);
}

/*
 * With sampling, which calls are followed is drawn before they begin, when their
 * thread leaves the one before: by their ids, known only to those who receive, each
 * target would have to be watched all the time, which cost as much as following it.
 * A receiver in a PID namespace knows its targets by other numbers; as soon as there
 * is one, all are watched, and its calls are drawn by their ids.
 */
__u32 chosen[MARKS]; /* thread whose present call is to be followed, of those with a number modulo MARKS */
bool nested;         /* there is a receiver in a PID namespace */

/* Draws so far. By CPU: what threads of several CPUs write costs each of them the line. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} draws SEC(".maps");

INLINE bool is_chosen(__u32 pid)
{
	return !sampling() || chosen[pid % MARKS] == pid;
}

/* watched: the thread's trap may be that of a call to follow. */
INLINE bool watched(const struct task_struct *t)
{
	return is_chosen(t->pid) || nested;
}

/* unchoose: the present call of a thread is not to be followed. */
INLINE void unchoose(const struct task_struct *cur)
{
	__u32 k = (__u32)cur->pid % MARKS;

	if (chosen[k] == (__u32)cur->pid)
		chosen[k] = 0;
}

/* draw decides about the next call of the calling thread. */
INLINE bool draw(const struct task_struct *cur)
{
	__u32 zero = 0;
	__u64 *n = bpf_map_lookup_elem(&draws, &zero);

	if (n && drawn(hash(hash(++*n)))) {
		chosen[(__u32)cur->pid % MARKS] = cur->pid;
		return true;
	}
	unchoose(cur);
	return false;
}

/* follow says whether to follow the notification that the calling thread received. */
INLINE bool follow(const struct task_struct *cur, __u64 id, __u32 pid)
{
	if (!sampling())
		return true;
	if (!cur->thread_pid->level)
		return is_chosen(pid);
	if (!nested)
		nested = true;
	return drawn(hash(id));
}

/* The longest call of all that were counted on a CPU, as it was. */
struct slow {
	__u64 total; /* trapped to end */
	__u64 id;
	__u64 exited, trapped, received, dispatched, answered, woken, ran, entered, end;
	__u64 receiver_ran, receiver_entered, receiver_off, receiver_woken;
	__u64 receiver_busy, receiver_wait; /* from trapped to received; -1: unknown */
	__u64 handler_busy, handler_wait;   /* from dispatched, or else received, to answered; -1: unknown */
	__u32 target, handler; /* in user space's PID namespace; 0: not there */
	__s32 nr;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2); /* a row for each bank */
	__type(key, __u32);
	__type(value, struct slow);
} slowest SEC(".maps");

INLINE void set_sending(struct task_struct *cur, struct thread *s, __u32 sending)
{
	if (!s->sending != !sending)
		mark(senders, cur, sending);
	s->sending = sending;
}

/* set_joined says when t's call was answered; 0: it is counted, or given up. */
INLINE void set_joined(struct task_struct *t, struct thread *s, __u64 answered)
{
	if (!s->answered != !answered)
		mark(runners, t, answered);
	s->answered = answered;
}

INLINE void set_supervises(struct task_struct *cur, struct thread *s)
{
	if (!s->supervises)
		mark(runners, cur, true);
	s->supervises = 1;
}

/* forget gives up what is known of a thread that ends. */
INLINE void forget(struct task_struct *cur)
{
	struct thread *s = thread_of(cur);

	if (sampling())
		unchoose(cur);
	if (!s)
		return;
	set_sending(cur, s, NOTHING);
	set_joined(cur, s, 0);
	if (s->supervises)
		mark(runners, cur, false);
	if (s != row(cur))
		return; /* the kernel frees it */
	__builtin_memset(&s->exited, 0, sizeof(*s) - sizeof(s->owner));
	__sync_lock_test_and_set(&s->owner, 0);
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

/*
 * renumber: a thread that was not the leader of its process has called exec, and has
 * taken the leader's number and start_time, by which it is known from now on. Its row
 * moves; what a task's storage holds stays there.
 */
INLINE void renumber(struct task_struct *cur, __u32 old)
{
	__u32 k = old % ROWS, m = old % MARKS;
	struct thread *r = bpf_map_lookup_elem(&rows, &k), *s = 0;

	if (r && r->owner && r->pid == old) {
		s = thread_made(cur);
		if (s) {
			__builtin_memcpy(&s->exited, &r->exited, sizeof(*s) - sizeof(s->owner));
			s->pid = cur->pid;
		}
		__builtin_memset(&r->exited, 0, sizeof(*r) - sizeof(r->owner));
		__sync_lock_test_and_set(&r->owner, 0);
	} else if (displacing) {
		s = thread_of(cur);
	}
	if (!sampling())
		return;
	if (chosen[m] == old) {
		chosen[m] = 0;
		chosen[(__u32)cur->pid % MARKS] = cur->pid;
	}
	if (!s)
		return;
	if (s->answered) {
		__sync_fetch_and_add(&runners[m], -1);
		mark(runners, cur, true);
	}
	if (s->supervises) {
		__sync_fetch_and_add(&runners[m], -1);
		mark(runners, cur, true);
	}
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
