//go:build cgo

// What launch_cgo.go, recorder.c and guard.c share. See doc.go for the parts.

#ifndef UNKNOT_LAUNCH_GUARD_H
#define UNKNOT_LAUNCH_GUARD_H

#include <linux/filter.h>
#include <stdint.h>
#include <sys/time.h>

// struct sched is struct sched_attr of the first version
// (include/uapi/linux/sched/types.h).
struct sched {
	uint32_t size, policy;
	uint64_t flags; // SCHED_FLAG_RESET_ON_FORK
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

// struct inherited is what this process was started with, as a constructor saw
// it before the Go runtime began. Signal sets have bit n-1 for signal n.
struct inherited {
	uint64_t ignored, blocked, pending;
	uint32_t closed; // bit n: descriptor n was closed, for 0 to 2
	uint32_t recorded;
	uint64_t nofile_soft, nofile_hard;
	struct itimerval timers[3]; // real, virtual, profiling
	struct timespec timers_at;  // CLOCK_MONOTONIC
	int32_t pdeathsig, subreaper;
	struct sched sched;
	int32_t main_tid;
	const char *execfn; // AT_EXECFN
	char **env;         // the array is a copy, the strings are the kernel's
};

extern struct inherited unknot_inherited;

// struct plan is what the guard does. All pointers stay valid in the guard,
// whose memory is a copy of ours.
struct plan {
	const char **paths; // tried in turn, as execvp(3) does; NULL ends them
	char **argv, **envp;
	const char *dir; // or NULL
	struct sock_fprog prog;
	uint32_t flags;             // of seccomp(2), NEW_LISTENER among them
	int32_t no_new_privs;       // -1: only if the kernel refuses without
	int32_t control, theirs;    // the guard's end of the socket, and the supervisor's
	int32_t leave;              // on our death the command goes on
	int32_t nfiles;             // -1: descriptors as they are
	const int32_t *files;       // become 0 to nfiles-1
	const struct inherited *in; // to be restored
};

// What goes over the control socket (SOCK_SEQPACKET), both ways.
enum {
	// From the guard.
	MSG_STARTED = 1, // a: the command's pid, b: errno of the subreaper flag
	MSG_LISTENER,    // with the listener as SCM_RIGHTS
	MSG_FAILED,      // a: errno, b: enum stage
	MSG_EXITED,      // a: wait status
	MSG_STOPPED,     // a: signal
	MSG_CONTINUED,
	MSG_SAW,    // a: signal that the guard got, b: the command is in its process group
	MSG_SYNCED, // a: of MSG_SYNC, b as of MSG_SAW
	MSG_ALONE,  // neither the command nor a descendant is left
	// To the guard.
	MSG_GO = 64, // run the command
	MSG_SIGNAL,  // a: signal for the command, b: 1 and c its value if it was queued
	MSG_SYNC,    // a: any number
	MSG_LEAVE,   // a: whether the command goes on when we die
};

struct message {
	uint32_t kind;
	int32_t a, b;
	uint64_t c;
};

enum stage { STAGE_GUARD = 1, STAGE_FORK, STAGE_FILES, STAGE_DIR, STAGE_PRIVS, STAGE_FILTER, STAGE_EXEC };

// unknot_guard starts the guard and returns its pid, or a negative errno.
int unknot_guard(const struct plan *p);

#endif
