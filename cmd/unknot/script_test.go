package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/unknot/unknot/bench/trace"
	"github.com/unknot/unknot/engine/launch"
	"github.com/unknot/unknot/internal/ellipsis"
	"golang.org/x/sys/unix"
)

var (
	update = flag.Bool("update", false, "write the goldens anew: of comparisons, and those that scripts compare")
	long   = flag.Bool("long", false, "also what takes minutes")
)

// scriptPrograms are what scripts can run beside the machine's own commands.
var scriptPrograms = map[string]func(){
	"unknot":                    main,
	"unknot-without-privileges": mainWithoutPrivileges,
	"unknot-without-seccomp":    mainWithoutSeccomp,
}

// mainWithoutPrivileges is the command without any capability, whoever runs it.
func mainWithoutPrivileges() {
	const done = "UNKNOT_TEST_UNPRIVILEGED"
	if os.Getenv(done) != "" {
		os.Unsetenv(done)
		main()
	}
	runtime.LockOSThread()
	// The bounding set is what root gets at the next exec. Who may not empty it
	// has nothing to give up.
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		_ = unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
	}
	fmt.Fprintln(os.Stderr, syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), done+"=1")))
	os.Exit(99)
}

// TestScripts runs testdata/script. Scripts have these commands of their own:
//
//	exits CODE program [argument ...]
//		runs a program and compares its exit status; 128 + N is signal N
//	signals SIGNAL FILE CODE program [argument ...]
//		the same, and sends it the signal once FILE exists and has something in it
//	storms UNIT[,UNIT...] program [argument ...]
//		exits 0 program, again until each benchmark that it prints has a value in each UNIT:
//		during a short storm a busy machine may let nobody call
//	like stdout|stderr|FILE FILE
//		compares, where … in the second stands for anything
//
// and the conditions [bpf]: this user may trace, [runc]: it may run containers, and
// [mounts]: it may unmount, in a namespace of its own. go test -run TestScripts -update ./cmd/unknot rewrites what
// cmp compares with.
func TestScripts(t *testing.T) {
	ignoreNothing()
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/script",
		UpdateScripts:      *update,
		RequireUniqueNames: true,
		Condition: func(c string) (bool, error) {
			switch c {
			case "bpf":
				return trace.Probe() == nil, nil
			case "cgo":
				return launch.Guarded, nil
			case "runc":
				for _, tool := range []string{"runc", "busybox"} {
					if _, err := exec.LookPath(tool); err != nil {
						return false, nil
					}
				}
				return os.Geteuid() == 0, nil
			case "mounts":
				return exec.Command("unshare", "--mount", "--pid", "--fork", "umount", "-l", "/proc").Run() == nil, nil
			}
			return false, fmt.Errorf("no condition %q", c)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				runScripted(ts, 0, "", args, ts.Stdout(), ts.Stderr())
			},
			"signals": scriptedSignal,
			"storms":  scriptedStorms,
			"like":    scriptedLike,
		},
	})
}

func scriptedSignal(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: signals SIGNAL FILE CODE program [argument ...]")
	}
	sig := unix.SignalNum("SIG" + args[0])
	if sig == 0 {
		ts.Fatalf("no signal %s", args[0])
	}
	runScripted(ts, sig, ts.MkAbs(args[1]), args[2:], ts.Stdout(), ts.Stderr())
}

func scriptedStorms(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: storms UNIT[,UNIT...] program [argument ...]")
	}
	for whole := false; !whole; {
		var stdout, stderr strings.Builder
		runScripted(ts, 0, "", append([]string{"0"}, args[1:]...), &stdout, &stderr)
		whole = true
		for line := range strings.Lines(stdout.String()) {
			for unit := range strings.SplitSeq(args[0], ",") {
				whole = whole && (!strings.HasPrefix(line, "Benchmark") || strings.Contains(line, " "+unit))
			}
		}
		if whole {
			fmt.Fprint(ts.Stdout(), stdout.String())
			fmt.Fprint(ts.Stderr(), stderr.String())
		}
	}
}

// runScripted runs a program without a terminal, whose signals it would take
// for meant for its children too, and with a deadline.
func runScripted(ts *testscript.TestScript, sig syscall.Signal, when string, args []string, stdout, stderr io.Writer) {
	if len(args) < 2 {
		ts.Fatalf("usage: exits CODE program [argument ...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 2*hung)
	defer cancel()
	// testscript puts its programs on our PATH, and the script's is ours.
	c := exec.CommandContext(ctx, args[1], args[2:]...)
	c.Dir = ts.MkAbs(".")
	c.Env = []string{"GORACE=atexit_sleep_ms=0"}
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "WORK", "GODEBUG"} {
		c.Env = append(c.Env, name+"="+ts.Getenv(name))
	}
	c.Stdout, c.Stderr = stdout, stderr
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	c.WaitDelay = hung
	ts.Check(c.Start())
	if sig != 0 {
		for {
			if info, err := os.Stat(when); err == nil && info.Size() > 0 {
				break
			}
			if ctx.Err() != nil {
				ts.Fatalf("%v: nothing comes into %s", args[1:], when)
			}
			time.Sleep(5 * time.Millisecond)
		}
		ts.Check(c.Process.Signal(sig))
	}
	err = c.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		ts.Fatalf("%v: %v", args[1:], err)
	}
	ws := c.ProcessState.Sys().(syscall.WaitStatus)
	code := ws.ExitStatus()
	if ws.Signaled() {
		code = 128 + int(ws.Signal())
	}
	if ctx.Err() != nil {
		ts.Fatalf("%v: hung and was killed", args[1:])
	}
	if code != want {
		ts.Fatalf("%v: exit status %d, want %d", args[1:], code, want)
	}
}

func scriptedLike(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg {
		ts.Fatalf("usage: like stdout|stderr|FILE FILE")
	}
	got, want := ts.ReadFile(args[0]), ts.ReadFile(args[1])
	if !ellipsis.Match(want, got) {
		ts.Fatalf("%s is:\n%s\nwant, with … for anything:\n%s", args[0], got, want)
	}
}
