package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/filter"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/osthread"
	"github.com/unknot/unknot/engine/policy"
	"golang.org/x/sys/unix"
)

// runSettings are run's settings, from flags or a file of the same names.
type runSettings struct {
	Trap      []string `yaml:"trap"`
	Queue     int      `yaml:"queue"`
	Workers   int      `yaml:"workers"`
	DropBatch int      `yaml:"drop-batch"`
	DropErrno string   `yaml:"drop-errno"`
	Policy    string   `yaml:"policy"`
	Pace      string   `yaml:"pace"`
	CPU       string   `yaml:"cpu"`
	Format    string   `yaml:"format"`
	Confine   string   `yaml:"confine"`
	Priority  string   `yaml:"priority"`

	where func(name string) string // where a setting comes from, for errors
}

// defaultTrap is what `run` watches unless told otherwise.
var defaultTrap = []string{"openat", "connect", "execve"}

// defaultRunQueue holds more calls than ordinary programs have threads, because
// a dropped call is a failed call for a program that does not expect EINTR.
const defaultRunQueue = 1024

func newRunCmd() *cobra.Command {
	s := runSettings{Trap: defaultTrap, Queue: defaultRunQueue, Workers: 2, DropErrno: "EINTR", CPU: "auto", Format: "text", Policy: policy.DropOldest.String(), Pace: bench.Auto, Confine: "private", Priority: keepPriority,
		where: func(name string) string { return "--" + name }}
	var config string
	c := &cobra.Command{
		Use:   "run [flags] -- command [argument ...]",
		Short: "supervise a command: every trapped call continues, and is counted",
		Long: `run supervises a command and all its descendants. Each trapped system call goes
through the engine and continues. The command's input and output are its own; at
the end a table by system call goes to standard error.

"round trip" in the table is from receive to the end of the answer: the target's
own trap and wake-up come on top. A call in excess of --queue is dropped: it
fails with --drop-errno.

run waits for descendants that outlive the command, since their trapped calls
would fail with ENOSYS without a supervisor; interrupt it to end that.

Exit codes: the command's own, 128 plus the signal that ended it, 127 no such
command, 126 not executable, 1 the supervisor failed, 2 wrong usage.`,
		Example: `  unknot run -- make
  unknot run -t openat,read --format json -- tar cf /dev/null /usr/include`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageErrorf("run what? name a command: unknot run -- ls")
			}
			if config != "" {
				if err := s.load(config, cmd); err != nil {
					return err
				}
			}
			return supervise(cmd, &s, args)
		},
	}
	fl := c.Flags()
	fl.SetInterspersed(false) // what follows the command's name is the command's
	fl.StringSliceVarP(&s.Trap, "trap", "t", s.Trap, "system calls to trap, by `names`")
	fl.IntVar(&s.Queue, "queue", s.Queue, "capacity of the queue in notifications")
	fl.IntVar(&s.Workers, "workers", s.Workers, "workers")
	fl.IntVar(&s.DropBatch, "drop-batch", s.DropBatch, "how many of the oldest calls a full queue drops at least, at most the queue; 0 adapts")
	fl.StringVar(&s.Policy, "policy", s.Policy, "which calls give way when the queue is full: drop-oldest, drop-newest, or block for none")
	fl.StringVar(&s.Pace, "pace", s.Pace, "how long dropped calls are held before they are told: a duration such as 5ms, auto, none")
	fl.StringVar(&s.DropErrno, "drop-errno", s.DropErrno, "what dropped calls fail with, by `name`")
	fl.StringVar(&s.CPU, "cpu", s.CPU, "the receive thread's CPU: a number, auto (the last, or its targets'), none")
	fl.StringVar(&s.Format, "format", s.Format, "of the table: text, json")
	fl.StringVar(&s.Confine, "confine", s.Confine, confineUsage)
	fl.StringVar(&s.Priority, "priority", s.Priority, priorityUsage)
	fl.StringVar(&config, "config", "", "YAML `file` with these settings; flags win")
	return c
}

// load reads a settings file; flags that were given stay.
func (s *runSettings) load(path string, cmd *cobra.Command) error {
	given := *s
	if err := loadSettings(path, s); err != nil {
		return usageErrorf("--config %w", err)
	}
	keep := map[string]func(){
		"trap":       func() { s.Trap = given.Trap },
		"queue":      func() { s.Queue = given.Queue },
		"workers":    func() { s.Workers = given.Workers },
		"drop-batch": func() { s.DropBatch = given.DropBatch },
		"drop-errno": func() { s.DropErrno = given.DropErrno },
		"policy":     func() { s.Policy = given.Policy },
		"pace":       func() { s.Pace = given.Pace },
		"confine":    func() { s.Confine = given.Confine },
		"priority":   func() { s.Priority = given.Priority },
		"cpu":        func() { s.CPU = given.CPU },
		"format":     func() { s.Format = given.Format },
	}
	for name, keep := range keep {
		if cmd.Flags().Changed(name) {
			keep()
		}
	}
	s.where = func(name string) string {
		if cmd.Flags().Changed(name) {
			return "--" + name
		}
		return "--config " + path + ": " + name
	}
	return nil
}

// engineConfig checks the settings and makes the engine's configuration of them.
func (s *runSettings) engineConfig() (cfg engine.Config, err error) {
	bad := func(name string, v any, want string) error {
		return usageErrorf("%s %v: want %s", s.where(name), v, want)
	}
	for _, n := range []struct {
		name       string
		v          int
		low, limit int
	}{{"queue", s.Queue, 1, engine.MaxQueue}, {"workers", s.Workers, 1, engine.MaxWorkers}, {"drop-batch", s.DropBatch, 0, engine.MaxQueue}} {
		if n.v < n.low || n.v > n.limit {
			return cfg, bad(n.name, n.v, fmt.Sprintf("a whole number from %d to %d", n.low, n.limit))
		}
	}
	if s.Format != "text" && s.Format != "json" {
		return cfg, bad("format", strconv.Quote(s.Format), "text or json")
	}
	cfg = engine.Config{
		Handler: engine.HandlerFunc(func(r engine.Request) { _ = r.Continue() }), // ErrGone is counted
		Queue:   s.Queue, Workers: s.Workers, DropBatch: min(s.DropBatch, s.Queue), BySyscall: true,
	}
	errno, ok := errnoByName(s.DropErrno)
	if !ok {
		return cfg, bad("drop-errno", strconv.Quote(s.DropErrno), "an errno's name, such as EINTR or EAGAIN")
	}
	cfg.DropErrno = errno
	if cfg.Policy, err = policy.ParseKind(s.Policy); err != nil {
		return cfg, bad("policy", strconv.Quote(s.Policy), strings.Join(policy.Kinds[:], ", "))
	}
	if cfg.Pace, err = parsePace(s.Pace); err != nil {
		return cfg, bad("pace", strconv.Quote(s.Pace), paceForms)
	}
	if cfg.RaisePriority, ok = parsePriority(s.Priority); !ok {
		return cfg, bad("priority", strconv.Quote(s.Priority), priorityForms)
	}
	switch s.CPU {
	case "auto":
	case "none":
		cfg.CPU = engine.AnyCPU
	default:
		n, err := strconv.Atoi(s.CPU)
		if allowed := osthread.Allowed(); err != nil || n < 0 || allowed != nil && !slices.Contains(allowed, n) {
			return cfg, bad("cpu", strconv.Quote(s.CPU), fmt.Sprintf("one of %v, auto or none", allowed))
		}
		cfg.CPU = engine.OnCPU(n)
	}
	return cfg, nil
}

const (
	keepPriority  = "keep"
	priorityForms = "keep or raise"
	priorityUsage = "of the receive thread and a lone worker: keep, or raise under many targets with short handlers, where a CPU is the supervisor's own (CAP_SYS_NICE)"
)

// parsePriority reads whether to raise it.
func parsePriority(s string) (raise, ok bool) {
	return s == "raise", s == "raise" || s == keepPriority
}

const paceForms = "a duration such as 5ms, auto or none"

// parsePace reads a pace of drops, as engine.Config wants it.
func parsePace(s string) (time.Duration, error) {
	switch s {
	case bench.Auto:
		return 0, nil
	case bench.NoPace:
		return policy.Immediately, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("pace %q: want %s", s, paceForms)
	}
	return d, nil
}

func errnoByName(name string) (syscall.Errno, bool) {
	for e := syscall.Errno(1); e < 134; e++ {
		if unix.ErrnoName(e) == name {
			return e, true
		}
	}
	return 0, false
}

// findCommand resolves the command as a shell would, with a shell's exit codes.
func findCommand(name string) (string, error) {
	path, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrDot) {
		err = nil // "./x" was not meant, but a shell with . in its PATH runs it as well
	}
	if err == nil {
		return filepath.Abs(path)
	}
	code, why := 127, "no such command"
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EISDIR) {
		code, why = 126, "not executable"
	}
	// Not what LookPath puts before the reason: the name once more, and its call.
	var ours *exec.Error
	if errors.As(err, &ours) {
		err = ours.Err
	}
	var call *fs.PathError
	if errors.As(err, &call) {
		err = call.Err
	}
	return "", &exitError{code, fmt.Errorf("run %q: %s: %w", name, why, err)}
}

func supervise(cmd *cobra.Command, s *runSettings, args []string) error {
	cfg, err := s.engineConfig()
	if err != nil {
		return err
	}
	prog, err := filter.Compile(s.Trap, filter.Options{})
	if err != nil {
		return usageErrorf("%s: %w", s.where("trap"), err)
	}
	path, err := findCommand(args[0])
	if err != nil {
		return err
	}
	stderr := cmd.ErrOrStderr()
	cfg.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	e, err := newConfined(cfg, s.Confine, stderr)
	if err != nil {
		return err
	}
	plan := launchPlan{Prog: prog, Path: path, Argv: args, Env: os.Environ()}
	if notify.FeatureWaitKillable.Probe() == nil {
		// A call that was received is not interrupted and made again by signals
		// that do not kill, of which Go programs get a hundred a second.
		plan.Flags = notify.WaitKillableRecv
	}
	// One channel throughout, so that no signal falls between two.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(signals)
	status, src, err := launch(e, &plan, signals)
	if err == nil {
		waitForRest(stderr, src, args[0], signals)
	}
	if err := errors.Join(err, e.stop()); err != nil {
		return err
	}
	if err := report(stderr, s.Format, e.Engine); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	if status != 0 {
		return &exitError{Code: status}
	}
	return nil
}

// launch starts the command under the engine, passes signals on to it and waits
// for it. The status is as a shell's.
func launch(e *confinedEngine, plan *launchPlan, signals <-chan os.Signal) (status int, src *engine.Source, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, fmt.Errorf("launch: socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "launcher"), os.NewFile(uintptr(fds[1]), "supervisor")
	fc, err := net.FileConn(ours)
	_ = ours.Close()
	if err != nil {
		_ = theirs.Close()
		return 0, nil, fmt.Errorf("launch: %w", err)
	}
	conn := fc.(*net.UnixConn)
	defer conn.Close()
	c := exec.Command("/proc/self/exe")
	c.Args[0] = "unknot-launch"
	c.Env = []string{launchEnv + "=1", "GODEBUG=asyncpreemptoff=1"} // SIGURG must not meet a thread that spins
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.ExtraFiles = []*os.File{theirs}
	err = c.Start()
	_ = theirs.Close()
	if err != nil {
		return 0, nil, fmt.Errorf("launch: %w", err)
	}
	fail := func(err error) (int, *engine.Source, error) {
		_ = c.Process.Kill()
		_ = c.Wait()
		return 0, nil, fmt.Errorf("launch %s: %w", plan.Path, err)
	}
	if err := json.NewEncoder(conn).Encode(plan); err != nil {
		return fail(err)
	}
	l, err := notify.RecvListener(conn)
	if err != nil {
		return fail(err)
	}
	if src, err = e.Add(l); err != nil {
		_ = l.Close()
		return fail(err)
	}
	// Nothing runs before the receive thread is confined.
	if err := e.start(); err != nil {
		return fail(err)
	}
	if _, err := conn.Write([]byte{'g'}); err != nil {
		return fail(err)
	}
	// The socket closes when execve succeeds, else it brings the errno.
	var errno [1]byte
	if n, _ := conn.Read(errno[:]); n == 1 {
		_ = c.Wait()
		code, why := 126, "not executable"
		if syscall.Errno(errno[0]) == unix.ENOENT {
			code, why = 127, "its interpreter does not exist" // the file itself was found
		}
		return 0, nil, &exitError{code, fmt.Errorf("run %q: %s: %w", plan.Argv[0], why, syscall.Errno(errno[0]))}
	}
	exited := make(chan struct{})
	go func() {
		_ = c.Wait()
		close(exited)
	}()
	for {
		select {
		case sig := <-signals:
			// A terminal sends its signals to the whole foreground group, the
			// command included; only what was meant for us alone is passed on.
			if (sig == unix.SIGINT || sig == unix.SIGQUIT) && inForeground() {
				continue
			}
			_ = c.Process.Signal(sig)
		case <-exited:
			ws := c.ProcessState.Sys().(syscall.WaitStatus)
			if ws.Signaled() {
				return 128 + int(ws.Signal()), src, nil
			}
			return ws.ExitStatus(), src, nil
		}
	}
}

// inForeground reports whether we are in the foreground process group of our terminal.
func inForeground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	pgrp, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && pgrp == unix.Getpgrp()
}

// waitForRest waits for descendants that outlive the command, or for a signal
// that ends the wait.
func waitForRest(w io.Writer, src *engine.Source, name string, signals <-chan os.Signal) {
	if notify.FeatureHangup.Probe() != nil {
		return // this kernel does not say when the last one is gone
	}
	note := time.NewTimer(time.Second)
	defer note.Stop()
	for {
		select {
		case <-src.Done():
			return
		case sig := <-signals:
			if sig != unix.SIGUSR1 && sig != unix.SIGUSR2 {
				return
			}
		case <-note.C:
			fmt.Fprintf(w, "unknot: %s has ended, some of its processes have not: still supervising them (interrupt to stop; their trapped calls will then fail with ENOSYS)\n", name)
		}
	}
}

// callReport is one line of the table. Times are in ns.
type callReport struct {
	Syscall      string  `json:"syscall"`
	Count        uint64  `json:"count"`
	Answered     uint64  `json:"answered"`
	Dropped      uint64  `json:"dropped"`
	Stale        uint64  `json:"stale"`
	WaitP50      float64 `json:"p50_wait_ns"`
	WaitP99      float64 `json:"p99_wait_ns"`
	RoundTripP50 float64 `json:"p50_roundtrip_ns"`
	RoundTripP99 float64 `json:"p99_roundtrip_ns"`
}

func report(w io.Writer, format string, e *engine.Engine) error {
	calls := []callReport{}
	for _, s := range e.Syscalls() {
		r := callReport{Syscall: filter.Name(s.Arch, s.NR), Count: s.Received, Answered: s.Answered, Dropped: s.Dropped, Stale: s.Stale}
		if s.Wait.Count > 0 {
			r.WaitP50, r.WaitP99 = s.Wait.Quantile(.5), s.Wait.Quantile(.99)
		}
		if s.Total.Count > 0 {
			r.RoundTripP50, r.RoundTripP99 = s.Total.Quantile(.5), s.Total.Quantile(.99)
		}
		calls = append(calls, r)
	}
	slices.SortFunc(calls, func(a, b callReport) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Syscall, b.Syscall))
	})
	if format == "json" {
		return json.NewEncoder(w).Encode(struct {
			Calls    []callReport    `json:"calls"`
			Counters engine.Counters `json:"counters"`
		}{calls, e.Counters()})
	}
	if len(calls) == 0 {
		_, err := fmt.Fprintln(w, "unknot: none of the trapped system calls was made")
		return err
	}
	fmt.Fprintf(w, "\n%-20s %9s %7s %7s %10s %10s %12s %12s\n", "syscall", "count", "drops", "stale", "p50 wait", "p99 wait", "p50 roundtrip", "p99 roundtrip")
	for _, r := range calls {
		if _, err := fmt.Fprintf(w, "%-20s %9d %7d %7d %10s %10s %13s %13s\n", r.Syscall, r.Count, r.Dropped, r.Stale,
			bench.Duration(r.WaitP50), bench.Duration(r.WaitP99), bench.Duration(r.RoundTripP50), bench.Duration(r.RoundTripP99)); err != nil {
			return err
		}
	}
	return nil
}
