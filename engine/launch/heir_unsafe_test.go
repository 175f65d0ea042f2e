package launch_test

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/unknot/unknot/engine/launch"
	"golang.org/x/sys/unix"
)

// An heir is this program run again: first it changes what its successor
// inherits, then it becomes a supervisor, whose command says what it has.
const heirEnv = "UNKNOT_TEST_HEIR"

// The environment of the supervisor. Go's own copy has neither the empty entry
// nor more than one of those with the same name.
var heirEnvironment = []string{"TWICE=1", "TWICE=2", "", "LONELY", "X=\xff", heirEnv + "=supervise"}

func heirMain() {
	var err error
	switch os.Getenv(heirEnv) {
	case "":
		return
	case "prepare":
		err = prepare()
	case "supervise":
		err = superviseHeir()
	case "report":
		err = report()
	}
	if err != nil {
		fmt.Println("heir:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// What prepare does.
const (
	heirIgnored = 1<<(unix.SIGUSR1-1) | 1<<(unix.SIGTERM-1) | 1<<(unix.SIGPIPE-1) | 1<<(unix.SIGHUP-1)
	heirBlocked = 1<<(unix.SIGUSR2-1) | 1<<(unix.SIGALRM-1) | 1<<(36-1)
	heirFiles   = 200
	heirFD      = 9
)

func prepare() error {
	runtime.LockOSThread()
	signal.Ignore(unix.SIGUSR1, unix.SIGTERM, unix.SIGPIPE, unix.SIGHUP)
	// posix_spawn of glibc, by which make starts us, leaves its own signals ignored.
	var byDefault [4]uint64 // struct kernel_sigaction
	for _, sig := range []uintptr{32, 33} {
		if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&byDefault)), 0, 8, 0, 0); e != 0 {
			return e
		}
	}
	set := unix.Sigset_t{Val: [16]uint64{heirBlocked}}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &set, nil); err != nil {
		return err
	}
	for _, sig := range []syscall.Signal{unix.SIGUSR2, 36} {
		if err := unix.Tgkill(unix.Getpid(), unix.Gettid(), sig); err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGWINCH), 0, 0, 0); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	for _, which := range []unix.ItimerWhich{unix.ITIMER_REAL, unix.ITIMER_PROF} {
		if _, err := unix.Setitimer(which, unix.Itimerval{Value: unix.Timeval{Sec: 600}, Interval: unix.Timeval{Sec: 7}}); err != nil {
			return err
		}
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return err
	}
	files.Cur = heirFiles
	if err := syscall.Setrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return err
	}
	fd, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	if err := unix.Dup2(fd, heirFD); err != nil {
		return err
	}
	_, _ = unix.Close(0), unix.Close(2)
	return syscall.Exec("/proc/self/exe", []string{"heir"}, heirEnvironment)
}

// superviseHeir has two commands say what they inherit.
func superviseHeir() error {
	in := launch.Started()
	fmt.Printf("started: %v\n", in.Ignores(unix.SIGHUP) && !in.Ignores(unix.SIGINT))
	if launch.Guarded {
		fmt.Printf("recorded: %x %x %v\n", in.Ignored, in.Blocked, in.Blocks(unix.SIGUSR2) && !in.Blocks(unix.SIGUSR1))
	}
	s, err := newSupervisor()
	if err != nil {
		return err
	}
	for _, c := range []*launch.Command{
		{Paths: []string{"/bin/cat"}, Args: []string{"cat", "/proc/self/status"}},
		{Paths: []string{"/bin/cat"}, Args: []string{"cat", "/proc/self/environ"}},
		{Paths: []string{"/bin/cat"}, Args: []string{"cat", "/proc/self/limits"}},
		{Paths: []string{"/proc/self/exe"}, Env: []string{heirEnv + "=report"}},
	} {
		p, err := s.start(c)
		if err != nil {
			return err
		}
		if ws, err := p.Wait(); ws != 0 || err != nil {
			return fmt.Errorf("status %#x, %w", ws, err)
		}
		fmt.Println()
	}
	return nil
}

// report says what the Go runtime leaves as it was.
func report() error {
	var pdeathsig, subreaper int32
	if err := unix.Prctl(unix.PR_GET_PDEATHSIG, uintptr(unsafe.Pointer(&pdeathsig)), 0, 0, 0); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&subreaper)), 0, 0, 0); err != nil {
		return err
	}
	fmt.Printf("parent-death signal: %d\nsubreaper: %d\n", pdeathsig, subreaper)
	for _, which := range []unix.ItimerWhich{unix.ITIMER_REAL, unix.ITIMER_VIRTUAL, unix.ITIMER_PROF} {
		it, err := unix.Getitimer(which)
		if err != nil {
			return err
		}
		fmt.Printf("timer %d: %v %d\n", which, it.Value.Sec > 500, it.Interval.Sec)
	}
	var st unix.Stat_t
	fmt.Printf("descriptor %d: %v\n", heirFD, unix.Fstat(heirFD, &st))
	fmt.Printf("descriptor 4: %v\n", unix.Fstat(4, &st))
	return nil
}

// TestCommandsInherit what the supervisor was started with, not what the Go
// runtime has made of it.
func TestCommandsInherit(t *testing.T) {
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), heirEnv+"=prepare", "GORACE=atexit_sleep_ms=0")
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	c.WaitDelay = time.Second
	timer := time.AfterFunc(hung, func() { _ = unix.Kill(-c.Process.Pid, unix.SIGKILL) })
	defer timer.Stop()
	b, err := c.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	got := string(b)
	hex := func(set uint64) string { return fmt.Sprintf("%016x", set) }
	want := []string{
		"started: true\n",
		"\x00", // the environment, below
		fmt.Sprintf("descriptor %d: <nil>\n", heirFD),
	}
	if launch.Guarded {
		want = append(want,
			fmt.Sprintf("recorded: %x %x true\n", uint64(heirIgnored), uint64(heirBlocked)),
			"\nSigBlk:\t"+hex(heirBlocked)+"\n",
			"\nSigIgn:\t"+hex(heirIgnored)+"\n",
			"\nSigCgt:\t"+hex(0)+"\n",
			"\nShdPnd:\t"+hex(1<<(unix.SIGUSR2-1)|1<<(36-1))+"\n",
			"\n"+strings.Join(heirEnvironment, "\x00")+"\x00",
			fmt.Sprintf("parent-death signal: %d\nsubreaper: 1\ntimer 0: true 7\ntimer 1: false 0\ntimer 2: true 7\n", unix.SIGWINCH),
			fmt.Sprintf("\nMax open files            %d ", heirFiles),
		)
	} else {
		want = append(want, "\nNoNewPrivs:\t1\n")
	}
	if i := slices.IndexFunc(want, func(s string) bool { return !strings.Contains(got, s) }); i >= 0 {
		t.Errorf("there is no %q in\n%q", want[i], got)
	}
}
