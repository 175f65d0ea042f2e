// signals says which signals it gets, one "number value" a line after a line
// "up", until signal 64 comes,
// or the one that the last argument names. "signals group" and "signals session" first make
// a process group or session of their own.

#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void say(int sig, int value)
{
	char line[40];
	int n = sig ? sprintf(line, "%d %d\n", sig, value) : sprintf(line, "up\n");

	if (write(1, line, n) != n)
		_exit(4);
}

static void go_on(int sig)
{
	if (write(1, sig == SIGCONT ? "cont\n" : "done\n", 5) != 5 || sig == SIGUSR1)
		_exit(5);
}

int main(int argc, char **argv)
{
	uint64_t all = ~0ull;
	siginfo_t info;

	if (argc > 1 && strcmp(argv[1], "job") == 0) {
		signal(SIGCONT, go_on);
		signal(SIGUSR1, go_on);
		say(0, 0);
		for (;;)
			pause();
	}
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, 8);
	if (argc > 1 && strcmp(argv[1], "group") == 0)
		setpgid(0, 0);
	if (argc > 1 && strcmp(argv[1], "session") == 0)
		setsid();
	int last = argc > 2 ? atoi(argv[2]) : 64;
	say(0, 0);
	for (;;) {
		int sig = syscall(SYS_rt_sigtimedwait, &all, &info, NULL, 8);
		if (sig <= 0)
			continue;
		say(sig, info.si_code == SI_QUEUE ? info.si_value.sival_int : 0);
		if (sig == last)
			return 3;
	}
}
