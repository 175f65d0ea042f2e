//go:build cgo

// The recorder: what this process was started with, before the Go runtime
// changes it. The runtime installs handlers over ignored signals, opens
// /dev/null on closed standard descriptors and raises the limit of open files.

#define _GNU_SOURCE
#include "guard.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct inherited unknot_inherited;

extern char **environ;

// The lowest priority that programs may use, so that other constructors may
// change what is recorded here.
__attribute__((constructor(101))) static void record(void)
{
	struct inherited *in = &unknot_inherited;
	struct sigaction act;
	struct rlimit files;
	struct sched sched;
	int number = 0, saved = errno;
	size_t n = 0;

	for (int sig = 1; sig <= 64; sig++)
		if (syscall(SYS_rt_sigaction, sig, NULL, &act, 8) == 0 && act.sa_handler == SIG_IGN)
			in->ignored |= 1ull << (sig - 1);
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &in->blocked, 8);
	syscall(SYS_rt_sigpending, &in->pending, 8);
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
			in->closed |= 1u << fd;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0)
		in->nofile_soft = files.rlim_cur, in->nofile_hard = files.rlim_max;
	for (int i = 0; i < 3; i++)
		getitimer(i, &in->timers[i]);
	clock_gettime(CLOCK_MONOTONIC, &in->timers_at);
	if (prctl(PR_GET_PDEATHSIG, &number, 0, 0, 0) == 0)
		in->pdeathsig = number;
	if (prctl(PR_GET_CHILD_SUBREAPER, &number, 0, 0, 0) == 0)
		in->subreaper = number;
	if (syscall(SYS_sched_getattr, 0, &sched, sizeof sched, 0) == 0) {
		in->sched = sched;
		in->sched.runtime = in->sched.deadline = in->sched.period = 0;
	}
	in->main_tid = syscall(SYS_gettid);
	in->execfn = (const char *)getauxval(AT_EXECFN);
	// The program may change its environment later; what came with it stays.
	while (environ && environ[n])
		n++;
	in->env = calloc(n + 1, sizeof *in->env);
	if (in->env && n > 0)
		memcpy(in->env, environ, n * sizeof *in->env);
	in->recorded = 1;
	errno = saved;
}
