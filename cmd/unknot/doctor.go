package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/unknot/unknot/bench/trace"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/filter"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/mono"
	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

// A check is one thing that unknot can use, and whether it can here.
type check struct {
	Name     string `json:"name"`
	OK       bool   `json:"ok"`
	Required bool   `json:"required"` // without it the main job cannot run
	Detail   string `json:"detail,omitempty"`
	Remedy   string `json:"remedy,omitempty"` // for each no
}

func newDoctorCmd() *cobra.Command {
	var format string
	var pid int
	c := &cobra.Command{
		Use:   "doctor",
		Short: "say what this kernel and this user can do, and the remedy for each no",
		Long: `doctor tries each thing that unknot can use, by doing it for a moment rather than
by looking at version numbers, and says what would help where the answer is no.

The exit status is 0 if the main job can run here: supervise a command and
measure a storm on the engine's own clock. It is 1 if something needed for that
(marked "needed") is missing. What is merely useful does not count: without BPF
permission, for example, waits are measured by the engine's clock.

With --pid it also looks at the CPU masks of a process that is or will be
supervised: one that leaves out the receive thread's CPU defeats SYNC_WAKE_UP,
until the receive thread goes where the process may run.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "text" && format != "json" {
				return usageErrorf("no format %q: there are text and json", format)
			}
			if pid < 0 {
				return usageErrorf("--pid %d: must be a process's number", pid)
			}
			return doctorReport(cmd.OutOrStdout(), format, append(examine(), checkPlacement(pid)))
		},
	}
	c.Flags().StringVar(&format, "format", "text", "text or json")
	c.Flags().IntVar(&pid, "pid", 0, "look at this process's CPU masks too")
	return c
}

// doctorReport prints the checks; its error says that the main job cannot run.
func doctorReport(w io.Writer, format string, checks []check) error {
	var lacking []string
	for _, c := range checks {
		if c.Required && !c.OK {
			lacking = append(lacking, c.Name)
		}
	}
	if format == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		if err := enc.Encode(struct {
			OK     bool    `json:"ok"`
			Checks []check `json:"checks"`
		}{len(lacking) == 0, checks}); err != nil {
			return fmt.Errorf("print report: %w", err)
		}
	} else if err := doctorText(w, checks); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	if len(lacking) > 0 {
		return fmt.Errorf("the main job cannot run here: no %s (the remedies are in the report)", strings.Join(lacking, ", no "))
	}
	return nil
}

func doctorText(w io.Writer, checks []check) error {
	width := 0
	for _, c := range checks {
		width = max(width, len(c.Name))
	}
	var b bytes.Buffer
	for _, c := range checks {
		mark := "ok"
		switch {
		case !c.OK && c.Required:
			mark = "NO"
		case !c.OK:
			mark = "no"
		}
		need := ""
		if c.Required && !c.OK {
			need = " (needed)"
		}
		line := fmt.Sprintf("%-3s %-*s  %s%s", mark, width, c.Name, c.Detail, need)
		fmt.Fprintln(&b, strings.TrimRight(line, " "))
		if c.Remedy != "" {
			fmt.Fprintf(&b, "    %*s  remedy: %s\n", width, "", c.Remedy)
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

// examine makes all checks, in the order in which a notification needs them.
func examine() []check {
	checks := []check{
		{Name: "kernel", OK: true, Detail: kernelRelease() + " " + runtime.GOARCH},
		privileges(),
		checkProc(),
	}
	for _, f := range notify.Features() {
		checks = append(checks, checkFeature(f))
	}
	return append(checks, checkPriority(), checkClock(mono.Source()), checkLibseccomp(), checkLandlock(), checkConfine(), checkBTF(), checkTracepoints(), checkBPF(), checkTracefs())
}

// privileges are never needed: they are what other answers are made of.
func privileges() check {
	c := check{Name: "privileges", OK: true, Detail: fmt.Sprintf("user %d", os.Geteuid())}
	if os.Geteuid() == 0 {
		c.Detail = "root"
	}
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capget(&h, &d[0]); err != nil {
		c.Detail += ", capabilities unknown: " + err.Error()
		return c
	}
	var have, lack []string
	for _, known := range []struct {
		bit  int
		name string
	}{{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"}, {unix.CAP_BPF, "CAP_BPF"}, {unix.CAP_PERFMON, "CAP_PERFMON"}, {unix.CAP_SYS_NICE, "CAP_SYS_NICE"}} {
		if d[known.bit/32].Effective&(1<<(known.bit%32)) != 0 {
			have = append(have, known.name)
		} else {
			lack = append(lack, known.name)
		}
	}
	if len(have) > 0 {
		c.Detail += ", with " + strings.Join(have, " ")
	}
	if len(lack) > 0 {
		c.Detail += ", without " + strings.Join(lack, " ")
	}
	return c
}

func checkFeature(f *notify.Feature) check {
	c := check{Name: f.Name, OK: true, Required: f == notify.FeatureNotify || f == notify.FeatureContinue}
	err := f.Probe()
	if err == nil {
		return c
	}
	c.OK = false
	var un *notify.UnsupportedError
	if errors.As(err, &un) && un.Err != nil {
		err = un.Err
	}
	c.Detail, c.Remedy = err.Error(), remedy(err, f.Since)
	return c
}

// remedy says what to do about a seccomp feature that cannot be used.
func remedy(err error, since string) string {
	switch {
	case scarce(err):
		return scarceRemedy(err)
	case errors.Is(err, unix.EBUSY):
		return "another supervisor above this process has a listener already, and there can be one only: run outside of it (a container with a seccomp agent)"
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return "something forbids it, such as a container's seccomp profile: allow seccomp(2) and prctl(2) there"
	case errors.Is(err, unix.ENOSYS):
		return "seccomp(2) is not there: a kernel with CONFIG_SECCOMP_FILTER is needed, and no container profile that hides it"
	}
	if !(&notify.UnsupportedError{Since: since}).TooOld() {
		return "ask who built this kernel: Linux " + since + " and newer have it, and this one is no older"
	}
	return "use Linux " + since + " or newer"
}

// scarce says that an error is of a limit of this process or machine, and tells
// nothing of what the kernel has.
func scarce(err error) bool {
	for _, e := range []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EAGAIN} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// scarceRemedy says which limit that is.
func scarceRemedy(err error) string {
	switch {
	case errors.Is(err, unix.EMFILE):
		return "raise the limit of open files (ulimit -n 64 or more), and ask again"
	case errors.Is(err, unix.ENFILE):
		return "the machine has too many open files: raise fs.file-max, and ask again"
	case errors.Is(err, unix.EAGAIN):
		return "raise the limit of processes (ulimit -u, or the cgroup's pids.max), and ask again"
	}
	return "raise the limit of memory (ulimit -v, or the cgroup's memory.max), and ask again"
}

// checkProc tells whether processes can be told by what is on /proc.
func checkProc() check {
	c := check{Name: "/proc", Required: true}
	var st unix.Statfs_t
	if err := unix.Statfs("/proc", &st); err != nil || st.Type != unix.PROC_SUPER_MAGIC {
		c.Detail, c.Remedy = "not mounted", "mount -t proc proc /proc"
		return c
	}
	if _, err := os.Stat("/proc/self/exe"); err != nil {
		c.Detail, c.Remedy = "of a PID namespace in which this process is not", "mount this namespace's: mount -t proc proc /proc"
		return c
	}
	c.Required = false
	if trace.OwnProc() {
		c.OK = true
		return c
	}
	c.Detail = "of another PID namespace: processes have other numbers there, and some of ours may have none"
	c.Remedy = "mount this namespace's: mount -t proc proc /proc"
	return c
}

func checkPriority() check {
	c := check{Name: "raise priority"}
	if err := engine.ProbePriority(); err != nil {
		c.Detail = err.Error()
		c.Remedy = "run with CAP_SYS_NICE or a lower RLIMIT_NICE (LimitNICE=-15 in a systemd unit); only --priority raise wants it"
		return c
	}
	c.OK = true
	return c
}

func checkLibseccomp() check {
	c := check{Name: "libseccomp", Required: true}
	v, err := filter.Version()
	if err != nil {
		c.Detail = err.Error()
		c.Remedy = "install libseccomp's headers and a C compiler (make deps), and build with CGO_ENABLED=1"
		return c
	}
	c.Detail = fmt.Sprintf("%v, API level %d", v, v.API)
	if _, err := filter.Compile([]string{"openat"}, filter.Options{}); err != nil {
		c.Detail += ": " + err.Error()
		c.Remedy = "use libseccomp 2.5 or newer (API level 5)"
		if errors.Is(err, errors.ErrUnsupported) {
			c.Remedy = "allow seccomp(2) where it is refused"
		}
		return c
	}
	c.OK = true
	return c
}

func checkLandlock() check {
	c := check{Name: "landlock"}
	abi, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	switch e {
	case 0:
		c.OK, c.Detail = true, fmt.Sprintf("ABI %d", abi)
		return c
	case unix.EOPNOTSUPP:
		c.Remedy = "it is off: add landlock to the list after lsm= on the kernel's command line"
	case unix.ENOSYS:
		c.Remedy = "use Linux 5.13 or newer with CONFIG_SECURITY_LANDLOCK, and no container profile that hides landlock_create_ruleset(2)"
	default:
		c.Remedy = "something forbids it, such as a container's seccomp profile: allow landlock_create_ruleset(2) there"
	}
	c.Detail = e.Error()
	return c
}

const btfPath = "/sys/kernel/btf/vmlinux"

func checkBTF() check {
	c := check{Name: "BTF"}
	b, err := os.ReadFile(btfPath)
	switch {
	case errors.Is(err, os.ErrNotExist):
		c.Detail, c.Remedy = err.Error(), "use a kernel with CONFIG_DEBUG_INFO_BTF, and mount sysfs on /sys"
	case err != nil:
		c.Detail, c.Remedy = err.Error(), "let this user read "+btfPath
	case !bytes.HasPrefix(b, []byte{0x9f, 0xeb}) && !bytes.HasPrefix(b, []byte{0xeb, 0x9f}):
		c.Detail, c.Remedy = btfPath+" is not BTF", "mount sysfs on /sys"
	default:
		c.OK, c.Detail = true, fmt.Sprintf("%s, %d KiB", btfPath, len(b)>>10)
	}
	return c
}

// checkTracepoints asks BTF, which any user may read, for the tracepoints of
// system calls, and tracefs where there is no BTF.
func checkTracepoints() check {
	c := check{Name: "system call tracepoints"}
	const config = "use a kernel with CONFIG_FTRACE_SYSCALLS"
	if b, err := os.ReadFile(btfPath); err == nil {
		for _, name := range []string{"sys_enter", "sys_exit"} {
			if !bytes.Contains(b, []byte("\x00btf_trace_"+name+"\x00")) {
				c.Detail, c.Remedy = "the kernel has no tracepoint "+name, config
				return c
			}
		}
		c.OK = true
		return c
	}
	dir, err := tracefs()
	if err == nil {
		_, err = os.Stat(dir + "/events/raw_syscalls/sys_enter/id")
	}
	switch {
	case err == nil:
		c.OK = true
	case errors.Is(err, os.ErrPermission):
		c.Detail, c.Remedy = "cannot look: "+err.Error(), "ask again as root"
	default:
		c.Detail, c.Remedy = err.Error(), config+", and mount tracefs to see them"
	}
	return c
}

// checkBPF loads and attaches the programs of bench/trace for a moment.
func checkBPF() check {
	c := check{Name: "BPF permission"}
	err := trace.Probe()
	if err == nil {
		c.OK = true
		return c
	}
	c.Detail, c.Remedy = err.Error(), "run as root"
	var un *trace.UnavailableError
	if errors.As(err, &un) {
		c.Detail, c.Remedy = fmt.Sprintf("%s: %v", un.Op, un.Err), un.Remedy
	}
	c.Detail = strings.Join(strings.Fields(c.Detail), " ") // a verifier says it in many lines
	return c
}

// tracefs returns where tracefs is mounted.
func tracefs() (string, error) {
	var st unix.Statfs_t
	for _, dir := range []string{"/sys/kernel/tracing", "/sys/kernel/debug/tracing"} {
		switch err := unix.Statfs(dir, &st); {
		case err == nil && st.Type == unix.TRACEFS_MAGIC:
			return dir, nil
		case errors.Is(err, unix.EACCES):
			return "", &os.PathError{Op: "statfs", Path: dir, Err: err}
		}
	}
	return "", errors.New("not mounted")
}

func checkTracefs() check {
	c := check{Name: "tracefs"}
	dir, err := tracefs()
	if err == nil {
		_, err = os.ReadDir(dir + "/events")
	}
	switch {
	case err == nil:
		c.OK, c.Detail = true, dir
	case errors.Is(err, os.ErrPermission):
		c.Detail, c.Remedy = err.Error(), "as root, or with read permission on "+dir
	default:
		c.Detail, c.Remedy = err.Error(), "as root: mount -t tracefs nodev /sys/kernel/tracing"
	}
	return c
}

// checkClock tells by what each call is timed.
func checkClock(source string, err error) check {
	c := check{Name: "clock", OK: true, Detail: "calls are timed by the processor's counter, which is kept to the kernel's clock"}
	switch {
	case mono.Counter == "":
		c.Detail = "calls are timed by the kernel's clock: no counter is read on " + runtime.GOARCH
	case err != nil:
		c.OK, c.Detail, c.Remedy = false, "calls are timed by the kernel's clock, some 10 ns slower: "+err.Error(), "mount sysfs: mount -t sysfs nodev /sys"
	case source != mono.Counter:
		c.OK, c.Detail = false, fmt.Sprintf("calls are timed by the kernel's clock, some 10 ns slower: its clock source is %s", source)
		c.Remedy = fmt.Sprintf("as root: echo %s >/sys/devices/system/clocksource/clocksource0/current_clocksource; where it is refused, the kernel does not trust the counter", mono.Counter)
	}
	return c
}

// checkPlacement tells whether targets may run where the receive thread is
// pinned unless told otherwise: the last CPU that we may use. Programs that are
// started from here may, by inheritance; those of process pid, if not 0, are asked.
func checkPlacement(pid int) check {
	c := check{Name: "CPU placement", OK: true}
	ours := osthread.Allowed()
	if len(ours) == 0 {
		c.OK, c.Detail, c.Remedy = false, "sched_getaffinity tells no CPUs", "something forbids it, such as a container's seccomp profile: allow sched_getaffinity(2) there"
		return c
	}
	cpu := ours[len(ours)-1]
	c.Detail = fmt.Sprintf("the receive thread takes CPU %d", cpu)
	if len(ours) == 1 {
		c.Detail += ", the only one allowed: supervisor and targets started from here share it"
	}
	if pid == 0 {
		return c
	}
	p, err := trace.OpenProcess(pid)
	var tids []int
	if err == nil {
		defer p.Close()
		tids, err = p.Threads()
	}
	if err != nil {
		c.OK, c.Detail, c.Remedy = false, strings.TrimPrefix(err.Error(), "trace: "), "name a process that runs and is visible in /proc"
		return c
	}
	apart, looked := 0, 0
	var theirs []int
	for _, tid := range tids {
		cpus, err := osthread.AllowedTo(tid)
		if err != nil {
			continue // it has ended
		}
		looked++
		if !slices.Contains(cpus, cpu) {
			apart, theirs = apart+1, cpus
		}
	}
	if apart == 0 {
		c.Detail += fmt.Sprintf(", and so may all %d threads of process %d", looked, pid)
		return c
	}
	c.Detail += fmt.Sprintf("; %d of %d threads of process %d may not run there (theirs: %v)", apart, looked, pid, theirs)
	if slices.ContainsFunc(theirs, func(cpu int) bool { return slices.Contains(ours, cpu) }) {
		c.Detail += ": it goes to them where that gets more done, if they are its only targets and no --cpu says otherwise"
		return c
	}
	c.OK = false
	c.Detail += ", which defeats SYNC_WAKE_UP"
	c.Remedy = fmt.Sprintf("let us run on one of their CPUs, or them on CPU %d (taskset)", cpu)
	return c
}
