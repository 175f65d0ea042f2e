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
 * With stages, which only tp_btf can, two programs on the scheduler's tracepoints
 * come in, and the target's side is seen too: stages.h.
 */
#include "flights.h"
#include "hist.h"
#include <process.h>
#include "stages.h"

volatile const __s32 drop_errno = -EINTR; /* with which the supervisor answers what it drops */
volatile const bool by_result; /* also count what the ioctls return, for tests: a look-up for each */

/*
 * What is counted goes into one of two banks. To forget everything counted so
 * far, user space empties the other bank and switches over: no count is torn.
 */
__u32 bank;

enum stage {
	/* By the supervisor's calls alone. */
	WAIT,   /* received to dispatched */
	ANSWER, /* received to answered */
	DROP,   /* the same, of drops */
	/* With stages: they follow each other, of every answered call that was no drop. */
	BEFORE,  /* the target's last sys_exit to its trap */
	WAKEUP,  /* to the receiver on a CPU; 0 if it was */
	RECEIVE, /* to the return of RECV */
	QUEUE,   /* to dispatch, of those that were dispatched */
	SERVICE, /* to SEND */
	REPLY,   /* to the target on a CPU */
	RETURN,  /* to its sys_exit, or sys_enter if continued */
	CALL,    /* the continued call, to its sys_exit */
	/* And together. */
	TRIP,  /* trap to the target on a CPU */
	CYCLE, /* between two sys_exits */
	STAGES
};

/*
 * The threads whose WAITs are kept apart as well, by their numbers in user space's PID
 * namespace; 0 ends the list. Their rows follow those of the stages.
 */
#define RECEIVERS 8
#define HISTS (STAGES + RECEIVERS)
__u32 receivers[RECEIVERS];

/*
 * Rows per CPU, in which each word has one writer, so that increments need not be
 * atomic: WAIT belongs to the program on sys_enter, the other stages to that on
 * sys_exit, and the kernel lets no program run twice at once on a CPU.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2 * HISTS);
	__type(key, __u32);
	__type(value, struct hist);
} hists SEC(".maps");

/* What the ioctls return, each followed or not; but for ID_VALID's successes, which the programs do not look at. */
enum result { DONE, GONE, INTERRUPTED, TWICE, ODD, RESULTS };
#define IOCTLS 4 /* RECV, SEND, ID_VALID, ADDFD: the low byte of their numbers */

struct counters {
	/* of sys_enter */
	__u64 released; /* calls on their way out: SEND entered */
	__u64 enter_unread;
	/* of sched_waking */
	__u64 waking_unjoined;
	/* of sys_exit */
	__u64 seen;     /* RECVs, followed or not */
	__u64 received;
	__u64 claimed;  /* of these, those that found a place in the table */
	__u64 overflow; /* and those that did not */
	__u64 stale;
	__u64 stale_ns; /* between receive and SEND, or else what found them stale */
	__u64 forgotten; /* stale without SEND */
	__u64 retried;
	__u64 unmatched;
	__u64 exit_unread;
	__u64 awake;    /* calls received before their target slept: trapped = received */
	__u64 unjoined; /* answers whose target was not known yet when it trapped */
	__u64 unwoken;  /* answers that woke nobody: the target had not slept yet */
	__u64 broken;   /* calls that a signal ended after their answer */
	__u64 results[IOCTLS * RESULTS];

	struct total totals[HISTS]; /* of hists, written as they are */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2); /* a row for each bank */
	__type(key, __u32);
	__type(value, struct counters);
} counts SEC(".maps");

#define COUNT_BY(field, n)                                                     \
	do {                                                                   \
		__u32 _k = bank & 1;                                           \
		struct counters *_c = bpf_map_lookup_elem(&counts, &_k);       \
		if (_c)                                                        \
			_c->field += n;                                        \
	} while (0)
#define COUNT(field) COUNT_BY(field, 1)

/* Where the calling CPU counts now. A call looks it up once, however many stages it has. */
struct book {
	__u32 bank;
	struct counters *counters; /* 0: there is none, which the verifier believes possible */
};

INLINE struct book book(void)
{
	struct book b = {.bank = bank & 1};

	b.counters = bpf_map_lookup_elem(&counts, &b.bank);
	return b;
}

INLINE void record_in(struct book b, __u32 stage, __u64 from, __u64 to)
{
	__u32 key = b.bank * HISTS + stage;
	struct hist *h = bpf_map_lookup_elem(&hists, &key);

	if (h && b.counters)
		hist_add(h, &b.counters->totals[stage], to - from);
}

INLINE void record(enum stage stage, __u64 from, __u64 to)
{
	record_in(book(), stage, from, to);
}

/* The calling thread's place in the list of receivers, plus 1. */
INLINE __u32 receiver_here(bool btf)
{
	struct bpf_pidns_info ns = {};
	__u32 tid;

	if (!receivers[0])
		return 0;
	if (btf)
		tid = number_here(bpf_get_current_task_btf());
	else if (!in_pidns)
		tid = bpf_get_current_pid_tgid();
	else if (bpf_get_ns_current_pid_tgid(pidns_dev, pidns_ino, &ns, sizeof(ns)))
		return 0;
	else
		tid = ns.pid;
	for (__u32 i = 0; i < RECEIVERS; i++)
		if (tid && receivers[i] == tid)
			return i + 1;
	return 0;
}

INLINE void record_wait(const struct flight *f, __u64 to)
{
	struct book b = book();
	__u32 i = f->receiver - 1;

	record_in(b, WAIT, f->received, to);
	asm volatile("" : "+r"(i)); /* the index itself is compared, or before Linux 6.18 the verifier does not see its bounds */
	if (i < RECEIVERS)
		record_in(b, STAGES + i, f->received, to);
}

/* The calling thread enters SEND, or ADDFD with an answer. */
INLINE void enter_send(const void *arg, __u32 cmd)
{
	struct task_struct *cur = bpf_get_current_task_btf();
	struct seccomp_notif_resp resp = {};
	struct thread *s;
	struct flight *f;
	__u32 at = 0;
	__u64 now;

	if (bpf_probe_read_user(&resp, cmd == NOTIF_SEND ? sizeof(resp) : sizeof(struct seccomp_notif_addfd), arg)) {
		COUNT(enter_unread);
		s = thread_made(cur);
		if (s)
			set_sending(cur, s, UNREAD);
		return;
	}
	if (!flying(resp.id))
		return;
	if (cmd == NOTIF_ADDFD && !(resp.val & ADDFD_FLAG_SEND))
		return;
	f = find(resp.id, &at);
	if (!f && sampling())
		return;
	s = thread_made(cur);
	if (!s)
		return;
	if (!f) {
		set_sending(cur, s, UNKNOWN);
		return;
	}
	now = bpf_ktime_get_ns();
	if (!f->answered)
		COUNT(released);
	f->answered = now;
	f->drop = cmd == NOTIF_SEND && resp.error == drop_errno && !f->dispatched;
	if (explain) {
		struct cause *c = bpf_map_lookup_elem(&causes, &at);
		struct usage *u = own_usage(cur, s, now);

		if (c && u && c->handler == (__u32)cur->pid && !c->split) {
			c->handler_busy = busy_until(u, now) - c->handler_busy;
			c->handler_wait = wait_until(u, now) - c->handler_wait;
			c->split = 1;
		}
	}
	s->sending_id = resp.id;
	set_sending(cur, s, SLOT + at);
}

/* The calling thread starts on the flight in a slot: it receives, or asks ID_VALID. */
INLINE void start_handling(__u32 at, struct task_struct *cur, struct usage *u, __u64 now)
{
	struct cause *c = bpf_map_lookup_elem(&causes, &at);

	if (!c || !u)
		return;
	c->handler = cur->pid;
	c->handler_here = number_here(cur);
	c->handler_busy = busy_until(u, now);
	c->handler_wait = wait_until(u, now);
	c->split = 0;
}

INLINE void on_enter(__u32 cmd, const void *arg, bool btf)
{
	struct seccomp_notif_resp resp = {};
	struct flight *f;
	__u32 at = 0;
	__u64 now;

	if (cmd != NOTIF_ID_VALID && cmd != NOTIF_SEND && cmd != NOTIF_ADDFD && !(btf && explain && cmd == NOTIF_RECV))
		return;
	if (!ours(btf))
		return;
	if (btf && explain && cmd == NOTIF_RECV) {
		struct thread *s = thread_made(bpf_get_current_task_btf());

		if (s)
			s->receiving = bpf_ktime_get_ns();
		return;
	}
	if (idle())
		return;
	if (btf && stages && cmd != NOTIF_ID_VALID) {
		enter_send(arg, cmd);
		return;
	}
	/* ADDFD's flags are where val is. */
	if (bpf_probe_read_user(&resp, cmd == NOTIF_ADDFD ? sizeof(struct seccomp_notif_addfd) : sizeof(resp.id), arg)) {
		COUNT(enter_unread);
		return;
	}
	if (cmd == NOTIF_ADDFD && !(resp.val & ADDFD_FLAG_SEND))
		return; /* no answer yet */
	if (!flying(resp.id))
		return;
	f = find(resp.id, &at);
	if (!f)
		return;
	now = bpf_ktime_get_ns();
	if (cmd != NOTIF_ID_VALID) {
		if (!f->answered)
			COUNT(released);
		f->answered = now;
		return;
	}
	if (f->dispatched)
		return; /* asked again */
	f->dispatched = now;
	record_wait(f, now);
	if (btf && explain) {
		struct task_struct *cur = bpf_get_current_task_btf();
		struct thread *s = thread_made(cur);

		if (s) {
			set_supervises(cur, s);
			start_handling(at, cur, own_usage(cur, s, now), now);
		}
	}
}

INLINE void exit_receive(const void *arg, bool btf)
{
	struct seccomp_notif n = {};
	struct flight *f;
	__u32 at = 0;
	__u64 now;

	COUNT(seen);
	if (bpf_probe_read_user(&n, btf && explain ? sizeof(n) : btf && stages ? 16 : 8, arg)) {
		COUNT(exit_unread);
		return;
	}
	if (btf && stages ? !follow(bpf_get_current_task_btf(), n.id, n.pid) : sampling() && !drawn(hash(n.id)))
		return;
	COUNT(received);
	f = claim(n.id, &at);
	if (!f) {
		COUNT(overflow);
		return;
	}
	COUNT(claimed);
	now = bpf_ktime_get_ns();
	f->dispatched = 0;
	f->answered = 0;
	f->received = now;
	f->receiver = receiver_here(btf);
	if (btf && stages) {
		struct task_struct *cur = bpf_get_current_task_btf();
		struct thread *s = thread_made(cur);

		f->pid = n.pid;
		f->woken = 0;
		f->receiver_ran = 0;
		if (!s)
			return;
		set_supervises(cur, s);
		f->receiver_ran = s->on;
		if (explain) {
			struct cause *c = bpf_map_lookup_elem(&causes, &at);
			struct usage *u = own_usage(cur, s, now);

			if (!c || !u)
				return;
			c->entered = s->receiving;
			c->receiver_off = u->off;
			c->receiver_woken = u->woken;
			c->receiver_busy = busy_until(u, now);
			c->receiver_wait = wait_until(u, now);
			c->receiver = cur->pid;
			c->nr = n.nr;
			start_handling(at, cur, u, now);
		}
	}
}

/* The notification at f is done with: answered, if ret says so, or stale. */
INLINE void finish(struct flight *f, bool drop, long ret, bool btf)
{
	/* If the id could not be read at the entry, this moment has to do. */
	__u64 to = likely(f->answered) ? f->answered : bpf_ktime_get_ns();

	if (!f->answered)
		COUNT(forgotten);
	if (ret < 0) {
		COUNT(stale);
		COUNT_BY(stale_ns, to - f->received);
	} else {
		drop = drop && !f->dispatched;
		record(drop ? DROP : ANSWER, f->received, to);
		if (btf && stages && !drop && !f->woken)
			COUNT(unwoken);
	}
	release(f);
}

/* What SEND or ADDFD returned ends: an answer was delivered, or the target is gone. */
INLINE bool ends(long ret, bool answers)
{
	if (answers && ret == -EINTR)
		COUNT(retried);
	return ret == -ENOENT || (ret >= 0 && answers);
}

INLINE void exit_other(__u32 cmd, const void *arg, long ret, bool btf)
{
	struct seccomp_notif_resp resp = {};
	struct flight *f;
	__u32 at, size;
	bool answers;

	if (idle())
		return;
	/* All three begin with the id; ADDFD's flags are where val is. */
	size = cmd == NOTIF_SEND ? sizeof(resp) : cmd == NOTIF_ADDFD ? sizeof(struct seccomp_notif_addfd) : sizeof(resp.id);
	if (bpf_probe_read_user(&resp, size, arg)) {
		COUNT(exit_unread);
		return;
	}
	if (!flying(resp.id))
		return;
	answers = cmd == NOTIF_SEND || (cmd == NOTIF_ADDFD && (resp.val & ADDFD_FLAG_SEND));
	if (!ends(ret, answers))
		return; /* still to be answered */
	f = find(resp.id, &at);
	if (f)
		finish(f, cmd == NOTIF_SEND && resp.error == drop_errno, ret, btf);
	else if (ret >= 0 && !sampling())
		COUNT(unmatched);
}

/* The same for SEND with stages, when the entry has left word in the thread. */
INLINE bool exit_send(long ret)
{
	struct task_struct *cur = bpf_get_current_task_btf();
	struct thread *s = marked(senders, cur) ? thread_of(cur) : 0;
	struct flight *f;
	__u32 sending;

	if (!s || !s->sending)
		return true; /* not followed */
	sending = s->sending;
	set_sending(cur, s, NOTHING);
	if (sending == UNREAD)
		return false;
	if (!ends(ret, true))
		return true;
	f = sending >= SLOT ? flight_at(sending - SLOT) : 0;
	if (f && f->id == s->sending_id)
		finish(f, f->drop, ret, true);
	else if (ret >= 0 && !sampling())
		COUNT(unmatched);
	return true;
}

INLINE void count_result(__u32 cmd, long ret)
{
	struct book b = book();
	__u32 at = (cmd & 3) * RESULTS;

	if (ret == -ENOENT)
		at += GONE;
	else if (ret == -EINTR || ret == -ERESTARTSYS)
		at += INTERRUPTED;
	else if (ret == -EINPROGRESS)
		at += TWICE;
	else if (ret < 0)
		at += ODD;
	asm volatile("" : "+r"(at)); /* as in record_wait */
	if (b.counters && at < IOCTLS * RESULTS)
		b.counters->results[at]++;
}

INLINE void on_exit(__u32 cmd, const void *arg, long ret, bool btf)
{
	if (cmd == NOTIF_ID_VALID && likely(!ret))
		return;
	if (cmd != NOTIF_RECV && cmd != NOTIF_SEND && cmd != NOTIF_ID_VALID && cmd != NOTIF_ADDFD)
		return;
	if (!ours(btf))
		return;
	if (by_result)
		count_result(cmd, ret);
	if (cmd != NOTIF_RECV) {
		if (btf && stages && cmd == NOTIF_SEND && likely(exit_send(ret)))
			return;
		if (btf && stages && cmd == NOTIF_ADDFD) {
			struct task_struct *cur = bpf_get_current_task_btf();
			struct thread *s = thread_of(cur);

			if (s)
				set_sending(cur, s, NOTHING);
		}
		exit_other(cmd, arg, ret, btf);
	} else if (likely(!ret)) {
		exit_receive(arg, btf);
	}
}

/* keep remembers the call of s as the slowest so far, if it is. */
INLINE void keep(const struct thread *s, __u64 trapped, __u64 end, struct task_struct *target)
{
	__u32 key = bank & 1;
	struct slow *w = bpf_map_lookup_elem(&slowest, &key);

	if (!w || end - trapped <= w->total)
		return;
	w->total = end - trapped;
	w->id = s->id;
	w->exited = s->exited;
	w->trapped = trapped;
	w->received = s->received;
	w->dispatched = s->dispatched;
	w->answered = s->answered;
	w->woken = s->woken;
	w->ran = s->ran;
	w->entered = s->entered;
	w->end = end;
	w->receiver_ran = s->receiver_ran;
	w->receiver_entered = s->cause.entered;
	w->receiver_off = s->cause.receiver_off;
	w->receiver_woken = s->cause.receiver_woken;
	w->receiver_busy = w->receiver_wait = -1;
	if (s->trapped && s->receiver == s->cause.receiver) {
		w->receiver_busy = s->cause.receiver_busy - s->receiver_busy;
		w->receiver_wait = s->cause.receiver_wait - s->receiver_wait;
	}
	w->handler_busy = s->cause.split ? s->cause.handler_busy : (__u64)-1;
	w->handler_wait = s->cause.split ? s->cause.handler_wait : (__u64)-1;
	w->target = number_here(target);
	w->handler = s->cause.handler_here;
	w->nr = s->cause.nr;
}

/* The call of s has been answered, and the target is at a sys_exit now. */
INLINE void count_call(struct thread *s, __u64 now, struct task_struct *target)
{
	__u64 trapped = s->trapped, to, end;
	struct book b = book();

	if (!trapped || trapped > s->received) {
		trapped = s->received;
		if (b.counters)
			b.counters->awake++;
	}
	record_in(b, BEFORE, s->exited, trapped);
	to = s->receiver_ran > trapped ? s->receiver_ran : trapped;
	record_in(b, WAKEUP, trapped, to);
	record_in(b, RECEIVE, to, s->received);
	to = s->received;
	if (s->dispatched) {
		record_in(b, QUEUE, to, s->dispatched);
		to = s->dispatched;
	}
	record_in(b, SERVICE, to, s->answered);
	to = s->ran > s->answered ? s->ran : s->answered;
	record_in(b, REPLY, s->answered, to);
	record_in(b, TRIP, trapped, to);
	end = s->entered ? s->entered : now;
	record_in(b, RETURN, to, end);
	if (s->entered)
		record_in(b, CALL, end, now);
	record_in(b, CYCLE, s->exited, now);
	if (explain) {
		keep(s, trapped, end, target);
		s->receiver = s->cause.receiver;
	}
}

/* Any sys_exit of a thread with filters, which may be a target. */
INLINE void exit_target(struct task_struct *cur, long ret)
{
	bool before = true, next;
	struct thread *s;
	__u64 now;

	if (sampling()) {
		before = watched(cur);
		next = draw(cur);
		if (!before && !next)
			return;
	}
	s = thread_made(cur);
	if (!s)
		return;
	now = bpf_ktime_get_ns();
	if (s->answered) {
		if (!before)
			COUNT(unjoined); /* a thread with the same mark was chosen meanwhile */
		else if (!s->entered && ret <= -ERESTARTSYS && ret >= -ERESTART_RESTARTBLOCK)
			COUNT(broken);
		else if (s->exited)
			count_call(s, now, cur);
		else
			COUNT(unjoined);
		s->entered = 0;
		set_joined(cur, s, 0);
	}
	s->trapped = 0;
	s->exited = now;
}

SEC("tp_btf/sys_enter")
int enter_btf(__u64 *ctx)
{
	struct task_struct *cur;
	struct pt_regs *regs;
	struct thread *s;

	if (ctx[1] == NR_ioctl) {
		regs = (struct pt_regs *)ctx[0];
		on_enter(REGS_ARG2(regs), (const void *)REGS_ARG3(regs), true);
	}
	if (!stages)
		return 0;
	cur = bpf_get_current_task_btf();
	if (cur->seccomp.mode != SECCOMP_MODE_FILTER || !marked(runners, cur))
		return 0;
	s = thread_of(cur);
	if (s && s->answered && !s->entered)
		s->entered = bpf_ktime_get_ns();
	return 0;
}

SEC("tp_btf/sys_exit")
int exit_btf(__u64 *ctx)
{
	struct pt_regs *regs = (struct pt_regs *)ctx[0];
	struct task_struct *cur;

	if (REGS_NR(regs) == NR_ioctl)
		on_exit(REGS_ARG2(regs), (const void *)REGS_ARG3(regs), ctx[1], true);
	if (!stages)
		return 0;
	cur = bpf_get_current_task_btf();
	if (cur->seccomp.mode == SECCOMP_MODE_FILTER)
		exit_target(cur, ctx[1]);
	return 0;
}

/*
 * A thread leaves the CPU: a target may do so because it is trapped. Returns the
 * time if that was of interest.
 */
INLINE __u64 off(struct task_struct *t, bool preempt, __u32 state)
{
	bool sleeps = !preempt && (state & TASK_INTERRUPTIBLE);
	struct thread *s;
	struct usage *u;
	bool traps;
	__u64 now;

	if (!explain && (!sleeps || t->seccomp.mode != SECCOMP_MODE_FILTER || !watched(t)))
		return 0;
	s = thread_of(t);
	if (!s)
		return 0;
	traps = sleeps && !s->answered && !s->trapped;
	if (!traps && !(explain && s->supervises))
		return 0;
	now = bpf_ktime_get_ns();
	if (traps) {
		s->trapped = now;
		if (explain && s->receiver) {
			u = usage_row(s->receiver);
			if (u) {
				s->receiver_busy = busy_until(u, now);
				s->receiver_wait = wait_until(u, now);
			}
		}
	}
	if (explain && s->supervises) {
		u = own_usage(t, s, now);
		if (!u)
			return now;
		if (u->on)
			u->busy += now - u->on;
		u->on = 0;
		u->off = now;
		u->woken = preempt || !state ? now : 0;
	}
	return now;
}

/* A thread gets a CPU. now is 0 if nobody has asked the clock yet, which takes a while. */
INLINE void on(struct task_struct *t, __u64 now)
{
	struct thread *s;
	struct usage *u;

	if (!marked(runners, t))
		return;
	s = thread_of(t);
	if (!s || (!s->supervises && (!s->answered || s->ran)))
		return;
	if (!now)
		now = bpf_ktime_get_ns();
	s->on = now;
	if (s->answered && !s->ran)
		s->ran = now;
	if (explain && s->supervises) {
		u = own_usage(t, s, now);
		if (!u)
			return;
		if (u->woken)
			u->wait += now - u->woken;
		u->on = now;
	}
}

SEC("tp_btf/sched_switch")
int switched(__u64 *ctx)
{
	struct task_struct *prev = (struct task_struct *)ctx[1], *next = (struct task_struct *)ctx[2];
	__u64 now = 0;

	if (prev->pid)
		now = off(prev, ctx[0] & 1, ctx[3]);
	if (next->pid)
		on(next, now);
	return 0;
}

/* A thread ends: its row is free for others. */
SEC("tp_btf/sched_process_exit")
int ended(__u64 *ctx)
{
	forget((struct task_struct *)ctx[0]);
	return 0;
}

/* A program was executed: its thread is the leader now, and has the leader's number. */
SEC("tp_btf/sched_process_exec")
int execed(__u64 *ctx)
{
	struct task_struct *cur = (struct task_struct *)ctx[0];

	if ((__u32)cur->pid != (__u32)ctx[1])
		renumber(cur, ctx[1]);
	return 0;
}

SEC("tp_btf/sched_waking")
int waking(__u64 *ctx)
{
	struct task_struct *p = (struct task_struct *)ctx[0], *cur = bpf_get_current_task_btf();
	struct thread *s, *t;
	struct flight *f;

	if (explain) {
		t = thread_of(p);
		if (t && t->supervises) {
			struct usage *u = usage_row(p->pid);

			if (u && u->owner == (__u32)p->pid && !u->on && !u->woken)
				u->woken = bpf_ktime_get_ns();
		}
	}
	if (!cur->pid || (tgid && !in_pidns && (__u32)cur->tgid != tgid))
		return 0;
	if (!marked(senders, cur))
		return 0;
	s = thread_of(cur);
	if (!s || s->sending < SLOT)
		return 0;
	f = flight_at(s->sending - SLOT);
	if (!f || f->id != s->sending_id || f->drop || !is_target(cur, p, f->pid))
		return 0;
	f->woken = 1;
	t = thread_of(p);
	if (!t) {
		COUNT(waking_unjoined);
		return 0;
	}
	t->receiver_ran = f->receiver_ran;
	t->received = f->received;
	t->dispatched = f->dispatched;
	t->ran = 0;
	if (explain) {
		__u32 at = s->sending - SLOT;
		struct cause *c = bpf_map_lookup_elem(&causes, &at);

		t->id = f->id;
		t->woken = bpf_ktime_get_ns();
		if (c)
			t->cause = *c;
	}
	set_joined(p, t, f->answered);
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
