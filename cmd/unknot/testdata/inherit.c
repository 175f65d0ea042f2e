// inherit says what a process inherits, and prepares what shall be inherited.
//
//	inherit facts FILE [ANYTHING ...]     writes one "fact<TAB>value" a line to FILE
//	inherit setups                        prints the names of the set-ups
//	inherit with SETUP PROGRAM [ARG ...]  changes itself, then becomes PROGRAM
//
// TestRunInheritance compares the facts of a process that a set-up became with
// those of one that "unknot run" started after the same set-up.

#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

// Newer than some C libraries' headers.
enum { SET_MDWE = 65, GET_MDWE, SET_KSM, GET_KSM, SET_FLUSHER = 57, GET_FLUSHER };

extern char **environ;

static FILE *out;

// fact writes a name and a value, whose bytes may be any.
static void fact(const char *name, const char *format, ...)
{
	static char value[1 << 18];
	va_list args;

	va_start(args, format);
	int n = vsnprintf(value, sizeof value, format, args);
	va_end(args);
	fprintf(out, "%s\t", name);
	for (int i = 0; i < n && i < (int)sizeof value - 1; i++) {
		unsigned char c = value[i];
		if (c >= ' ' && c < 0x7f && c != '\\')
			putc(c, out);
		else
			fprintf(out, "\\x%02x", c);
	}
	putc('\n', out);
}

// numbered is fact with a number in the name.
static const char *numbered(const char *name, int i)
{
	static char s[64];
	snprintf(s, sizeof s, "%s %d", name, i);
	return s;
}

static void file(const char *name, const char *path)
{
	char b[4096];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, b, sizeof b - 1);

	if (n < 0)
		fact(name, "%s", strerror(errno));
	else {
		b[n] = 0;
		fact(name, "%s", b);
	}
	if (fd >= 0)
		close(fd);
}

static void target(const char *name, const char *path)
{
	char b[4096];
	ssize_t n = readlink(path, b, sizeof b - 1);

	if (n >= 0)
		b[n] = 0;
	fact(name, "%s", n < 0 ? strerror(errno) : b);
}

static char *set_of(const sigset_t *s)
{
	static char b[300];
	int n = 0;

	b[0] = 0;
	for (int i = 1; i <= 64; i++)
		if (sigismember(s, i) == 1)
			n += sprintf(b + n, n ? " %d" : "%d", i);
	return b;
}

// same says whether a number is that of the process that was set up.
static const char *same(const char *variable, long now)
{
	const char *then = getenv(variable);
	return then && atol(then) == now ? "the caller's" : "another";
}

static void signals(void)
{
	sigset_t set, ignored, caught, pending;
	stack_t stack;

	sigprocmask(SIG_SETMASK, NULL, &set);
	fact("blocked signals", "%s", set_of(&set));
	sigemptyset(&ignored);
	sigemptyset(&caught);
	for (int i = 1; i <= 64; i++) {
		struct {
			void *handler;
			unsigned long flags;
			void *restorer;
			unsigned long mask;
		} kernel = {0};
		if (syscall(SYS_rt_sigaction, i, NULL, &kernel, 8) < 0)
			continue;
		if (kernel.handler == SIG_IGN)
			sigaddset(&ignored, i);
		else if (kernel.handler != SIG_DFL)
			sigaddset(&caught, i);
	}
	fact("ignored signals", "%s", set_of(&ignored));
	fact("caught signals", "%s", set_of(&caught));
	sigpending(&pending);
	fact("pending signals", "%s", set_of(&pending));
	sigaltstack(NULL, &stack);
	fact("alternate stack", "%d", stack.ss_flags);
}

static void descriptors(const int *there)
{
	for (int fd = 0; fd < 64; fd++) {
		char path[64], to[512] = "";
		struct termios t;
		struct winsize w;
		if (!there[fd]) {
			if (fd < 3)
				fact(numbered("descriptor", fd), "closed");
			continue;
		}
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		if (readlink(path, to, sizeof to - 1) < 0)
			strcpy(to, "?");
		if (strncmp(to, "/dev/pts/", 9) == 0)
			strcpy(to, "/dev/pts");
		if (strncmp(to, "pipe:", 5) == 0 || strncmp(to, "socket:", 7) == 0)
			*strchr(to, ':') = 0; // the number differs from run to run
		fact(numbered("descriptor", fd), "%s, flags %#o %#o, offset %lld", to, fcntl(fd, F_GETFL), fcntl(fd, F_GETFD), (long long)lseek(fd, 0, SEEK_CUR));
		if (tcgetattr(fd, &t) == 0)
			fact(numbered("terminal settings", fd), "%x %x %x %x", t.c_iflag, t.c_oflag, t.c_cflag, t.c_lflag);
		if (ioctl(fd, TIOCGWINSZ, &w) == 0)
			fact(numbered("window size", fd), "%d %d", w.ws_row, w.ws_col);
	}
}

static void scheduling(void)
{
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime, deadline, period;
	} attr = {0};
	unsigned long nodes[16] = {0};
	cpu_set_t cpus;
	char b[200] = "";
	int mode = -1;

	syscall(SYS_sched_getattr, 0, &attr, sizeof attr, 0);
	fact("scheduling policy", "%u", attr.policy);
	fact("real-time priority", "%u", attr.priority);
	fact("nice value", "%d", attr.nice);
	fact("reset on fork", "%d", (int)(attr.flags & 1));
	fact("I/O priority", "%ld", syscall(SYS_ioprio_get, 1, 0));
	sched_getaffinity(0, sizeof cpus, &cpus);
	for (int i = 0; i < 64; i++)
		if (CPU_ISSET(i, &cpus))
			sprintf(b + strlen(b), " %d", i);
	fact("CPU affinity", "%s", b);
	syscall(SYS_get_mempolicy, &mode, nodes, 1024, 0, 0);
	fact("memory policy", "%d %lx", mode, nodes[0]);
	FILE *f = fopen("/proc/self/autogroup", "re"); // whose number is the session's
	if (f && fscanf(f, "%*s nice %d", &mode) == 1)
		fact("autogroup nice value", "%d", mode);
	if (f)
		fclose(f);
	file("CPU cgroups", "/proc/self/cgroup");
}

static void identity(void)
{
	uid_t r, e, s;
	gid_t groups[64];
	char b[1000] = "";
	int n, tty;

	fact("process id", "%s", same("SEE_PID", getpid()));
	fact("parent", "%s", same("SEE_PPID", getppid()));
	fact("process group", "%s", same("SEE_PGID", getpgrp()));
	fact("session", "%s", same("SEE_SID", getsid(0)));
	fact("leads its process group", "%d", getpgrp() == getpid());
	fact("leads its session", "%d", getsid(0) == getpid());
	tty = open("/dev/tty", O_RDONLY | O_NOCTTY | O_CLOEXEC);
	fact("controlling terminal", "%s", tty < 0 ? "none" : "one");
	if (tty >= 0) {
		fact("in the terminal's foreground", "%d", tcgetpgrp(tty) == getpgrp());
		close(tty);
	}
	getresuid(&r, &e, &s);
	fact("user ids", "%d %d %d", r, e, s);
	getresgid(&r, &e, &s);
	fact("group ids", "%d %d %d", r, e, s);
	n = getgroups(64, groups);
	for (int i = 0; i < n; i++)
		sprintf(b + strlen(b), " %d", groups[i]);
	fact("supplementary groups", "%s", b);
	b[0] = 0;
	for (int i = 0; i < 41; i++)
		if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, i, 0, 0) == 1)
			sprintf(b + strlen(b), " %d", i);
	fact("ambient capabilities", "%s", b);
	fact("children at the start", "%s", waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD ? "none" : "some");
	fact("session keyring", "%s", syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0) < 0 ? strerror(errno) : "one");
}

static void attributes(void)
{
	static const char *limits[] = {"cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as",
		"locks", "sigpending", "msgqueue", "nice", "rtprio", "rttime"};
	static const struct {
		const char *name;
		int option;
	} values[] = {
		{"no_new_privs", PR_GET_NO_NEW_PRIVS}, {"seccomp mode", PR_GET_SECCOMP}, {"dumpable", PR_GET_DUMPABLE},
		{"keep capabilities", PR_GET_KEEPCAPS}, {"securebits", PR_GET_SECUREBITS}, {"timer slack", PR_GET_TIMERSLACK},
		{"transparent huge pages off", 42}, {"machine check policy", PR_MCE_KILL_GET}, {"I/O flusher", GET_FLUSHER},
		{"memory deny write execute", GET_MDWE}, {"memory merging", GET_KSM},
	};
	int number;
	mode_t mask = umask(0);

	umask(mask);
	fact("umask", "%03o", mask);
	for (int i = 0; i < 16; i++) {
		struct rlimit r;
		char name[40];
		getrlimit(i, &r);
		snprintf(name, sizeof name, "limit %s", limits[i]);
		fact(name, "%lld %lld", (long long)r.rlim_cur, (long long)r.rlim_max);
	}
	for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
		fact(values[i].name, "%d", prctl(values[i].option, 0, 0, 0, 0));
	number = -1;
	prctl(PR_GET_CHILD_SUBREAPER, &number);
	fact("child subreaper", "%d", number);
	number = -1;
	prctl(PR_GET_PDEATHSIG, &number);
	fact("parent-death signal", "%d", number);
	number = -1;
	prctl(PR_GET_TSC, &number);
	fact("time stamp counter", "%d", number);
	for (int i = 0; i < 3; i++)
		fact(numbered("speculation", i), "%d", prctl(PR_GET_SPECULATION_CTRL, i, 0, 0, 0));
	fact("personality", "%#x", personality(0xffffffff));
	for (int i = 0; i < 3; i++) {
		struct itimerval t;
		getitimer(i, &t);
		// A command starts at most some seconds after its caller.
		fact(numbered("interval timer", i), "%s, every %ld s", t.it_value.tv_sec > 500 ? "10 minutes" : t.it_value.tv_sec || t.it_value.tv_usec ? "less" : "off", (long)t.it_interval.tv_sec);
	}
}

static void kernels(void)
{
	static const char *ns[] = {"cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user", "uts"};
	static const char *wanted[] = {"Umask", "TracerPid", "Threads", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "Seccomp_filters",
		"Speculation_Store_Bypass", "SpeculationIndirectBranch", "THP_enabled", "CoreDumping", "Mems_allowed_list", "untag_mask"};
	char line[1000], path[64], name[1100];

	fact("AT_SECURE", "%lu", getauxval(AT_SECURE));
	fact("AT_EXECFN", "%s", (char *)getauxval(AT_EXECFN));
	fact("AT_PLATFORM", "%s", (char *)getauxval(AT_PLATFORM));
	fact("AT_HWCAP", "%lx %lx", getauxval(AT_HWCAP), getauxval(AT_HWCAP2));
	fact("AT_PAGESZ", "%lu", getauxval(AT_PAGESZ));
	fact("AT_CLKTCK", "%lu", getauxval(AT_CLKTCK));
	fact("AT_FLAGS", "%lu", getauxval(AT_FLAGS));
	for (size_t i = 0; i < sizeof ns / sizeof ns[0]; i++) {
		snprintf(path, sizeof path, "/proc/self/ns/%s", ns[i]);
		snprintf(name, sizeof name, "namespace %s", ns[i]);
		target(name, path);
	}
	file("oom_score_adj", "/proc/self/oom_score_adj");
	file("coredump_filter", "/proc/self/coredump_filter");
	file("time offsets", "/proc/self/timens_offsets");
	file("login uid", "/proc/self/loginuid");
	file("audit session", "/proc/self/sessionid");
	file("security label", "/proc/self/attr/current");
	FILE *f = fopen("/proc/self/status", "re");
	while (f && fgets(line, sizeof line, f)) {
		char *colon = strchr(line, ':');
		if (!colon)
			continue;
		*colon = 0;
		for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
			if (strcmp(line, wanted[i]) == 0) {
				snprintf(name, sizeof name, "status %s", line);
				colon[strcspn(colon + 1, "\n") + 1] = 0;
				fact(name, "%s", colon + 1 + strspn(colon + 1, " \t"));
			}
	}
	if (f)
		fclose(f);
}

static int facts(int argc, char **argv)
{
	int there[64];
	struct rusage children;
	char cwd[4096];

	for (int i = 0; i < 64; i++)
		there[i] = fcntl(i, F_GETFD) >= 0;
	int fd = open(argv[2], O_WRONLY | O_TRUNC | O_CLOEXEC);
	// Beyond what is looked at, if there is a number beyond.
	int high = fcntl(fd, F_DUPFD_CLOEXEC, 64);
	if (high >= 0) {
		close(fd);
		fd = high;
	}
	if (fd < 0 || !(out = fdopen(fd, "w"))) {
		perror(argv[2]);
		return 98;
	}
	signals(); // before anything else changes them
	descriptors(there);
	fact("number of arguments", "%d", argc);
	for (int i = 0; i < argc; i++)
		if (i != 2)
			fact(numbered("argument", i), "%s", argv[i]);
	int n = 0;
	for (; environ[n]; n++)
		if (strncmp(environ[n], "SEE_", 4))
			fact(numbered("environment", n), "%s", environ[n]);
	fact("number of environment entries", "%d", n);
	fact("working directory", "%s", getcwd(cwd, sizeof cwd) ? cwd : strerror(errno));
	file("name (comm)", "/proc/self/comm");
	target("executable", "/proc/self/exe");
	target("root directory", "/proc/self/root");
	getrusage(RUSAGE_CHILDREN, &children);
	fact("CPU time of children", "%s", children.ru_utime.tv_sec || children.ru_utime.tv_usec || children.ru_stime.tv_usec ? "some" : "none");
	scheduling();
	identity();
	attributes();
	kernels();
	fflush(out);
	return ferror(out) ? 98 : 0;
}

// The set-ups. One that this kernel or user cannot do ends with status 97.

static void must(long r)
{
	if (r < 0) {
		fprintf(stderr, "set-up: %s\n", strerror(errno));
		_exit(97);
	}
}

static void ignore(int sig) { must(signal(sig, SIG_IGN) == SIG_ERR ? -1 : 0); }

static void block(int first, int last)
{
	unsigned long set = 0;

	for (int i = first; i <= last; i++)
		set |= 1ul << (i - 1);
	must(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, NULL, 8));
}

static void limit(int what, long soft, long hard)
{
	struct rlimit r;

	must(getrlimit(what, &r));
	r.rlim_cur = soft;
	if (hard != -2)
		r.rlim_max = hard;
	must(setrlimit(what, &r));
}

static void write_to(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	must(fd);
	must(write(fd, text, strlen(text)));
	close(fd);
}

static void timer(int which, long seconds, long interval)
{
	struct itimerval t = {{interval, 0}, {seconds, 0}};
	must(setitimer(which, &t, NULL));
}

static void schedule(int policy, int priority)
{
	struct sched_param p = {.sched_priority = priority};
	must(sched_setscheduler(0, policy, &p));
}

static void on_cpu(int cpu)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	must(sched_setaffinity(0, sizeof set, &set));
}

static void to_directory(const char *name)
{
	static char path[4096];
	const char *tmp = getenv("SEE_DIR");

	snprintf(path, sizeof path, "%s/%s", tmp ? tmp : "/tmp", name);
	mkdir(path, 0777);
	must(chdir(path));
}

static void pass_file(int fd, int offset, int flags)
{
	int f = open("/etc/passwd", O_RDONLY | flags);
	must(f);
	if (offset)
		must(lseek(f, offset, SEEK_SET));
	if (f != fd) {
		must(dup2(f, fd));
		close(f);
	}
}

// environment adds entries as they are, which setenv(3) would not do.
static void environment(int n, char **more)
{
	static char *all[1000];
	int have = 0;

	for (; environ[have] && have < 900; have++)
		all[have] = environ[have];
	for (int i = 0; i < n; i++)
		all[have + i] = more[i];
	environ = all;
}

// arguments are what a set-up appends to the program's.
static char *arguments[20];

static void plain(void) {}
static void ignored_hup(void) { ignore(SIGHUP); }
static void ignored_int_quit(void) { ignore(SIGINT), ignore(SIGQUIT); }
static void ignored_pipe(void) { ignore(SIGPIPE); }
static void ignored_term_usr1(void) { ignore(SIGTERM), ignore(SIGUSR1); }
static void ignored_chld(void) { ignore(SIGCHLD); }
static void ignored_faults(void) { ignore(SIGSEGV), ignore(SIGBUS), ignore(SIGFPE), ignore(SIGSYS); }
static void ignored_stops(void) { ignore(SIGTSTP), ignore(SIGTTIN), ignore(SIGTTOU); }
static void ignored_go(void) { ignore(SIGURG), ignore(SIGPROF), ignore(40); }
static void ignored_all(void)
{
	for (int i = 1; i <= 64; i++)
		if (i != SIGKILL && i != SIGSTOP) {
			unsigned long act[4] = {1};
			must(syscall(SYS_rt_sigaction, i, act, NULL, 8));
		}
}
static void blocked_term(void) { block(SIGTERM, SIGTERM); }
static void blocked_usr1_chld(void) { block(SIGUSR1, SIGUSR1), block(SIGCHLD, SIGCHLD); }
static void blocked_faults_urg_prof(void) { block(SIGSEGV, SIGSEGV), block(SIGURG, SIGURG), block(SIGPROF, SIGPROF), block(SIGBUS, SIGFPE); }
static void blocked_real_time(void) { block(32, 64); }
static void blocked_all(void) { block(1, 64); }
static void pending_usr2(void) { block(SIGUSR2, SIGUSR2), kill(getpid(), SIGUSR2); }
static void pending_term_thread(void) { block(SIGTERM, SIGTERM), raise(SIGTERM); }
static void pending_int_hup_rt(void) { block(1, 2), block(35, 35), kill(getpid(), 1), kill(getpid(), 2), kill(getpid(), 35); }
static void pending_faults_urg_40(void)
{
	static const int sigs[] = {SIGURG, 40, SIGSEGV, SIGPROF, SIGTRAP, SIGCHLD, SIGTSTP, 34, 64};
	for (size_t i = 0; i < sizeof sigs / sizeof sigs[0]; i++)
		block(sigs[i], sigs[i]), kill(getpid(), sigs[i]);
}
static void umask_077(void) { umask(077); }
static void umask_777(void) { umask(0777); }
static void limit_files_256(void) { limit(RLIMIT_NOFILE, 256, 4096); }
static void limit_files_hard(void) { limit(RLIMIT_NOFILE, 128, 128); }
static void limit_core(void) { limit(RLIMIT_CORE, 0, 0); }
static void limit_stack_unlimited(void) { limit(RLIMIT_STACK, -1, -2); }
static void limit_stack_small(void) { limit(RLIMIT_STACK, 256 << 10, 256 << 10); }
static void limit_as_4g(void) { limit(RLIMIT_AS, 4l << 30, 4l << 30); }
static void limit_as_100m(void) { limit(RLIMIT_AS, 100 << 20, 100 << 20); }
static void limit_data_64m(void) { limit(RLIMIT_DATA, 64 << 20, 64 << 20); }
static void limit_memlock(void) { limit(RLIMIT_MEMLOCK, 0, 0); }
static void limit_cpu(void) { limit(RLIMIT_CPU, 50, 60); }
static void limit_fsize(void) { limit(RLIMIT_FSIZE, 1 << 20, 1 << 20); }
static void limit_sigpending(void) { limit(RLIMIT_SIGPENDING, 0, 0); }
static void limit_rttime(void) { limit(RLIMIT_RTTIME, 1000000, 1000000); }
static void limit_msgqueue(void) { limit(RLIMIT_MSGQUEUE, 1000, 1000); }
static void nice_5(void) { must(setpriority(PRIO_PROCESS, 0, 15)); }
static void sched_batch(void) { schedule(SCHED_BATCH, 0); }
static void sched_idle(void) { schedule(SCHED_IDLE, 0); }
static void sched_rr(void) { schedule(SCHED_RR, 3); }
static void sched_reset_on_fork(void) { schedule(SCHED_OTHER | SCHED_RESET_ON_FORK, 0); }
static void sched_rr_reset_on_fork(void) { schedule(SCHED_RR | SCHED_RESET_ON_FORK, 3); }
static void affinity_first(void) { on_cpu(0); }
static void affinity_last(void) { on_cpu(sysconf(_SC_NPROCESSORS_ONLN) - 1); }
static void io_priority(void) { must(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 7)); }
static void memory_policy(void) { unsigned long node = 1; must(syscall(SYS_set_mempolicy, 2, &node, 64)); }
static void oom_500(void) { write_to("/proc/self/oom_score_adj", "500"); }
static void coredump_filter(void) { write_to("/proc/self/coredump_filter", "0x7f"); }
static void new_session(void) { must(setsid() < 0 && getsid(0) != getpid() ? -1 : 0); }
static void new_group(void) { must(getsid(0) == getpid() ? 0 : setpgid(0, 0)); }
static void parent_death(void) { must(prctl(PR_SET_PDEATHSIG, SIGTERM)); }
static void subreaper(void) { must(prctl(PR_SET_CHILD_SUBREAPER, 1)); }
static void not_dumpable(void) { must(prctl(PR_SET_DUMPABLE, 0)); }
static void no_new_privs(void) { must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); }
static void timer_slack(void) { must(prctl(PR_SET_TIMERSLACK, 123456)); }
static void huge_pages_off(void) { must(prctl(41, 1, 0, 0, 0)); }
static void machine_check_early(void) { must(prctl(PR_MCE_KILL, 1, 1, 0, 0)); }
static void io_flusher(void) { must(prctl(SET_FLUSHER, 1, 0, 0, 0)); }
static void memory_merging(void) { must(prctl(SET_KSM, 1, 0, 0, 0)); }
static void deny_write_execute(void) { must(prctl(SET_MDWE, 3, 0, 0, 0)); }
static void speculation_store_off(void) { must(prctl(PR_SET_SPECULATION_CTRL, 0, 4, 0, 0)); }
static void speculation_indirect_off(void) { must(prctl(PR_SET_SPECULATION_CTRL, 1, 4, 0, 0)); }
static void personality_no_aslr(void) { must(personality(ADDR_NO_RANDOMIZE)); }
static void personality_linux32(void) { must(personality(PER_LINUX32)); }
static void personality_compat_layout(void) { must(personality(ADDR_COMPAT_LAYOUT)); }
static void securebits(void) { must(prctl(PR_SET_SECUREBITS, 1)); }
static void bounding_set(void) { must(prctl(PR_CAPBSET_DROP, 22, 0, 0, 0)); }
static void keep_capabilities(void) { must(prctl(PR_SET_KEEPCAPS, 1)); }
static void groups_789(void) { gid_t g[] = {7, 8, 9}; must(setgroups(3, g)); }
static void timer_real(void) { timer(ITIMER_REAL, 600, 0); }
static void timer_real_interval(void) { timer(ITIMER_REAL, 600, 7); }
static void timer_profiling(void) { timer(ITIMER_PROF, 600, 0); }
static void timer_virtual(void) { timer(ITIMER_VIRTUAL, 600, 0); }
static void fd_3_offset(void) { pass_file(3, 1, 0); }
static void fds_3_to_40(void)
{
	for (int fd = 3; fd <= 40; fd++)
		pass_file(fd, fd, 0);
}
static void fds_4_9_append(void) { pass_file(4, 0, O_NONBLOCK), pass_file(9, 3, 0); }
static void fd_60_cloexec(void) { pass_file(60, 0, 0), fcntl(60, F_SETFD, FD_CLOEXEC); }
static void fd_3_pipe(void) { int p[2]; must(pipe(p)); }
static void fd_3_socket(void) { int p[2]; must(socketpair(AF_UNIX, SOCK_STREAM, 0, p)); }
static void closed_0(void) { close(0); }
static void closed_1(void) { close(1); }
static void closed_2(void) { close(2); }
static void closed_0_1_2(void) { close(0), close(1), close(2); }
static void closed_0_with_3(void) { pass_file(3, 2, 0), close(0); }
static void nonblocking_stdin(void)
{
	int p[2];
	must(pipe(p));
	dup2(p[0], 0), dup2(p[1], 9), close(p[0]), close(p[1]);
	must(fcntl(0, F_SETFL, O_NONBLOCK));
}
static void stdin_offset(void) { pass_file(0, 7, 0); }
static void removed_directory(void) { char *d = getenv("SEE_DIR"); to_directory("removed"); must(rmdir(d ? "../removed" : "/tmp/removed")); }
static void linked_directory(void)
{
	static char pwd[4200];
	char *d = getenv("SEE_DIR");
	must(symlink("/usr", "linked") < 0 && errno != EEXIST && errno != EACCES ? -1 : 0);
	snprintf(pwd, sizeof pwd, "%s/linked", d ? d : ".");
	symlink("/usr", pwd);
	must(chdir(pwd));
	setenv("PWD", pwd, 1);
}
static void argument_bytes(void)
{
	static char *a[] = {"\xff\xfe\x80", "", "a b", "caf\xe9", "new\nline", "\"quotes'\\", "--format", "--", "\xed\xa0\x80"};
	memcpy(arguments, a, sizeof a);
}
static void argument_long(void)
{
	static char b[120000];
	memset(b, 'x', sizeof b - 1);
	arguments[0] = b;
}
static void environment_bytes(void) { static char *e[] = {"BYTES=\xff\xfe\x80", "\xff=1"}; environment(2, e); }
static void environment_repeated(void) { static char *e[] = {"TWICE=1", "TWICE=2", "TWICE=1"}; environment(3, e); }
static void environment_no_equals(void) { static char *e[] = {"LONELY", "", "=", "=x"}; environment(4, e); }
static void environment_one(void)
{
	static char *one[2]; // by which a test binary knows what it is
	for (char **e = environ; *e; e++)
		if (strncmp(*e, "UNKNOT_TEST_MAIN=", 17) == 0)
			one[0] = *e;
	environ = one;
}
static void environment_go(void)
{
	static char *e[] = {"GODEBUG=madvdontneed=1", "GOGC=50", "GOMAXPROCS=1", "GOTRACEBACK=crash", "GOMEMLIMIT=100MiB"};
	environment(5, e);
}
static void environment_own(void) { static char *e[] = {"UNKNOT_LAUNCH=", "UNKNOT_STORM=1", "UNKNOT_STORM_VICTIM=1", "UNKNOT_CONFINE=1"}; environment(4, e); }
static void environment_libraries(void) { static char *e[] = {"LD_LIBRARY_PATH=/nonexistent", "LD_BIND_NOW=1", "MALLOC_ARENA_MAX=3"}; environment(3, e); }
static void environment_big(void)
{
	static char b[120000] = "BIG=";
	static char *e[] = {b};
	memset(b + 4, 'x', sizeof b - 5);
	environment(1, e);
}

static const struct {
	const char *name;
	void (*set_up)(void);
} setups[] = {
#define S(f) {#f, f}
	S(plain), S(ignored_hup), S(ignored_int_quit), S(ignored_pipe), S(ignored_term_usr1), S(ignored_chld), S(ignored_faults),
	S(ignored_stops), S(ignored_go), S(ignored_all), S(blocked_term), S(blocked_usr1_chld), S(blocked_faults_urg_prof),
	S(blocked_real_time), S(blocked_all), S(pending_usr2), S(pending_term_thread), S(pending_int_hup_rt), S(pending_faults_urg_40),
	S(umask_077), S(umask_777), S(limit_files_256), S(limit_files_hard), S(limit_core), S(limit_stack_unlimited),
	S(limit_stack_small), S(limit_as_4g), S(limit_as_100m), S(limit_data_64m), S(limit_memlock), S(limit_cpu), S(limit_fsize),
	S(limit_sigpending), S(limit_rttime), S(limit_msgqueue), S(nice_5), S(sched_batch), S(sched_idle), S(sched_rr),
	S(sched_reset_on_fork), S(sched_rr_reset_on_fork), S(affinity_first), S(affinity_last), S(io_priority), S(memory_policy),
	S(oom_500), S(coredump_filter), S(new_session), S(new_group), S(parent_death), S(subreaper), S(not_dumpable), S(no_new_privs),
	S(timer_slack), S(huge_pages_off), S(machine_check_early), S(io_flusher), S(memory_merging), S(deny_write_execute),
	S(speculation_store_off), S(speculation_indirect_off), S(personality_no_aslr), S(personality_linux32),
	S(personality_compat_layout), S(securebits), S(bounding_set), S(keep_capabilities), S(groups_789), S(timer_real),
	S(timer_real_interval), S(timer_profiling), S(timer_virtual), S(fd_3_offset), S(fds_3_to_40), S(fds_4_9_append),
	S(fd_60_cloexec), S(fd_3_pipe), S(fd_3_socket), S(closed_0), S(closed_1), S(closed_2), S(closed_0_1_2), S(closed_0_with_3),
	S(nonblocking_stdin), S(stdin_offset), S(removed_directory), S(linked_directory), S(argument_bytes), S(argument_long),
	S(environment_bytes), S(environment_repeated), S(environment_no_equals), S(environment_one), S(environment_go),
	S(environment_own), S(environment_libraries), S(environment_big),
};
enum { SETUPS = sizeof setups / sizeof setups[0] };

static void export(const char *name, long value)
{
	char b[30];
	snprintf(b, sizeof b, "%ld", value);
	setenv(name, b, 1);
}

int main(int argc, char **argv)
{
	if (argc >= 3 && strcmp(argv[1], "facts") == 0)
		return facts(argc, argv);
	if (argc == 2 && strcmp(argv[1], "setups") == 0) {
		for (int i = 0; i < SETUPS; i++)
			puts(setups[i].name);
		return 0;
	}
	for (int i = 0; argc >= 4 && i < SETUPS; i++) {
		if (strcmp(argv[2], setups[i].name))
			continue;
		// What the Go runtime of the test has changed is not of interest.
		for (int sig = 1; sig <= 64; sig++)
			signal(sig, SIG_DFL);
		setups[i].set_up();
		if (setups[i].set_up != environment_one) {
			export("SEE_PID", getpid());
			export("SEE_PPID", getppid());
			export("SEE_PGID", getpgrp());
			export("SEE_SID", getsid(0));
		}
		char *args[200] = {0};
		int n = 0;
		for (int j = 3; j < argc && n < 150; j++)
			args[n++] = argv[j];
		for (int j = 0; j < 20 && (arguments[j]); j++)
			args[n++] = arguments[j];
		execv(args[0], args);
		perror(args[0]);
		return 96;
	}
	fprintf(stderr, "usage: see inherit.c\n");
	return 2;
}
