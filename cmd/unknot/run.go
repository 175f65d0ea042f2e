package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/cmd/unknot/internal/early"
	"github.com/unknot/unknot/cmd/unknot/internal/rules"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/filter"
	"github.com/unknot/unknot/engine/launch"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/policy"
	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

// runSettings are run's settings, from flags or a file of the same names.
type runSettings struct {
	Trap      []string `yaml:"trap"`
	Queue     int      `yaml:"queue"`
	Workers   int      `yaml:"workers"`
	DropBatch int      `yaml:"drop-batch"`
	DropErrno string   `yaml:"drop-errno"`
	Path      string   `yaml:"path"`
	Policy    string   `yaml:"policy"`
	Pace      string   `yaml:"pace"`
	Target    string   `yaml:"wait-target"`
	CPU       string   `yaml:"cpu"`
	Format    string   `yaml:"format"`
	Confine   string   `yaml:"confine"`
	Priority  string   `yaml:"priority"`
	Wait      string   `yaml:"wait"`
	OnDeath   string   `yaml:"on-death"`
	Output    string   `yaml:"output"`
	Status    string   `yaml:"status"`
	Quiet     bool     `yaml:"quiet"`
	Verbose   bool     `yaml:"verbose"`
	Audit     string   `yaml:"audit"`

	// A policy (package rules) stands in the same file. It is read apart, for which these keys must be known.
	Default       any `yaml:"default" json:"-"`
	Rules         any `yaml:"rules" json:"-"`
	Deadline      any `yaml:"deadline" json:"-"`
	Late          any `yaml:"late" json:"-"`
	MaxInHandlers any `yaml:"max-in-handlers" json:"-"`

	UnderscoreTarget string `yaml:"wait_target" json:"-"` // as Target

	PolicyFile string        `yaml:"-"` // "": no policy
	PolicyText []byte        `yaml:"-"`
	rules      *rules.Policy // nil: none

	exitCode bool                     // exit with 128+n rather than die of signal n
	where    func(name string) string // where a setting comes from, for errors
}

// defaultTrap is what `run` watches unless told otherwise: calls that programs
// expect to be interrupted, or make where nothing interrupts them.
var defaultTrap = []string{"openat", "execve"}

// defaultRunQueue holds more calls than ordinary programs have threads.
const defaultRunQueue = 1024

func defaultRunSettings() runSettings {
	return runSettings{Trap: defaultTrap, Queue: defaultRunQueue, Workers: 2, DropErrno: dropContinue, Path: bench.Auto, CPU: "auto", Format: "text", Policy: policy.DropOldest.String(), Pace: bench.Auto, Target: noTarget, Confine: "private", Priority: keepPriority,
		Wait: waitAll, OnDeath: killTree,
		where: func(name string) string { return "--" + name }}
}

func newRunCmd() *cobra.Command {
	s := defaultRunSettings()
	var config string
	c := &cobra.Command{
		Use:   "run [flags] -- command [argument ...]",
		Short: "supervise a command: every trapped call continues, and is counted",
		Long: `run supervises a command and all its descendants. Each trapped system call goes
through the engine and continues. The command inherits what unknot was started
with, its input and output are its own, and it gets each signal that unknot is
sent; at the end a table by system call goes to standard error, or to --output.

"round trip" in the table is from receive to the end of the answer: the target's
own trap and wake-up come on top. With --path queue a call in excess of --queue
is dropped: it continues without being seen by a handler, or fails with
--drop-errno, but for calls whose failure programs do not expect (close, clone,
exit, set*id and such).

A signal that comes between a trap and its receive ends the call with EINTR if
the program handles it without SA_RESTART. Programs expect that of read or open,
not of close, clone, pipe or connect: run warns where --trap names such calls.

run waits for descendants that outlive the command, since their trapped calls
would fail with ENOSYS without a supervisor; interrupt it to end that, and them.
When unknot dies, also by SIGKILL, the command's processes are killed
(--on-death).

Without CAP_SYS_ADMIN the kernel wants no_new_privs for a filter, and then
set-user-ID programs (sudo, su, ping) get no privilege below run. Not seen are
operations by io_uring; a trapped call that a tracer below run (strace, proot)
changes or skips is seen as it was made. docs/run.md has the details.

Exit codes: the command's own; when a signal ended it unknot dies of the same one
(--exit-code: exits with 128 plus its number); 127 no such command, 126 not
executable, 1 the supervisor failed, 2 wrong usage.`,
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
	fl.StringVar(&s.Target, "wait-target", s.Target, waitTargetUsage)
	fl.StringVar(&s.Path, "path", s.Path, "of a call: inline (answered by the receive thread, nothing is queued and nothing dropped), queue, or auto (inline unless a setting of the queue is given)")
	fl.StringVar(&s.DropErrno, "drop-errno", s.DropErrno, "what becomes of dropped calls: continue, or the `name` of an errno; EINTR,read=EAGAIN has another one for read")
	fl.StringVar(&s.CPU, "cpu", s.CPU, "the receive thread's CPU: a number, auto (one that has few receive threads, or its targets'), none")
	fl.StringVar(&s.Format, "format", s.Format, "of the table: text, json")
	fl.StringVar(&s.Confine, "confine", s.Confine, confineUsage)
	fl.StringVar(&s.Priority, "priority", s.Priority, priorityUsage)
	fl.StringVar(&s.Wait, "wait", s.Wait, "for what to wait: all (also what outlives the command), or command")
	fl.StringVar(&s.OnDeath, "on-death", s.OnDeath, "what becomes of the command's processes when unknot dies, also by SIGKILL: kill, or leave (their trapped calls then fail with ENOSYS)")
	fl.StringVarP(&s.Output, "output", "o", s.Output, "`file` for the table, instead of standard error")
	fl.StringVar(&s.Status, "status", s.Status, "`address` at which to show what goes on while the command runs, by HTTP: HOST:PORT or unix:/PATH, for unknot top, Prometheus and pprof")
	fl.BoolVarP(&s.Quiet, "quiet", "q", s.Quiet, "no table on standard error, and no notes")
	fl.BoolVarP(&s.Verbose, "verbose", "v", s.Verbose, "also what the engine logs and, with the table, what each of its receive threads did and why")
	fl.BoolVar(&s.exitCode, "exit-code", false, "when signal n ended the command exit with 128+n, rather than die of n too")
	fl.StringVar(&s.Audit, "audit", s.Audit, "`file` to append the records of a policy's log rules to, instead of standard error")
	fl.StringVar(&config, "config", "", "YAML `file` with these settings, or a policy (docs/policy.md), or both; flags win")
	return c
}

// load reads a settings file; flags that were given stay.
func (s *runSettings) load(path string, cmd *cobra.Command) error {
	given := *s
	text, err := readSettings(path)
	if err != nil {
		return usageErrorf("--config %w", err)
	}
	if rules.Is(text) {
		// Of all that is wrong in a policy it tells at once, and where.
		s.PolicyFile, s.PolicyText = path, text
		if s.rules, err = rules.ParseWith(path, text, rules.RunKeys...); err != nil {
			return usageErrorf("--config %w", err)
		}
		s.Trap = nil
	}
	if err := decodeSettings(path, text, s); err != nil {
		return usageErrorf("--config %w", err)
	}
	if s.UnderscoreTarget != "" {
		s.Target = s.UnderscoreTarget
	}
	trapped := s.rules != nil && s.Trap == nil
	if trapped {
		if s.Trap = s.rules.Trapped(); len(s.Trap) == 0 {
			s.Trap = given.Trap
		}
	}
	keep := map[string]func(){
		"trap":        func() { s.Trap = given.Trap },
		"queue":       func() { s.Queue = given.Queue },
		"workers":     func() { s.Workers = given.Workers },
		"drop-batch":  func() { s.DropBatch = given.DropBatch },
		"drop-errno":  func() { s.DropErrno = given.DropErrno },
		"path":        func() { s.Path = given.Path },
		"policy":      func() { s.Policy = given.Policy },
		"pace":        func() { s.Pace = given.Pace },
		"wait-target": func() { s.Target = given.Target },
		"confine":     func() { s.Confine = given.Confine },
		"priority":    func() { s.Priority = given.Priority },
		"cpu":         func() { s.CPU = given.CPU },
		"format":      func() { s.Format = given.Format },
		"wait":        func() { s.Wait = given.Wait },
		"on-death":    func() { s.OnDeath = given.OnDeath },
		"output":      func() { s.Output = given.Output },
		"status":      func() { s.Status = given.Status },
		"quiet":       func() { s.Quiet = given.Quiet },
		"verbose":     func() { s.Verbose = given.Verbose },
		"audit":       func() { s.Audit = given.Audit },
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
		if name == "trap" && trapped {
			name = "rules" // which say what is trapped
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
	if s.Wait != waitAll && s.Wait != waitCommand {
		return cfg, bad("wait", strconv.Quote(s.Wait), "all or command")
	}
	if s.OnDeath != killTree && s.OnDeath != leaveTree {
		return cfg, bad("on-death", strconv.Quote(s.OnDeath), "kill or leave")
	}
	if s.Format != "text" && s.Format != "json" {
		return cfg, bad("format", strconv.Quote(s.Format), "text or json")
	}
	cfg = engine.Config{
		Handler: engine.HandlerFunc(func(r engine.Request) { _ = r.Continue() }), // ErrGone is counted
		Queue:   s.Queue, Workers: s.Workers, DropBatch: min(s.DropBatch, s.Queue), BySyscall: true,
	}
	switch s.Path {
	case bench.Auto:
		cfg.Inline = !s.queueSet()
	case pathInline:
		cfg.Inline = true
	case pathQueue:
	default:
		return cfg, bad("path", strconv.Quote(s.Path), "inline, queue or auto")
	}
	if err := s.policy(&cfg); err != nil {
		return cfg, err
	}
	if err := s.dropErrnos(&cfg); err != nil {
		return cfg, err
	}
	if cfg.Policy, err = policy.ParseKind(s.Policy); err != nil {
		return cfg, bad("policy", strconv.Quote(s.Policy), strings.Join(policy.Kinds[:], ", "))
	}
	if cfg.Pace, err = rules.ParsePace(s.Pace); err != nil {
		return cfg, bad("pace", strconv.Quote(s.Pace), rules.PaceForms)
	}
	if cfg.WaitTarget, err = rules.ParseWaitTarget(s.Target); err != nil {
		return cfg, bad("wait-target", strconv.Quote(s.Target), rules.WaitTargetForms)
	}
	if cfg.WaitTarget > 0 && s.Path == pathInline {
		return cfg, usageErrorf("%s %s with --path inline: inline nothing waits in a queue: leave one out", s.where("wait-target"), s.Target)
	}
	var ok bool
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

// queueSet reports whether a setting of the queue was given.
func (s *runSettings) queueSet() bool {
	d := defaultRunSettings()
	return s.Queue != d.Queue || s.Workers != d.Workers || s.DropBatch != d.DropBatch || s.Policy != d.Policy || s.Pace != d.Pace || s.Target != d.Target || s.DropErrno != d.DropErrno
}

// policy has calls answered by the policy, if there is one.
func (s *runSettings) policy(cfg *engine.Config) (err error) {
	if s.PolicyFile == "" {
		return nil
	}
	if s.rules == nil { // for who goes on in the background
		if s.rules, err = rules.ParseWith(s.PolicyFile, s.PolicyText, rules.RunKeys...); err != nil {
			return err
		}
	}
	// What needs nothing of the target is answered inline in any case.
	cfg.Inline = s.Path == pathInline
	s.rules.Settings().Limits(cfg)
	return nil
}

// dropErrnos reads what becomes of dropped calls, of all and of single ones.
func (s *runSettings) dropErrnos(cfg *engine.Config) (err error) {
	text, all, refuses := s.DropErrno, engine.DropContinue, func(string) bool { return false }
	if s.rules != nil {
		refuses = s.rules.Refuses
		if text == defaultRunSettings().DropErrno && !s.rules.Settings().Said["drop-errno"] && s.rules.RefusesAny() {
			text = "EINTR" // a full queue is no way around the rules
		}
	}
	cfg.DropErrno, cfg.DropErrnos, err = rules.DropErrnos(text, all, refuses)
	var unknown *filter.UnknownError
	switch {
	case errors.As(err, &unknown):
		return usageErrorf("%s: %w", s.where("drop-errno"), err)
	case err != nil:
		return usageErrorf("%s %w", s.where("drop-errno"), err)
	}
	return nil
}

// route has the policy's rules answer, if there is one. The records go to the file, or to w.
func (s *runSettings) route(cfg *engine.Config, w io.Writer) (done func() error, err error) {
	if s.rules == nil {
		return func() error { return nil }, nil
	}
	closed := func() error { return nil }
	if s.Audit != "" {
		f, err := rules.OpenFile(s.Audit)
		if err != nil {
			return nil, usageErrorf("%s: %w", s.where("audit"), err)
		}
		w, closed = f, f.Close
	}
	audit := rules.NewAudit(w, rules.AuditOptions{Logger: cfg.Logger})
	router := rules.NewRouter(s.rules, audit)
	router.SetLogger(cfg.Logger)
	cfg.Handler = router
	return func() error { return errors.Join(audit.Close(), closed()) }, nil
}

// threadReserve is how many threads run makes before the command starts, beside
// those that are locked: internal/early has how many must be possible in all.
const threadReserve = 6

const (
	pathInline, pathQueue = "inline", "queue"
	dropContinue          = "continue"
	waitAll, waitCommand  = "all", "command"
	killTree, leaveTree   = "kill", "leave"
)

const (
	noTarget        = "none"
	waitTargetUsage = "how long calls may wait in the queue, such as 1ms: its depth then follows how fast calls are served, within its capacity; none leaves it at the capacity"

	keepPriority  = "keep"
	priorityForms = "keep or raise"
	priorityUsage = "of the receive thread and a lone worker: keep, or raise under many targets with short handlers, where a CPU is the supervisor's own (CAP_SYS_NICE)"
)

// parsePriority reads whether to raise it.
func parsePriority(s string) (raise, ok bool) {
	return s == "raise", s == "raise" || s == keepPriority
}

func supervise(cmd *cobra.Command, s *runSettings, args []string) error {
	front := newFront()
	if err := front.listen(); err != nil {
		return fmt.Errorf("run: read signals: %w", err)
	}
	reapOrphans()
	reserveThreads(threadReserve)
	cfg, err := s.engineConfig()
	if err != nil {
		return err
	}
	if err := notify.FeatureNotify.Probe(); err != nil {
		return err // the greater lack first: without it nothing is compiled either
	}
	prog, err := filter.Compile(s.Trap, filter.Options{})
	if err != nil {
		return trapError(s.where("trap"), err)
	}
	paths, err := launch.Find(args[0])
	if err != nil {
		return notRun(args[0], unix.ENOENT)
	}
	page, err := s.listenStatus()
	if err != nil {
		return err
	}
	defer page.stop()
	table, notes, done, err := s.outputs(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	defer done()
	level := slog.LevelWarn
	if s.Verbose {
		level = slog.LevelDebug
	}
	cfg.Logger = slog.New(slog.NewTextHandler(notes, &slog.HandlerOptions{Level: level}))
	audited, err := s.route(&cfg, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	e, err := newConfined(cfg, s.Confine, notes)
	if err != nil {
		return err
	}
	// A probe may be refused what the command's own filter needs not.
	var lacking *notify.UnsupportedError
	if err := notify.FeatureContinue.Probe(); errors.As(err, &lacking) && lacking.TooOld() {
		return fmt.Errorf("run: %w", err)
	}
	if warning := s.unsafeWarning(); warning != "" && s.Format != "json" { // in which it stands
		fmt.Fprintf(notes, "unknot: %s\n", warning)
	}
	flags := notify.SpecAllow // the command is not slowed for being supervised
	if notify.FeatureWaitKillable.Probe() == nil {
		// A call that was received is not interrupted and made again by signals
		// that do not kill, of which Go programs get a hundred a second.
		flags |= notify.WaitKillableRecv
	}
	page.serve(e.Engine, s, args[0], notes, cfg.Logger)
	var src *engine.Source
	front.launching()
	p, err := launch.Start(&launch.Command{Paths: paths, Args: args, Leave: s.OnDeath == leaveTree, Notify: front.event}, prog, flags, func(l *notify.Listener) (err error) {
		if src, err = e.Add(l); err != nil {
			_ = l.Close()
			return err
		}
		// Nothing runs before the receive thread is confined.
		return e.start()
	})
	if errno, ok := launch.NotRun(err); ok {
		err = notRun(args[0], errno)
	}
	if err != nil {
		return errors.Join(err, e.stop())
	}
	if err := p.Orphans(); err != nil && s.OnDeath == killTree {
		fmt.Fprintf(notes, "unknot: processes that outlive their parent are not killed when unknot dies: %v\n", err)
	}
	letGo()
	front.serve(p)
	status, err := p.Wait()
	if front.over(status) && err == nil && src != nil {
		if s.Wait == waitCommand && somethingIsLeft(src, p) {
			e, src, err = s.leaveRest(cfg, e, src, p, notes)
		}
		if src != nil && err == nil {
			waitForRest(notes, src, p, args[0], front.hurry)
		}
	}
	threads := e.Debug() // while there are some
	err = errors.Join(err, e.stop(), p.Close())
	if lost := audited(); lost != nil {
		fmt.Fprintf(notes, "unknot: %v\n", lost)
	}
	if err != nil {
		return err
	}
	page.stop() // it shows a running engine
	// The status is the command's, whatever becomes of the table.
	if err := s.report(table, e.Engine, threads); err != nil {
		fmt.Fprintf(notes, "unknot: write the table: %v\n", err)
	}
	if status.Signaled() {
		if !s.exitCode {
			dieBy(status.Signal())
		}
		return &exitError{Code: 128 + int(status.Signal())} // PID 1 cannot die of it
	}
	if status.ExitStatus() != 0 {
		return &exitError{Code: status.ExitStatus()}
	}
	return nil
}

// trapError is the error of a filter that cannot be compiled, whose names may be
// the reason.
func trapError(where string, err error) error {
	var unknown *filter.UnknownError
	if errors.As(err, &unknown) || errors.Is(err, filter.ErrNoSyscalls) {
		return usageErrorf("%s: %w", where, err)
	}
	return fmt.Errorf("compile the filter: %w", err)
}

// outputs are where the table and the notes go, and what is to be done at the end.
func (s *runSettings) outputs(stderr io.Writer) (table, notes io.Writer, done func(), err error) {
	table, notes, done = stderr, stderr, func() {}
	if s.Quiet {
		table, notes = io.Discard, io.Discard
	}
	if s.Output != "" {
		f, err := os.OpenFile(s.Output, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o666)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("%s: %w", s.where("output"), err)
		}
		table, done = f, func() { _ = f.Close() }
	}
	return table, notes, done, nil
}

// notRun is the error for a command that cannot be run, with a shell's exit codes.
func notRun(name string, errno syscall.Errno) error {
	code, why, err := 126, "not executable", error(errno)
	if errno == unix.ENOENT {
		code, why = 127, "no such command"
		if !strings.Contains(name, "/") {
			err = errors.New("not found in PATH")
		} else if _, gone := os.Lstat(name); gone == nil {
			why = "its interpreter does not exist"
		}
	}
	return &exitError{code, fmt.Errorf("run %q: %s: %w", name, why, err)}
}

// letGo gives up what the command has from now on for itself: who reads from a
// pipe that it writes to, or writes to one that it reads, sees its end.
func letGo() {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer null.Close()
	for _, fd := range []int{0, 1} {
		_ = unix.Dup3(int(null.Fd()), fd, 0)
	}
	for _, fd := range early.Files() {
		var st unix.Stat_t
		// Not regular files: closing one would drop the record locks on it.
		if unix.Fstat(fd, &st) == nil && (st.Mode&unix.S_IFMT == unix.S_IFIFO || st.Mode&unix.S_IFMT == unix.S_IFSOCK) {
			_ = unix.Close(fd)
		}
	}
}

// somethingIsLeft reports whether the command has left processes behind. The
// kernel tells of the last one's end a moment after the guard has seen it.
func somethingIsLeft(src *engine.Source, p *launch.Process) bool {
	select {
	case <-p.Alone():
		return false
	case <-src.Done():
		return false
	case <-time.After(5 * time.Millisecond):
		return true
	}
}

// waitForRest waits for descendants that outlive the command, or for the
// signal that ends the wait.
func waitForRest(w io.Writer, src *engine.Source, p *launch.Process, name string, hurry <-chan struct{}) {
	gone := src.Done()
	if notify.FeatureHangup.Probe() != nil {
		gone = p.Alone() // this kernel does not say when the last target is gone
	}
	note := time.NewTimer(time.Second)
	defer note.Stop()
	for {
		select {
		case <-gone:
			return
		case <-hurry:
			return
		case <-note.C:
			if nothingIsLeft(gone, p) || over(hurry) {
				continue // the kernel tells of it in a moment, or it came just now
			}
			fmt.Fprintf(w, "unknot: %s has ended, some of its processes have not: still supervising them (interrupt to stop)\n", name)
		}
	}
}

// nothingIsLeft reports whether the last of the command's processes has ended, though the kernel may not have told yet.
func nothingIsLeft(gone <-chan struct{}, p *launch.Process) bool {
	return over(gone) || p.Orphans() == nil && over(p.Alone())
}

func over(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
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

func (s *runSettings) report(w io.Writer, e *engine.Engine, threads engine.Debug) error {
	calls := []callReport{}
	for _, c := range e.Syscalls() {
		r := callReport{Syscall: filter.Name(c.Arch, c.NR), Count: c.Received, Answered: c.Answered, Dropped: c.Dropped, Stale: c.Stale}
		if c.Wait.Count > 0 {
			r.WaitP50, r.WaitP99 = c.Wait.Quantile(.5), c.Wait.Quantile(.99)
		}
		if c.Total.Count > 0 {
			r.RoundTripP50, r.RoundTripP99 = c.Total.Quantile(.5), c.Total.Quantile(.99)
		}
		calls = append(calls, r)
	}
	slices.SortFunc(calls, func(a, b callReport) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Syscall, b.Syscall))
	})
	if s.Format == "json" {
		var receivers []engine.Receiver
		if s.Verbose {
			receivers = threads.Receivers
		}
		return json.NewEncoder(w).Encode(struct {
			Calls     []callReport      `json:"calls"`
			Counters  engine.Counters   `json:"counters"`
			Warning   string            `json:"warning,omitempty"`
			Receivers []engine.Receiver `json:"receivers,omitempty"`
		}{calls, e.Counters(), s.unsafeWarning(), receivers})
	}
	if s.Verbose {
		defer func() { fmt.Fprintf(w, "\n%v", threads) }()
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
