//go:build cgo

// The guard: the process between a supervisor and its command, and the way in
// which the guard's child becomes the command. doc.go says what for.
//
// The guard is a fork of a program with many threads, so it may use nothing of
// the C library that takes a lock. The child shares the guard's memory and its
// descriptors until execve, as after vfork(2), so it may not even touch errno:
// both make their system calls themselves.

#define _GNU_SOURCE
#include "guard.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

// call is a system call; its result is -errno where it fails.
static long call(long nr, long a, long b, long c, long d, long e, long f)
{
#if defined(__x86_64__)
	long ret;
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	__asm__ volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return ret;
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = nr, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = f;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
#else
#error "unknot knows amd64 and arm64"
#endif
}

#define ARG(x) ((long)(x))
#define call0(nr) call(nr, 0, 0, 0, 0, 0, 0)
#define call1(nr, a) call(nr, ARG(a), 0, 0, 0, 0, 0)
#define call2(nr, a, b) call(nr, ARG(a), ARG(b), 0, 0, 0, 0)
#define call3(nr, a, b, c) call(nr, ARG(a), ARG(b), ARG(c), 0, 0, 0)
#define call4(nr, a, b, c, d) call(nr, ARG(a), ARG(b), ARG(c), ARG(d), 0, 0)
#define call5(nr, a, b, c, d, e) call(nr, ARG(a), ARG(b), ARG(c), ARG(d), ARG(e), 0)

#define BIT(sig) (1ull << ((sig) - 1))

// What the guard and its child share until the child's execve.
static struct {
	volatile int32_t sample;  // the child shall say which signals are pending
	volatile int32_t sampled; // it has
	volatile int32_t result;  // of seccomp(2): the listener plus 1, or -errno
	volatile int32_t go;      // it may execve
	volatile int32_t going;   // it has seen that, and does
	volatile int32_t tid;     // the kernel clears this one at execve and at exit
	volatile int32_t err, stage;
	uint64_t pending;
} shared;

static char stack[32 << 10] __attribute__((aligned(16)));

static void nap(long ns)
{
	struct timespec ts = {0, ns};
	call2(SYS_nanosleep, &ts, 0);
}

static void action(int sig, uint64_t handler)
{
	uint64_t act[4] = {handler}; // struct kernel_sigaction: handler, flags, restorer, mask
	call4(SYS_rt_sigaction, sig, act, 0, 8);
}

static void fail(int stage, long err)
{
	shared.stage = stage;
	shared.err = -err;
	call1(SYS_exit_group, 127);
}

// settle_files gives the command the descriptors that it shall have.
static void settle_files(const struct plan *p)
{
	int high[p->nfiles > 0 ? p->nfiles : 1], base = p->nfiles;

	if (p->nfiles < 0) {
		for (int fd = 0; fd < 3; fd++)
			if (p->in->closed & 1u << fd)
				call1(SYS_close, fd);
		return;
	}
	// Out of the way first: one file's number may be another one's goal.
	for (int i = 0; i < p->nfiles; i++) {
		long fd = call3(SYS_fcntl, p->files[i], F_DUPFD_CLOEXEC, base);
		if (fd < 0)
			fail(STAGE_FILES, fd);
		high[i] = fd;
	}
	for (int i = 0; i < p->nfiles; i++) {
		long r = call3(SYS_dup3, high[i], i, 0);
		if (r < 0)
			fail(STAGE_FILES, r);
	}
}

// left is what remains of a timer that was read at a time, at least 1 µs of
// one that is armed.
static struct itimerval left(struct itimerval t, const struct timespec *then, int real)
{
	struct timespec now;
	int64_t us = t.it_value.tv_sec * 1000000ll + t.it_value.tv_usec;

	if (us > 0 && real) { // the others count time on a CPU
		call2(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
		us -= (now.tv_sec - then->tv_sec) * 1000000ll + (now.tv_nsec - then->tv_nsec) / 1000;
		us = us < 1 ? 1 : us;
	}
	t.it_value.tv_sec = us / 1000000;
	t.it_value.tv_usec = us % 1000000;
	return t;
}

// restore undoes what being a child of the supervisor has changed.
static void restore(const struct inherited *in)
{
	struct rlimit files = {in->nofile_soft, in->nofile_hard};

	if (in->nofile_hard > 0)
		call4(SYS_prlimit64, 0, RLIMIT_NOFILE, &files, 0);
	for (int i = 0; i < 3; i++) {
		struct itimerval t = left(in->timers[i], &in->timers_at, i == ITIMER_REAL);
		if (t.it_value.tv_sec || t.it_value.tv_usec)
			call3(SYS_setitimer, i, &t, 0);
	}
	if (in->subreaper)
		call5(SYS_prctl, PR_SET_CHILD_SUBREAPER, in->subreaper, 0, 0, 0);
	if (in->pdeathsig)
		call5(SYS_prctl, PR_SET_PDEATHSIG, in->pdeathsig, 0, 0, 0);
	if (in->sched.flags & SCHED_FLAG_RESET_ON_FORK) {
		struct sched sched = in->sched;

		if (call3(SYS_sched_setattr, 0, &sched, 0) < 0) {
			// A policy and a nice value that were lost at the fork need a
			// privilege; the flag needs none.
			sched.policy = sched.priority = sched.nice = 0;
			call3(SYS_sched_setattr, 0, &sched, 0);
		}
	}
	for (int sig = 1; sig <= 64; sig++)
		if (in->ignored & BIT(sig))
			action(sig, 1); // SIG_IGN
	// What waited for us while it was blocked waits for the command.
	for (int sig = 1; sig <= 64; sig++)
		if (in->pending & in->blocked & BIT(sig))
			call2(SYS_kill, call0(SYS_getpid), sig);
	call4(SYS_rt_sigprocmask, SIG_SETMASK, &in->blocked, 0, 8);
}

// run is execvp(3) over the paths that may exist. It returns where all fail.
static long run(const struct plan *p)
{
	long err = -ENOENT, denied = 0;

	for (const char **path = p->paths; *path; path++) {
		err = call3(SYS_execve, *path, p->argv, p->envp);
		if (err == -ENOEXEC) { // a text without #! is the shell's
			char **argv = p->argv - 1, *name = p->argv[0];
			argv[0] = "/bin/sh";
			argv[1] = (char *)*path;
			err = call3(SYS_execve, argv[0], argv, p->envp);
			argv[1] = name;
		}
		switch (err) {
		case -EACCES:
			denied = err;
			break;
		case -ENOENT: case -ENOTDIR: case -ESTALE: case -ENODEV: case -ETIMEDOUT:
			break;
		default:
			return err;
		}
	}
	return denied ? denied : err;
}

// become is the guard's child on its way to the command.
static int become(void *arg)
{
	const struct plan *p = arg;
	long r;

	// All signals are still blocked: what is pending here reached the command.
	while (!shared.sample)
		nap(10000);
	call2(SYS_rt_sigpending, &shared.pending, 8);
	shared.sampled = 1;
	settle_files(p);
	if (p->dir && (r = call1(SYS_chdir, p->dir)) < 0)
		fail(STAGE_DIR, r);
	if (p->no_new_privs > 0 && (r = call5(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) < 0)
		fail(STAGE_PRIVS, r);
	restore(p->in);
	r = call3(SYS_seccomp, SECCOMP_SET_MODE_FILTER, p->flags, &p->prog);
	if (r == -EACCES && p->no_new_privs < 0) {
		if ((r = call5(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) < 0)
			fail(STAGE_PRIVS, r);
		r = call3(SYS_seccomp, SECCOMP_SET_MODE_FILTER, p->flags, &p->prog);
	}
	if (r < 0)
		fail(STAGE_FILTER, r);
	shared.result = r + 1;
	// From here on any call may be trapped, also this one, which then waits
	// for the supervisor to be ready.
	while (!shared.go)
		call0(SYS_sched_yield);
	shared.going = 1;
	fail(STAGE_EXEC, run(p));
	return 0;
}

// The guard's own state.
static struct {
	int control, signals;
	pid_t command;
	int started; // the command runs, or has run
	int over;    // it has ended
	int alone;   // and so has all that it left behind
	int leave;
	int orphans; // why orphans do not become the guard's children: an errno, or 0
} guard;

static void quit(void) { call1(SYS_exit_group, 0); }

// tell sends a message, with a descriptor if fd is one. A supervisor that is
// gone is seen when the control socket is read.
static void tell(uint32_t kind, int32_t a, int32_t b, uint64_t c, int fd)
{
	struct message m = {kind, a, b, c};
	struct iovec data = {&m, sizeof m};
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} rights = {{0}};
	struct msghdr msg = {.msg_iov = &data, .msg_iovlen = 1};

	if (fd >= 0) {
		msg.msg_control = rights.room;
		msg.msg_controllen = sizeof rights.room;
		struct cmsghdr *h = CMSG_FIRSTHDR(&msg);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(int));
		*(int *)CMSG_DATA(h) = fd;
	}
	while (call3(SYS_sendmsg, guard.control, &msg, MSG_NOSIGNAL) == -EINTR)
		;
}

// same_group reports whether the command is in the guard's process group, after
// the guard has followed it there if it may. A command in another session
// cannot be followed.
static int same_group(void)
{
	long theirs = call1(SYS_getpgid, guard.command), ours = call1(SYS_getpgid, 0);

	if (theirs == ours)
		return 1;
	if (theirs > 0 && !guard.over)
		call2(SYS_setpgid, 0, theirs);
	return 0;
}

// reap collects children that have ended: the command, and what it left behind,
// whose parent the guard is as a subreaper.
static void reap(void)
{
	int status;

	for (;;) {
		long pid = call4(SYS_wait4, -1, &status, WNOHANG | WUNTRACED | WCONTINUED | __WALL, 0);
		if (pid == -ECHILD && guard.over && !guard.alone) {
			guard.alone = 1;
			tell(MSG_ALONE, 0, 0, 0, -1);
		}
		if (pid <= 0)
			return;
		if (pid != guard.command)
			continue;
		if (WIFSTOPPED(status))
			tell(MSG_STOPPED, WSTOPSIG(status), 0, 0, -1);
		else if (WIFCONTINUED(status)) {
			// A supervisor that has stopped with its command goes on with it.
			call2(SYS_kill, call0(SYS_getppid), SIGCONT);
			tell(MSG_CONTINUED, 0, 0, 0, -1);
		} else {
			guard.over = 1;
			tell(MSG_EXITED, status, 0, 0, -1);
		}
	}
}

// take_signals reads what the guard was sent, and returns the set.
static uint64_t take_signals(int say)
{
	struct signalfd_siginfo all[16];
	uint64_t set = 0;
	long n;

	while ((n = call3(SYS_read, guard.signals, all, sizeof all)) > 0)
		for (size_t i = 0; i < n / sizeof all[0]; i++) {
			int sig = all[i].ssi_signo;
			set |= BIT(sig);
			if (say && sig != SIGCHLD)
				tell(MSG_SAW, sig, same_group(), all[i].ssi_code, -1);
		}
	if (say)
		reap();
	return set;
}

// kill_children kills all children, and theirs once they are ours, until there are none.
static void kill_children(void)
{
	char text[4096];
	long fd, n;

	for (int blind = 0; blind < 1000;) {
		if (!guard.over)
			call2(SYS_kill, guard.command, SIGKILL);
		fd = call4(SYS_openat, AT_FDCWD, "/proc/thread-self/children", O_RDONLY | O_CLOEXEC, 0);
		if (fd >= 0) {
			long pid = 0;
			while ((n = call3(SYS_read, fd, text, sizeof text)) > 0)
				for (long i = 0; i < n; i++) {
					if (text[i] >= '0' && text[i] <= '9') {
						pid = 10 * pid + text[i] - '0';
					} else if (pid > 1) {
						call2(SYS_kill, pid, SIGKILL);
						pid = 0;
					}
				}
			call1(SYS_close, fd);
		} else {
			blind++; // without /proc only the command is known
		}
		reap();
		if (guard.alone)
			return;
		nap(500000);
	}
}

static void orphaned(void)
{
	if (!guard.leave || !guard.started)
		kill_children();
	quit();
}

// close_others closes every descriptor but the guard's own two.
static void close_others(void)
{
	unsigned low = guard.control < guard.signals ? guard.control : guard.signals;
	unsigned high = guard.control < guard.signals ? guard.signals : guard.control;
	struct rlimit files = {1024, 1024};

	if (low > 0 && call3(SYS_close_range, 0, low - 1, 0) < 0) {
		// Not there before Linux 5.9, and refused by some container profiles.
		call4(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, &files);
		unsigned end = files.rlim_max < 1 << 16 ? files.rlim_max : 1 << 16;
		for (unsigned fd = 0; fd < end; fd++)
			if (fd != low && fd != high)
				call1(SYS_close, fd);
		return;
	}
	if (high - low > 1)
		call3(SYS_close_range, low + 1, high - 1, 0);
	call3(SYS_close_range, high + 1, ~0u, 0);
}

// obey acts upon one message, or upon the supervisor's end.
static void obey(void)
{
	struct message m;
	long n = call3(SYS_read, guard.control, &m, sizeof m);

	if (n == -EINTR || n == -EAGAIN)
		return;
	if (n != sizeof m)
		orphaned();
	switch (m.kind) {
	case MSG_GO:
		reap();
		if (guard.over) { // by a signal, before it ran
			close_others();
			break;
		}
		shared.go = 1;
		while (shared.tid) { // until execve or exit
			struct timespec ts = {0, 1000000};
			call4(SYS_futex, &shared.tid, FUTEX_WAIT, shared.tid, &ts);
		}
		if (!shared.going) { // by a signal, meanwhile; reap says so
			close_others();
			break;
		}
		if (shared.err) {
			tell(MSG_FAILED, shared.err, shared.stage, 0, -1);
			quit();
		}
		guard.started = 1;
		close_others();
		tell(MSG_STARTED, guard.command, guard.orphans, 0, -1);
		break;
	case MSG_SIGNAL:
		if (guard.over)
			break;
		if (m.b) { // queued with a value
			siginfo_t info = {0};
			info.si_signo = m.a;
			info.si_code = SI_QUEUE;
			info.si_pid = call0(SYS_getpid);
			info.si_uid = call0(SYS_getuid);
			info.si_value.sival_ptr = (void *)m.c;
			if (call3(SYS_rt_sigqueueinfo, guard.command, m.a, &info) == 0)
				break;
		}
		call2(SYS_kill, guard.command, m.a);
		break;
	case MSG_SYNC:
		take_signals(1);
		reap(); // a stop or its end can be seen before the SIGCHLD for it comes
		tell(MSG_SYNCED, m.a, same_group(), 0, -1);
		break;
	case MSG_LEAVE:
		guard.leave = m.a;
		break;
	}
}

// start makes the child and takes its listener to the supervisor.
static void start(const struct plan *p)
{
	uint64_t set;
	long fd;

	take_signals(0); // there is no command yet that these could have reached
	shared.tid = 1;
	fd = clone(become, stack + sizeof stack, CLONE_VM | CLONE_FILES | CLONE_CHILD_CLEARTID | SIGCHLD, (void *)p, NULL, NULL, &shared.tid);
	if (fd < 0) {
		tell(MSG_FAILED, errno, STAGE_FORK, 0, -1);
		quit();
	}
	guard.command = fd;
	// A signal for the group that came before the child was in it is one that
	// the supervisor has to pass on.
	set = take_signals(0);
	shared.sample = 1;
	while (!shared.sampled && shared.tid)
		nap(10000);
	for (int sig = 1; sig <= 64; sig++)
		if (set & shared.pending & BIT(sig) && sig != SIGCHLD)
			tell(MSG_SAW, sig, 1, SI_USER, -1);
	while (!shared.result && shared.tid)
		nap(20000);
	if (shared.err) {
		tell(MSG_FAILED, shared.err, shared.stage, 0, -1);
		quit();
	}
	if (shared.result) {
		fd = shared.result - 1;
		tell(MSG_LISTENER, 0, 0, 0, fd);
		call1(SYS_close, fd);
	}
	reap(); // a signal may have ended the child
}

// watch is the guard's loop.
static void watch(void)
{
	struct pollfd both[2] = {{guard.signals, POLLIN, 0}, {guard.control, POLLIN, 0}};
	// Programs that leave their process group do so at their start, and the
	// kernel tells nobody: look a few times.
	long look = 1000000;

	for (;;) {
		struct timespec ts = {0, look};
		int looking = look < 1000000000 && guard.command && !guard.over;
		long n = call5(SYS_ppoll, both, 2, looking ? &ts : 0, 0, 8);
		if (n == 0 && looking) {
			same_group();
			look *= 2;
		}
		if (n > 0 && both[0].revents)
			take_signals(1);
		if (n > 0 && both[1].revents)
			obey();
	}
}

static void guard_main(const struct plan *p)
{
	uint64_t all = ~0ull;
	long fd;

	for (int sig = 1; sig <= 64; sig++)
		action(sig, 0); // the handlers are the Go runtime's
	call5(SYS_prctl, PR_SET_NAME, "unknot-guard", 0, 0, 0);
	guard.leave = p->leave;
	guard.control = p->control;
	call1(SYS_close, p->theirs); // or the supervisor's end would never be seen
	// Above the numbers that the command's files shall have.
	fd = call3(SYS_fcntl, p->control, F_DUPFD_CLOEXEC, p->nfiles > 3 ? p->nfiles : 3);
	if (fd >= 0)
		guard.control = fd;
	fd = call4(SYS_signalfd4, -1, &all, 8, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd >= 0 && fd < p->nfiles)
		fd = call3(SYS_fcntl, fd, F_DUPFD_CLOEXEC, p->nfiles);
	guard.signals = fd;
	// Refused by some container profiles; what the command leaves behind then has
	// another parent.
	guard.orphans = -call5(SYS_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	if (fd < 0) {
		tell(MSG_FAILED, -fd, STAGE_GUARD, 0, -1);
		quit();
	}
	start(p);
	watch();
}

int unknot_guard(const struct plan *p)
{
	uint64_t all = ~0ull, old;
	long pid;

	// No handler of the Go runtime may run in the guard.
	call4(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, 8);
	pid = call5(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (pid == 0)
		guard_main(p);
	call4(SYS_rt_sigprocmask, SIG_SETMASK, &old, 0, 8);
	return pid;
}
