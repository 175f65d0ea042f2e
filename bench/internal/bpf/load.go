// Package bpf is what programs at the kernel's tracepoints have in common here: how they are loaded, what is missing
// where they cannot be, by which PID namespace they know processes, and, in headers, the kernel's interface. Packages
// trace and record have the programs.
package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// MinKernel is the first with everything that programs use: atomic exchange, and ring buffers.
const MinKernel = "5.12"

// An UnavailableError says why tracing cannot be done here, and what would help.
// errors.Is holds for fs.ErrPermission where privileges are missing, and for
// errors.ErrUnsupported where the kernel is.
type UnavailableError struct {
	Op     string // what was tried
	Remedy string
	Err    error // what the kernel said
	kind   error
}

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("trace: %s: %v; %s", e.Op, e.Err, e.Remedy)
}

func (e *UnavailableError) Unwrap() error { return e.Err }

func (e *UnavailableError) Is(target error) bool { return target == e.kind }

// Explain turns an error of loading or attaching into an *[UnavailableError], which says what is missing; op is what
// was tried, and kernel the first that has all that was asked for.
func Explain(op, kernel string, err error) error {
	u := &UnavailableError{Op: op, Err: err, kind: errors.ErrUnsupported}
	var refused *ebpf.VerifierError
	if errors.Is(err, ebpf.ErrNotSupported) {
		// An experiment of cilium/ebpf that finds no descriptor free is taken for a kernel that lacks the feature.
		if lack := lacksFiles(); lack != nil {
			u.Err, err = lack, lack
		}
	}
	switch {
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		u.Remedy = fmt.Sprintf("raise the limit of open files (ulimit -n): some %d are needed", neededFiles)
	case errors.As(err, &refused) && !errors.Is(err, unix.EPERM):
		// EACCES is how the verifier says no: that is no matter of privilege, so nobody may find the errno.
		u.Err = fmt.Errorf("the kernel refuses the program: %v", err)
		u.Remedy = "needs Linux " + kernel + " or later; if it is, please report this"
	case missingPrivileges() == "" && missingMount() != nil:
		// cilium/ebpf reads both and says that of the kernel which it did not find.
		m := missingMount()
		u.Err, u.Remedy = m.err, m.remedy()
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, ebpf.ErrNotSupported) && missingPrivileges() != "":
		// cilium/ebpf answers some refusals by an experiment, which is refused as
		// well and then taken for a kernel that lacks the feature.
		u.kind = fs.ErrPermission
		u.Err = unix.EPERM // without the guesses that cilium/ebpf adds
		u.Remedy = permissionRemedy()
	case errors.Is(err, unix.ENOMEM):
		u.Remedy = "lower MaxInFlight, or raise the memory limit of this cgroup (before Linux 5.11: ulimit -l)"
	case errors.Is(err, btf.ErrNotFound):
		u.Remedy = "needs a kernel with system call tracepoints (CONFIG_FTRACE_SYSCALLS)"
	case errors.Is(err, unix.ENOSYS):
		u.Remedy = "needs a kernel with bpf(2) (CONFIG_BPF_SYSCALL), not hidden by a seccomp filter"
	default:
		u.Remedy = "needs Linux " + kernel + " or later with CONFIG_BPF_SYSCALL and CONFIG_FTRACE_SYSCALLS"
	}
	return u
}

// A mount is a file system that loading needs, and what is wrong with it.
type mount struct {
	path, kind string
	magic      int64
	err        error
}

func (m *mount) remedy() string {
	return fmt.Sprintf("mount it: mount -t %s %s %s", m.kind, m.kind, m.path)
}

// missingMount returns the one that is not there; nil if all are.
func missingMount() *mount {
	for _, m := range []mount{{"/proc", "proc", unix.PROC_SUPER_MAGIC, nil}, {"/sys", "sysfs", unix.SYSFS_MAGIC, nil}} {
		var st unix.Statfs_t
		if err := unix.Statfs(m.path, &st); err != nil || int64(st.Type) != m.magic {
			m.err = fmt.Errorf("%s is not mounted", m.path)
			return &m
		}
		if _, err := os.Stat("/proc/self/ns"); m.path == "/proc" && err != nil {
			m.err = errors.New("/proc is that of a PID namespace in which this process is not")
			return &m
		}
	}
	return nil
}

// neededFiles is how many descriptors loading and attaching may take.
const neededFiles = 40

// lacksFiles says why so many descriptors cannot be had, nil if they can.
func lacksFiles() error {
	for range neededFiles {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
	}
	return nil
}

// Capabilities that loading and attaching want, beside CAP_SYS_ADMIN.
var wanted = []struct {
	bit  uint
	name string
}{{unix.CAP_BPF, "CAP_BPF"}, {unix.CAP_PERFMON, "CAP_PERFMON"}}

// permissionRemedy says which privilege is missing, or where to look if none is.
func permissionRemedy() string {
	if missing := missingPrivileges(); missing != "" {
		return "run as root, or give " + missing + " (setcap, Linux 5.8)"
	}
	return "the privileges are there, so something else forbids it: a user namespace, a container's seccomp filter, " +
		"kernel lockdown (confidentiality), or before Linux 5.11 a low ulimit -l"
}

// missingPrivileges names the capabilities that we lack, if any.
func missingPrivileges() string {
	caps, err := effectiveCaps()
	if err == nil && caps&(1<<unix.CAP_SYS_ADMIN) != 0 {
		return ""
	}
	var missing []string
	for _, c := range wanted {
		if caps&(1<<c.bit) == 0 {
			missing = append(missing, c.name)
		}
	}
	return strings.Join(missing, " and ")
}

func effectiveCaps() (uint64, error) {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capget(&h, &d[0]); err != nil {
		return 0, err
	}
	return uint64(d[1].Effective)<<32 | uint64(d[0].Effective), nil
}

// Load loads programs and maps; kernel is the first that can. Its error is an *[UnavailableError].
func Load(spec *ebpf.CollectionSpec, kernel string) (*ebpf.Collection, error) {
	coll, err := load(spec)
	if err != nil {
		return nil, Explain("load programs", kernel, err)
	}
	return coll, nil
}

// load loads the programs and maps. Kernels before 5.11 charge them to
// RLIMIT_MEMLOCK and say EPERM when it is too low; then the limit is raised for
// a moment as far as we may, which without CAP_SYS_RESOURCE is the hard limit.
// Newer kernels charge the cgroup, and the limit is left alone.
//
// Package rlimit of cilium/ebpf would find out by an experiment when the program
// starts, in every program that imports us, for the sake of kernels long gone.
func load(spec *ebpf.CollectionSpec) (*ebpf.Collection, error) {
	coll, err := ebpf.NewCollection(spec)
	if err == nil || !errors.Is(err, unix.EPERM) {
		return coll, err
	}
	var old unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &old) != nil || old.Cur == unix.RLIM_INFINITY {
		return nil, err
	}
	if unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}) != nil &&
		(old.Cur == old.Max || unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: old.Max, Max: old.Max}) != nil) {
		return nil, err
	}
	coll, err = ebpf.NewCollection(spec)
	_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &old)
	return coll, err
}
