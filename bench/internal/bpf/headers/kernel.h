/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The little of the kernel that the programs here see. It is written out by
 * hand instead of taken from vmlinux.h or libbpf's headers, so that an object
 * depends on nothing but this directory and the compiler: regenerating it on
 * another machine gives the same bytes.
 *
 * Helper numbers and ioctl numbers are kernel ABI (include/uapi/linux/bpf.h,
 * include/uapi/linux/seccomp.h). pt_regs is not, so its fields are relocated
 * when the program is loaded (CO-RE).
 */
#ifndef UNKNOT_KERNEL_H
#define UNKNOT_KERNEL_H

typedef unsigned char __u8;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;
typedef _Bool bool;
#define true 1
#define false 0

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* The notation of BTF-defined maps. */
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name

enum { BPF_MAP_TYPE_ARRAY = 2, BPF_MAP_TYPE_PERCPU_ARRAY = 6, BPF_MAP_TYPE_TASK_STORAGE = 29 };
/*
 * An array that can be mapped begins at a page, others anywhere: with it, what is a
 * cache line long is in one. Nobody maps it.
 */
enum { BPF_F_NO_PREALLOC = 1, BPF_F_MMAPABLE = 1 << 10, BPF_LOCAL_STORAGE_GET_F_CREATE = 1 };

struct task_struct;

struct bpf_pidns_info {
	__u32 pid;
	__u32 tgid;
};

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static __u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static __u64 (*const bpf_get_current_pid_tgid)(void) = (void *)14;
static struct task_struct *(*const bpf_get_current_task_btf)(void) = (void *)158;
static long (*const bpf_probe_read_user)(void *dst, __u32 size, const void *src) = (void *)112;
static long (*const bpf_probe_read_kernel)(void *dst, __u32 size, const void *src) = (void *)113;
static long (*const bpf_get_ns_current_pid_tgid)(__u64 dev, __u64 ino, struct bpf_pidns_info *ns, __u32 size) = (void *)120;

static void *(*const bpf_task_storage_get)(void *map, struct task_struct *t, void *value, __u64 flags) = (void *)156;

struct ns_common {
	__u32 inum;
} __attribute__((preserve_access_index));

struct pid_namespace {
	struct ns_common ns;
} __attribute__((preserve_access_index));

struct upid {
	__s32 nr;
	struct pid_namespace *ns;
} __attribute__((preserve_access_index));

struct pid {
	__u32 level;
	struct upid numbers[1]; /* level + 1 of them: a thread's number in each PID namespace that sees it */
} __attribute__((preserve_access_index));

struct seccomp {
	__s32 mode;
} __attribute__((preserve_access_index));

#define SECCOMP_MODE_FILTER 2

/* include/linux/sched.h; stable, since tools read it from sched_switch. */
#define TASK_INTERRUPTIBLE 1

struct task_struct {
	__s32 pid;
	__s32 tgid;
	struct pid *thread_pid;
	struct task_struct *group_leader;
	__u64 start_time; /* ns; a thread's number may be another's later, not both */
	__u64 self_exec_id; /* how many programs it has executed, and those before it that forked */
	struct seccomp seccomp;
} __attribute__((preserve_access_index));

/*
 * A system call's number and its second and third argument, from the registers
 * saved when it was entered. They keep their values until it has returned, which
 * is why sys_exit needs nothing remembered from sys_enter. (The first argument
 * does not: arm64 returns the result in its register.)
 */
#if defined(__TARGET_ARCH_x86)

#define NR_ioctl 16

struct pt_regs {
	unsigned long dx;
	unsigned long si;
	unsigned long orig_ax;
} __attribute__((preserve_access_index));

#define REGS_NR(r) ((r)->orig_ax)
#define REGS_ARG2(r) ((r)->si)
#define REGS_ARG3(r) ((r)->dx)

/* Where the fields are when there is no BTF to ask (arch/x86/include/asm/ptrace.h). */
struct fixed_regs {
	__u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax;
};

#elif defined(__TARGET_ARCH_arm64)

#define NR_ioctl 29

struct pt_regs {
	__u64 regs[31];
} __attribute__((preserve_access_index));

#define REGS_NR(r) ((r)->regs[8])
#define REGS_ARG2(r) ((r)->regs[1])
#define REGS_ARG3(r) ((r)->regs[2])

/* struct user_pt_regs, with which pt_regs begins, is ABI. */
struct fixed_regs {
	__u64 regs[31];
};

#else
#error "no register layout for this architecture"
#endif

/* include/uapi/linux/seccomp.h */
#define NOTIF_RECV 0xc0502100
#define NOTIF_SEND 0xc0182101
#define NOTIF_ID_VALID 0x40082102
#define NOTIF_ADDFD 0x40182103
#define ADDFD_FLAG_SEND 2

struct seccomp_notif_resp {
	__u64 id;
	__s64 val;
	__s32 error;
	__u32 flags;
};

/* The head of struct seccomp_notif_addfd. */
struct seccomp_notif_addfd {
	__u64 id;
	__u32 flags;
	__u32 srcfd;
};

/* The head of struct seccomp_notif, as far as seccomp_data's nr. */
struct seccomp_notif {
	__u64 id;
	__u32 pid;
	__u32 flags;
	__s32 nr;
};

#define ENOENT 2
#define EINTR 4
#define EINPROGRESS 115

/* include/linux/errno.h: a call that a signal interrupted, to be made again. */
#define ERESTARTSYS 512
#define ERESTART_RESTARTBLOCK 516

#endif
