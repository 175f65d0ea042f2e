package confine

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"testing"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

// A violation is something that a confined thread must not do. Its arguments
// are such that on another thread it fails or does no harm.
type violation struct {
	name string
	do   func(r *rig) error
	want string // "killed"; or the errno of a call that fails
	// shared is the outcome at level Shared, if another: the file table is the
	// process's there, and descriptors are not told apart.
	shared string
}

// sys makes a raw system call, and returns its errno.
func sys(nr uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	if _, _, e := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5]); e != 0 {
		return e
	}
	return nil
}

func simple(nr uintptr, args ...uintptr) func(*rig) error {
	return func(*rig) error { return sys(nr, args...) }
}

const none = ^uintptr(0) // an argument that no call takes: a descriptor, an address

// violations hold for all architectures; archViolations are added.
var violations = append([]violation{
	// Files fail.
	{"openat", simple(unix.SYS_OPENAT, none, 0, 0), "ENOSYS", ""},
	{"openat2", simple(unix.SYS_OPENAT2, none, 0, 0, 0), "ENOSYS", ""},
	{"newfstatat", simple(unix.SYS_NEWFSTATAT, none, 0, 0, 0), "ENOSYS", ""},
	{"fstat", simple(unix.SYS_FSTAT, 0, 0), "ENOSYS", ""},
	{"statx", simple(unix.SYS_STATX, none, 0, 0, 0, 0), "ENOSYS", ""},
	{"faccessat", simple(unix.SYS_FACCESSAT, none, 0, 0), "ENOSYS", ""},
	{"faccessat2", simple(unix.SYS_FACCESSAT2, none, 0, 0, 0), "ENOSYS", ""},
	{"readlinkat", simple(unix.SYS_READLINKAT, none, 0, 0, 0), "ENOSYS", ""},
	{"os.Open", func(*rig) error { f, err := os.Open("/etc/passwd"); _ = f.Close(); return err }, "ENOSYS", ""},
	{"os/exec", func(*rig) error { return exec.Command("/bin/true").Run() }, "ENOSYS", ""},

	// The rest of the world.
	{"socket", simple(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM, 0), "killed", ""},
	{"net.Dial", func(*rig) error { _, err := net.Dial("tcp", "127.0.0.1:1"); return err }, "killed", ""},
	{"execve", simple(unix.SYS_EXECVE, 0, 0, 0), "killed", ""},
	{"execveat", simple(unix.SYS_EXECVEAT, none, 0, 0, 0, 0), "killed", ""},
	{"clone", simple(unix.SYS_CLONE, unix.CLONE_SIGHAND), "killed", ""}, // EINVAL elsewhere
	{"clone3", simple(unix.SYS_CLONE3, 0, 0), "killed", ""},
	{"kill", func(*rig) error { return unix.Kill(os.Getpid(), 0) }, "killed", ""},
	{"tgkill of another process", func(*rig) error { return unix.Tgkill(os.Getppid(), os.Getppid(), unix.SIGURG) }, "killed", ""},
	{"tgkill by another signal", func(*rig) error { return unix.Tgkill(os.Getpid(), os.Getpid(), unix.SIGCONT) }, "killed", ""},
	{"rt_sigqueueinfo", simple(unix.SYS_RT_SIGQUEUEINFO, 0, 0, 0), "killed", ""},
	{"pidfd_open", simple(unix.SYS_PIDFD_OPEN, 0, 0), "killed", ""},
	{"ptrace", simple(unix.SYS_PTRACE, unix.PTRACE_PEEKTEXT, 0, 0, 0), "killed", ""},
	{"process_vm_readv", simple(unix.SYS_PROCESS_VM_READV, 0, 0, 0, 0, 0, 0), "killed", ""},
	{"process_vm_writev", simple(unix.SYS_PROCESS_VM_WRITEV, 0, 0, 0, 0, 0, 0), "killed", ""},
	{"io_uring_setup", simple(unix.SYS_IO_URING_SETUP, 0, 0), "killed", ""},
	{"bpf", simple(unix.SYS_BPF, none, 0, 0), "killed", ""},
	{"perf_event_open", simple(unix.SYS_PERF_EVENT_OPEN, 0, 0, 0, none, 0), "killed", ""},
	{"mount", simple(unix.SYS_MOUNT, 0, 0, 0, 0, 0), "killed", ""},
	{"unlinkat", simple(unix.SYS_UNLINKAT, none, 0, 0), "killed", ""},
	{"mkdirat", simple(unix.SYS_MKDIRAT, none, 0, 0), "killed", ""},
	{"chdir", simple(unix.SYS_CHDIR, 0), "killed", ""},
	{"umask", func(*rig) error { return sys(unix.SYS_UMASK, uintptr(unix.Umask(0o22))) }, "killed", ""},
	{"unshare", simple(unix.SYS_UNSHARE, 0), "killed", ""},
	{"setns", simple(unix.SYS_SETNS, none, 0), "killed", ""},
	{"setuid", func(*rig) error { return sys(unix.SYS_SETUID, uintptr(os.Getuid())) }, "killed", ""},
	{"setgid", func(*rig) error { return sys(unix.SYS_SETGID, uintptr(os.Getgid())) }, "killed", ""},
	{"setresuid", func(*rig) error { return sys(unix.SYS_SETRESUID, none, none, none) }, "killed", ""},
	{"capset", simple(unix.SYS_CAPSET, 0, 0), "killed", ""},
	{"personality", simple(unix.SYS_PERSONALITY, 0xffffffff), "killed", ""},
	{"a number that there is not", simple(5000), "killed", ""},

	// Descriptors.
	{"write to 1", simple(unix.SYS_WRITE, 1, 0, 0), "killed", ""},
	{"write to the runtime's eventfd, 16 bytes", func(r *rig) error { return sys(unix.SYS_WRITE, uintptr(r.plan.poller.event), 0, 16) }, "killed", ""},
	{"writev", simple(unix.SYS_WRITEV, 2, 0, 0), "killed", ""},
	{"pwrite64", simple(unix.SYS_PWRITE64, 2, 0, 0, 0), "killed", ""},
	{"read from 0", simple(unix.SYS_READ, 0, 0, 0), "killed", ""},
	{"read from the eventfd, 16 bytes", func(r *rig) error { return sys(unix.SYS_READ, uintptr(r.t.Wake), 0, 16) }, "killed", ""},
	{"close", simple(unix.SYS_CLOSE, none), "killed", ""},
	{"close_range", simple(unix.SYS_CLOSE_RANGE, 1, 0, 0), "killed", ""}, // EINVAL elsewhere
	{"dup", simple(unix.SYS_DUP, none), "killed", ""},
	{"dup3", simple(unix.SYS_DUP3, none, none, 0), "killed", ""},
	{"fcntl", simple(unix.SYS_FCNTL, 2, unix.F_GETFD), "killed", ""},
	{"pipe2", simple(unix.SYS_PIPE2, 0, 0), "killed", ""},
	{"pidfd_getfd", simple(unix.SYS_PIDFD_GETFD, none, 0, 0), "killed", ""},
	{"sendmsg", simple(unix.SYS_SENDMSG, none, 0, 0), "killed", ""},
	{"memfd_create", simple(unix.SYS_MEMFD_CREATE, 0, 0), "killed", ""},
	{"epoll_create1", simple(unix.SYS_EPOLL_CREATE1, none), "killed", ""},
	{"epoll_ctl", func(r *rig) error { return sys(unix.SYS_EPOLL_CTL, uintptr(r.t.Epoll), none, none, 0) }, "killed", ""},
	{"ppoll with a signal mask", simple(unix.SYS_PPOLL, 0, 0, 0, none, 8), "killed", ""}, // EFAULT elsewhere
	{"epoll_pwait of another", simple(unix.SYS_EPOLL_PWAIT, none, 0, 0, 0, 0), "killed", ""},

	// The listener.
	{"ioctl TCGETS", func(r *rig) error { return r.ioctl(r.l.FD(), unix.TCGETS, r.plan.cookies) }, "killed", ""},
	{"ioctl ADDFD", func(r *rig) error { return r.ioctl(r.l.FD(), notify.IoctlAddFD, r.plan.cookies) }, "killed", ""},
	{"ioctl SET_FLAGS", func(r *rig) error { return r.ioctl(r.l.FD(), notify.IoctlSetFlags, r.plan.cookies) }, "killed", ""},
	{"ioctl on another descriptor", func(r *rig) error {
		err := r.ioctl(r.t.Epoll, notify.IoctlSend, r.plan.cookies)
		if err == unix.ENOTTY { // epoll has no ioctls before Linux 6.9
			err = unix.EINVAL
		}
		return err
	}, "killed", "EINVAL"},
	{"ioctl without cookies", func(r *rig) error { return r.ioctl(r.l.FD(), notify.IoctlSend, [3]uintptr{}) }, "killed", ""},
	{"ioctl with a wrong first cookie", func(r *rig) error { return r.wrongCookie(0) }, "killed", ""},
	{"ioctl with a wrong second cookie", func(r *rig) error { return r.wrongCookie(1) }, "killed", ""},
	{"ioctl with a wrong third cookie", func(r *rig) error { return r.wrongCookie(2) }, "killed", ""},
	{"log without cookies", func(r *rig) error { return sys(unix.SYS_WRITE, r.log.Fd(), 0, 0) }, "killed", ""},

	// Memory.
	{"mmap executable", simple(unix.SYS_MMAP, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, none), "killed", ""},
	{"mmap writable and executable", simple(unix.SYS_MMAP, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, none), "killed", ""},
	{"mmap shared", simple(unix.SYS_MMAP, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS, none), "killed", ""},
	{"mmap of a file", simple(unix.SYS_MMAP, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE, 0), "killed", ""},
	{"mmap of a descriptor, anonymous", simple(unix.SYS_MMAP, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, 5), "killed", ""},
	{"mmap that grows down", simple(unix.SYS_MMAP, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_GROWSDOWN, none), "killed", ""},
	{"mprotect", simple(unix.SYS_MPROTECT, 0, 0, unix.PROT_READ|unix.PROT_EXEC), "killed", ""},
	{"pkey_mprotect", simple(unix.SYS_PKEY_MPROTECT, 0, 0, unix.PROT_READ, none), "killed", ""},
	{"mremap", simple(unix.SYS_MREMAP, 0, 0, 0, 0, 0), "killed", ""},
	{"madvise DONTFORK", simple(unix.SYS_MADVISE, 0, 0, unix.MADV_DONTFORK), "killed", ""},
	{"process_madvise", simple(unix.SYS_PROCESS_MADVISE, none, 0, 0, 0, 0), "killed", ""},
	{"brk", simple(unix.SYS_BRK, 0), "killed", ""},

	// The thread itself.
	{"prctl", simple(unix.SYS_PRCTL, unix.PR_GET_DUMPABLE), "killed", ""},
	{"prctl SET_VMA", simple(unix.SYS_PRCTL, unix.PR_SET_VMA, unix.PR_SET_VMA_ANON_NAME, none, 0, 0), "EPERM", ""},
	{"seccomp", simple(unix.SYS_SECCOMP, none, 0, 0), "killed", ""},
	{"rt_sigaction", simple(unix.SYS_RT_SIGACTION, 0, 0, 0, 0), "killed", ""},
	{"sched_setaffinity", simple(unix.SYS_SCHED_SETAFFINITY, 0, 0, 0), "killed", ""},
	{"futex, shared", simple(unix.SYS_FUTEX, 0, 1, 0), "killed", ""},            // FUTEX_WAKE without PRIVATE: EFAULT elsewhere
	{"futex, shared, timed", simple(unix.SYS_FUTEX, 0, 0, 0, 16), "killed", ""}, // FUTEX_WAIT without PRIVATE, with a timeout
	{"setitimer", simple(unix.SYS_SETITIMER, none, 0, 0), "killed", ""},
	{"timer_create", simple(unix.SYS_TIMER_CREATE, none, 0, 0), "EPERM", ""},
	{"timer_settime", simple(unix.SYS_TIMER_SETTIME, none, 0, 0, 0), "killed", ""},
}, slices.Concat(otherBits(), archViolations)...)

// otherBits are ioctls on a number that differs from the listener's in one bit,
// none of which a rule may leave out.
func otherBits() (all []violation) {
	for _, bit := range []int{0, 1, 2, 3, 4, 5, 8, 16, 31} {
		all = append(all, violation{fmt.Sprintf("ioctl on the listener's number but for bit %d", bit), func(r *rig) error {
			if err := r.ioctl(r.l.FD()^1<<bit, notify.IoctlSend, r.plan.cookies); err == nil {
				return errors.New("it went through")
			}
			return unix.EBADF // or what another file says
		}, "killed", "EBADF"})
	}
	return all
}

// ioctl asks with an argument that the kernel cannot read: it does nothing.
func (r *rig) ioctl(fd int, req uintptr, c [3]uintptr) error {
	return sys(unix.SYS_IOCTL, uintptr(fd), req, 0, c[0], c[1], c[2])
}

func (r *rig) wrongCookie(i int) error {
	c := r.plan.cookies
	c[i] ^= 1 << 40 // the upper half counts as well
	return r.ioctl(r.l.FD(), notify.IoctlSend, c)
}

// childViolation does the deed on an ordinary thread, while a thread is
// confined, and then on the confined thread.
func childViolation(c *testchild.Conn, args []string) error {
	r, err := newRig(args[0])
	if err != nil {
		return err
	}
	for _, v := range violations {
		if v.name != r.Name {
			continue
		}
		confess := make(chan struct{})
		st, done, err := r.run(func() error {
			<-confess
			return v.do(r)
		})
		if err != nil {
			return err
		}
		_ = v.do(r)
		if err := othersAreFree(st.TID, r.target); err != nil {
			return err
		}
		if err := c.Say("others may"); err != nil {
			return err
		}
		confess <- struct{}{}
		err = <-done
		var e unix.Errno
		if errors.As(err, &e) {
			return c.Say("%s", unix.ErrnoName(e))
		}
		return c.Say("%v", err)
	}
	return fmt.Errorf("no violation %q", r.Name)
}

func TestViolations(t *testing.T) {
	for _, level := range []Level{Private, Shared} {
		for i, v := range violations {
			if level == Shared && v.shared == "" && i%4 != 0 && !thorough() {
				continue // as at the other level
			}
			t.Run(level.String()+"/"+v.name, func(t *testing.T) {
				t.Parallel()
				if v.name == "int $0x80" && testchild.Start(t, "int80").Wait() != 0 {
					t.Skip("this kernel runs no 32-bit programs (ia32_emulation)")
				}
				want := v.want
				if level == Shared && v.shared != "" {
					want = v.shared
				}
				c := order{Config: Config{Level: level}, OwnLog: true, Name: v.name}.start(t, "violation")
				c.Expect("others may")
				got, err := c.Hear()
				ws := c.Wait()
				switch {
				case ws.Signaled() && ws.Signal() == unix.SIGSYS:
					got = "killed"
				case err != nil || ws != 0:
					got = fmt.Sprintf("%q, %v, status %#x: %s", got, err, int(ws), c.Stderr())
				}
				if got != want {
					t.Errorf("%s, want %s", got, want)
				}
			})
		}
	}
}
