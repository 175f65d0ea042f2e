//go:build cgo

// What `unknot run` does before the Go runtime begins, and what it needs of C
// later. Other subcommands, and programs that use the library, are left alone.

#define _GNU_SOURCE
#include "early.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

extern char **environ;

uint64_t unknot_run_blocked;
int unknot_inherited_files[UNKNOT_MAX_FILES];
int unknot_inherited_count;

// is_run finds the arguments below the environment on the initial stack: not
// every C library hands them to constructors.
static int is_run(void)
{
	char **end = environ;

	for (long n = 1; end && n < 1 << 20; n++)
		if (((long *)end)[-(n + 2)] == n)
			return n >= 2 && strcmp(end[-n], "run") == 0;
	return 0;
}

// unblockable are signals that the Go runtime unblocks on every thread (runtime,
// blockableSig) and that are no faults. A handler passes them on.
static const int unblockable[] = {SIGHUP, SIGINT, SIGQUIT, SIGABRT, SIGTERM, SIGSTKFLT, 34};

// passed_on are the signals that are blocked from the start, so that none is
// lost, merged or answered by the Go runtime. Not those that a fault raises,
// nor those that the Go runtime or the engine use themselves.
static uint64_t passed_on(void)
{
	static const int not[] = {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS,
		SIGCHLD, SIGPROF, SIGURG, 32, 33, UNKNOT_ENGINE_SIGNAL};
	uint64_t set = ~0ull;

	for (size_t i = 0; i < sizeof not / sizeof not[0]; i++)
		set &= ~(1ull << (not[i] - 1));
	return set;
}

// list_files lists the descriptors above 2 that came with the process.
static void list_files(void)
{
	static struct pollfd all[UNKNOT_MAX_FILES];

	for (int i = 0; i < UNKNOT_MAX_FILES; i++)
		all[i].fd = i + 3;
	struct rlimit files;
	int n = UNKNOT_MAX_FILES;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < (rlim_t)n)
		n = files.rlim_cur;
	if (poll(all, n, 0) < 0)
		return;
	for (int i = 0; i < n; i++)
		if (!(all[i].revents & POLLNVAL))
			unknot_inherited_files[unknot_inherited_count++] = i + 3;
}

int unknot_signal_pipe[2] = {-1, -1};

// take takes a signal that is not blocked: it goes the way of those from the
// signalfd. The confined thread masks all of them.
static void take(int sig, siginfo_t *info, void *context)
{
	int saved = errno;
	struct unknot_signal s = {sig, info->si_code, info->si_pid, 0, (uint64_t)info->si_value.sival_ptr};

	(void)context;
	if (write(unknot_signal_pipe[1], &s, sizeof s) < 0)
		errno = saved; // a full pipe has thousands of them
	errno = saved;
}

static struct sigaction taking(void)
{
	struct sigaction act = {.sa_sigaction = take, .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};

	sigfillset(&act.sa_mask);
	return act;
}

// takes reports whether our handler is the one for sig.
static int takes(int sig)
{
	if (!unknot_run_blocked || unknot_signal_pipe[1] < 0)
		return 0;
	for (size_t i = 0; i < sizeof unblockable / sizeof unblockable[0]; i++)
		if (sig == unblockable[i])
			return 1;
	return 0;
}

void unknot_take_signals(void)
{
	struct sigaction act = taking();

	for (int sig = 1; sig <= 64; sig++)
		if (takes(sig))
			sigaction(sig, &act, NULL);
}

#ifdef __GLIBC__
extern int __sigaction(int, const struct sigaction *, struct sigaction *);

// This sigaction hides the C library's from the Go runtime, which calls it by name
// (runtime/cgo, x_cgo_sigaction). Where the runtime would install its handler, ours
// comes instead: the runtime's answers an early SIGQUIT by a dump of goroutines.
int sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	struct sigaction ours = taking();

	return __sigaction(sig, act && takes(sig) ? &ours : act, old);
}
#endif

// make_pipe makes the pipe between the handler and run, beyond the standard
// descriptors: those that are closed stay so until the Go runtime looks.
static void make_pipe(void)
{
	int low[2];

	if (pipe2(low, O_CLOEXEC | O_NONBLOCK) < 0)
		return;
	for (int i = 0; i < 2; i++) {
		unknot_signal_pipe[i] = fcntl(low[i], F_DUPFD_CLOEXEC, 3);
		close(low[i]);
	}
}

static void *sleeper(void *gate)
{
	pthread_mutex_lock(gate);
	pthread_mutex_unlock(gate);
	return NULL;
}

static void refuse(const char *what, const char *remedy)
{
	char line[300];
	int n = snprintf(line, sizeof line, "unknot: run: %s: %s\n", what, remedy);
	if (n > 0 && write(2, line, n) < 0)
		_exit(1);
	_exit(1);
}

// check_limits ends the process by one line where a limit leaves the
// supervisor too little. Later the Go runtime would end it by a long one, while
// the command runs.
static void check_limits(void)
{
	static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
	pthread_t threads[UNKNOT_THREADS];
	pthread_attr_t attr;
	struct rlimit limit;
	int n = 0, files[UNKNOT_FILES], nfiles = 0, err = 0;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		struct rlimit all = {limit.rlim_max, limit.rlim_max}; // as the Go runtime does
		setrlimit(RLIMIT_NOFILE, &all);
	}
	while (nfiles < UNKNOT_FILES && (files[nfiles] = fcntl(2, F_DUPFD_CLOEXEC, 3)) >= 0)
		nfiles++;
	err = errno;
	for (int i = 0; i < nfiles; i++)
		close(files[i]);
	setrlimit(RLIMIT_NOFILE, &limit);
	if (nfiles < UNKNOT_FILES && err == EMFILE)
		refuse("too few file descriptors are free for the supervisor", "raise the limit (ulimit -n, RLIMIT_NOFILE)");

	pthread_attr_init(&attr);
	pthread_mutex_lock(&gate);
	for (err = 0; n < UNKNOT_THREADS && !err; n += !err)
		err = pthread_create(&threads[n], &attr, sleeper, &gate);
	pthread_mutex_unlock(&gate);
	for (int i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	if (err && err != EAGAIN && err != ENOMEM) // the C library asks again by clone only if clone3 is ENOSYS
		refuse("the threads of the supervisor cannot be made", "does a container's seccomp profile refuse clone3(2)? allow it there, or have it say ENOSYS");
	if (err)
		refuse("the threads of the supervisor cannot be made", "raise the limit of processes (ulimit -u, pids.max) or of address space (ulimit -v, -d)");
	if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < UNKNOT_ADDRESS_SPACE)
		refuse("the limit of address space is too low for the supervisor", "raise it to 1500 MiB (ulimit -v)");
	if (getrlimit(RLIMIT_DATA, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < UNKNOT_DATA)
		refuse("the limit of data is too low for the supervisor", "raise it to 256 MiB (ulimit -d)");
}

// After the recorder of package launch.
__attribute__((constructor(102))) static void early(void)
{
	static const struct itimerval none;
	static const struct timespec now;
	sigset_t set;
	uint64_t pending = 0;
	int saved = errno;

	if (!is_run())
		return;
	unknot_run_blocked = passed_on();
	sigemptyset(&set);
	for (int sig = 1; sig <= 64; sig++)
		if (unknot_run_blocked & 1ull << (sig - 1))
			sigaddset(&set, sig);
	// What waited for the command already is given to it when it starts. All of
	// it is taken before the mask changes, by which some would be unblocked.
	syscall(SYS_rt_sigpending, &pending, 8);
	for (int sig = 1; sig <= 64; sig++) {
		uint64_t one = pending & 1ull << (sig - 1);
		while (one && syscall(SYS_rt_sigtimedwait, &one, NULL, &now, 8) == sig)
			;
	}
	pthread_sigmask(SIG_SETMASK, &set, NULL);
	// So are its timers.
	for (int i = 0; i < 3; i++)
		setitimer(i, &none, NULL);
	list_files();
#ifdef __GLIBC__
	// One arena for all threads: each would take 64 MiB of address space.
	mallopt(M_ARENA_MAX, 1);
#endif
	check_limits();
	make_pipe();
	errno = saved;
}

int unknot_die(int sig)
{
	struct rlimit none = {0, 0};
	sigset_t one;

	// The command's own core is the one that tells something.
	setrlimit(RLIMIT_CORE, &none);
	signal(sig, SIG_DFL);
	sigemptyset(&one);
	sigaddset(&one, sig);
	pthread_sigmask(SIG_UNBLOCK, &one, NULL);
	// For this thread, which does not return then. Another one's would take its time.
	return raise(sig);
}

void unknot_stop_begin(int sig)
{
	signal(sig, SIG_DFL);
	// For this thread: the reader of the signalfd could take the process's. While
	// it is blocked: one that waits already and this one are one stop.
	raise(sig);
}

void unknot_stop_end(int sig, int stop)
{
	static const struct timespec now;
	sigset_t one, old;

	sigemptyset(&one);
	sigaddset(&one, sig);
	if (!stop) {
		sigtimedwait(&one, NULL, &now);
		return;
	}
	pthread_sigmask(SIG_UNBLOCK, &one, &old);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}
