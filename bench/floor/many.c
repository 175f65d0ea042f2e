// Yardstick for many listeners: L target processes, each under a filter and a listener of its own, THREADS threads each,
// that call getppid in a closed loop; a bare supervisor answers at once.
//   many L THREADS thread SYNC SECONDS          one blocked thread per listener
//   many L THREADS pool:K[:pin] SYNC SECONDS    K threads with an epoll instance each, listeners dealt out in turn;
//                                               with pin, thread i stays on CPU i
//   many L THREADS connect:SOCKET 0 SECONDS     another supervisor: L listeners are handed over on a UNIX socket, whose
//                                               other end then writes a byte (see supervise/)
// Prints calls/s in all, the slowest listener's calls/s, and p50, p99, p99.9 of the round trip (us, as the targets time it;
// p99.9 is the worst listener's).
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#endif
enum { MAXL = 512, MAXT = 1024, SUB = 4, BUCKETS = 64 << SUB };

struct listener { uint64_t hist[BUCKETS], calls; };
static struct { volatile int go, stop; struct listener l[MAXL]; } *sh;
static int threads;

static uint64_t now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000ull + t.tv_nsec; }
static unsigned bucket(uint64_t v) {
	if (v < 1u << SUB) return v;
	int e = 63 - __builtin_clzll(v);
	return (e - SUB + 1) * (1 << SUB) + (v >> (e - SUB) & ((1 << SUB) - 1));
}
static double lower(unsigned b) {
	if (b < 1u << SUB) return b;
	int e = b / (1 << SUB) + SUB - 1;
	return (double)(1ull << e) + (double)(b % (1 << SUB)) * (double)(1ull << (e - SUB));
}
static void sendfd(int s, int fd) {
	char b[CMSG_SPACE(4)] = {0}, c = 'x'; struct iovec v = {&c, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = b, .msg_controllen = sizeof b};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m); h->cmsg_level = SOL_SOCKET; h->cmsg_type = SCM_RIGHTS; h->cmsg_len = CMSG_LEN(4);
	memcpy(CMSG_DATA(h), &fd, 4); sendmsg(s, &m, 0);
}
static int recvfd(int s) {
	char b[CMSG_SPACE(4)], c; struct iovec v = {&c, 1}; int fd = -1;
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = b, .msg_controllen = sizeof b};
	if (recvmsg(s, &m, 0) == 1 && CMSG_FIRSTHDR(&m)) memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), 4);
	return fd;
}
static void *call(void *p) {
	struct listener *l = p; uint64_t h[BUCKETS] = {0}, n = 0;
	while (!sh->go) sched_yield();
	while (!sh->stop) { uint64_t t = now(); syscall(SYS_getppid); h[bucket(now() - t)]++; n++; }
	for (int i = 0; i < BUCKETS; i++) if (h[i]) __sync_fetch_and_add(&l->hist[i], h[i]);
	__sync_fetch_and_add(&l->calls, n);
	return 0;
}
static void target(int s, int i) {
	struct sock_filter f[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
	struct sock_fprog p = {4, f}; pthread_t t[MAXT];
	prctl(PR_SET_PDEATHSIG, SIGKILL); prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	int fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &p);
	if (fd < 0) { perror("seccomp"); _exit(1); }
	sendfd(s, fd); close(fd);
	for (int k = 0; k < threads; k++) pthread_create(&t[k], 0, call, &sh->l[i]);
	for (int k = 0; k < threads; k++) pthread_join(t[k], 0);
	_exit(0);
}
// serve makes one RECV and answers; 0 when the listener is over.
static int serve(int fd) {
	struct seccomp_notif r; memset(&r, 0, sizeof r);
	if (ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &r)) {
		struct pollfd p = {fd, POLLIN, 0};
		return errno == EINTR || (poll(&p, 1, 0), !(p.revents & POLLHUP));
	}
	struct seccomp_notif_resp a = {.id = r.id, .val = 42};
	while (ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &a) && errno == EINTR);
	return 1;
}
static void *blocked(void *p) { int fd = (int)(long)p; while (serve(fd)); return 0; }
static int pinned;
static void *pool(void *p) {
	int ep = (int)(long)p & 0xffff, k = (int)((long)p >> 16); struct epoll_event ev[16];
	if (pinned) { cpu_set_t s; CPU_ZERO(&s); CPU_SET(k, &s); sched_setaffinity(0, sizeof s, &s); }
	for (;;) {
		int n = epoll_wait(ep, ev, 16, -1);
		for (int i = 0; i < n; i++)
			if (ev[i].events & EPOLLIN ? !serve(ev[i].data.fd) : ev[i].events & EPOLLHUP) epoll_ctl(ep, EPOLL_CTL_DEL, ev[i].data.fd, 0);
	}
	return 0;
}
// hand gives the listeners to the supervisor at a socket, and keeps none.
static void hand(const char *path, int *fds, int n) {
	struct sockaddr_un u = {.sun_family = AF_UNIX}; char c; int s = socket(AF_UNIX, SOCK_STREAM, 0);
	strncpy(u.sun_path, path, sizeof u.sun_path - 1);
	if (connect(s, (void *)&u, sizeof u)) { perror(path); exit(1); }
	for (int i = 0; i < n; i++) { sendfd(s, fds[i]); close(fds[i]); }
	if (read(s, &c, 1) != 1) { fprintf(stderr, "the supervisor hung up\n"); exit(1); }
}
static double quantile(const uint64_t *h, double q) {
	uint64_t n = 0, c = 0; for (int i = 0; i < BUCKETS; i++) n += h[i];
	for (int i = 0; i < BUCKETS; i++) if ((c += h[i]) >= q * n && n) return lower(i) / 1e3;
	return 0;
}
int main(int ac, char **av) {
	if (ac < 6) { fprintf(stderr, "usage: many LISTENERS THREADS thread|pool:K[:pin]|connect:SOCKET SYNC SECONDS\n"); return 2; }
	int L = atoi(av[1]), k = 0, sync = atoi(av[4]), ep[64]; double secs = atof(av[5]); threads = atoi(av[2]);
	if (sscanf(av[3], "pool:%d", &k) == 1) pinned = strstr(av[3], ":pin") != 0;
	if (L < 1 || L > MAXL || threads < 1 || threads > MAXT || k > 64) return 2;
	sh = mmap(0, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int fds[MAXL], pids[MAXL]; pthread_t t;
	for (int i = 0; i < L; i++) {
		int sp[2]; socketpair(AF_UNIX, SOCK_STREAM, 0, sp);
		if (!(pids[i] = fork())) target(sp[1], i);
		close(sp[1]); if ((fds[i] = recvfd(sp[0])) < 0) return 1;
		close(sp[0]);
		if (sync && ioctl(fds[i], SECCOMP_IOCTL_NOTIF_SET_FLAGS, 1ul)) perror("set flags");
	}
	const char *socket = strncmp(av[3], "connect:", 8) ? 0 : av[3] + 8;
	if (socket) hand(socket, fds, L);
	for (int i = 0; i < k; i++) { ep[i] = epoll_create1(0); pthread_create(&t, 0, pool, (void *)(long)(i << 16 | ep[i])); }
	for (int i = 0; i < L && !socket; i++) {
		if (!k) { pthread_create(&t, 0, blocked, (void *)(long)fds[i]); continue; }
		struct epoll_event e = {.events = EPOLLIN, .data.fd = fds[i]}; epoll_ctl(ep[i % k], EPOLL_CTL_ADD, fds[i], &e);
	}
	uint64_t t0 = now(); sh->go = 1; usleep(secs * 1e6); sh->stop = 1;
	for (int i = 0; i < L; i++) waitpid(pids[i], 0, 0);
	double el = (now() - t0) / 1e9, slow = 1e18, worst = 0; uint64_t all[BUCKETS] = {0}, n = 0;
	for (int i = 0; i < L; i++) {
		struct listener *l = &sh->l[i]; double q = quantile(l->hist, .999);
		if (q > worst) worst = q;
		if (l->calls / el < slow) slow = l->calls / el;
		n += l->calls; for (int b = 0; b < BUCKETS; b++) all[b] += l->hist[b];
	}
	printf("listeners=%d threads=%d %s sync=%d: %.0f/s slowest %.0f/s p50 %.1f p99 %.1f worst p99.9 %.1f us\n", L, threads, av[3], sync, n / el, slow, quantile(all, .5), quantile(all, .99), worst);
}
