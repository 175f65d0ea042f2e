package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/unknot/unknot/cmd/unknot/internal/daemon"
	"github.com/unknot/unknot/cmd/unknot/internal/rules"
	"github.com/unknot/unknot/confine"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// serveSettings are serve's flags.
type serveSettings struct {
	daemon.Config
	keep    string
	target  string
	log     string
	confine string
	check   bool
	verbose bool
}

func newServeCmd() *cobra.Command {
	s := serveSettings{keep: string(daemon.KeepAuto), log: "text", confine: confine.Shared.String()}
	s.Drain = 5 * time.Second
	c := &cobra.Command{
		Use:   "serve --socket PATH --config FILE",
		Short: "supervise containers that runc, crun and podman start",
		Long: `serve takes the listeners of containers whose linux.seccomp.listenerPath is
--socket, and answers their trapped system calls by the policy in --config
(docs/policy.md).

SIGHUP has it read the policy anew; a broken one changes nothing. SIGTERM and
SIGINT end it once handlers are done, for which it waits --drain; a second one
ends the wait.

A container whose listener nobody has any more fails: its trapped calls return
ENOSYS. So copies are kept elsewhere (--keep): in systemd's descriptor store, or
by a keeper, which is this process; what serves is then a child of it, which is
started again when it dies. Calls that a dead one held return EINTR, the others
wait. To replace a daemon without systemd start the new one with --take-over:
the old one hands over everything, and ends. docs/serve.md says what containers
see in each case.

Exit codes: 0 ended as asked, or handed over; 1 failure; 2 wrong usage or policy.`,
		Example: `  unknot serve --config policy.yaml --check
  unknot serve --socket /run/unknot/agent.sock --config policy.yaml --status 127.0.0.1:9393`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return serveContainers(cmd, &s) },
	}
	fl := c.Flags()
	fl.StringVar(&s.Socket, "socket", "", "`path` of the socket that runtimes connect to")
	fl.StringVar(&s.LXC, "lxc-socket", "", "`path` of another one for LXC (lxc.seccomp.notify.proxy); takes --confine=off")
	fl.StringVar(&s.Policy, "config", "", "the policy's `file`")
	fl.BoolVar(&s.check, "check", false, "read the policy, say what is wrong in it, and end")
	fl.StringVar(&s.confine, "confine", s.confine, "confinement of the receive threads: shared, best (shared without what is refused here), off")
	fl.StringVar(&s.Audit, "audit", "", "append records of calls to this `file`, as JSON lines; - is standard output")
	fl.StringVar(&s.Status, "status", "", "`address` of the page with /metrics, /healthz, /status: 127.0.0.1:9393, or unix:/PATH")
	fl.StringVar(&s.log, "log", s.log, "format of the log on standard error: text, json")
	fl.BoolVarP(&s.verbose, "verbose", "v", false, "log more")
	fl.BoolVar(&s.TakeOver, "take-over", false, "take socket and containers over from a daemon that runs, if there is one")
	fl.StringVar(&s.target, "wait-target", s.target, waitTargetUsage+"; the policy's wait-target unless given")
	fl.StringVar(&s.keep, "keep", s.keep, "who keeps copies of listeners: systemd, keeper (a process of this program), none, auto")
	fl.DurationVar(&s.Drain, "drain", s.Drain, "how long an end, or a hand-over, waits for handlers")
	return c
}

func serveContainers(cmd *cobra.Command, s *serveSettings) error {
	if s.Policy == "" {
		return usageErrorf("--config: name the policy's file (docs/policy.md)")
	}
	if s.check {
		return checkPolicy(cmd.OutOrStdout(), cmd.ErrOrStderr(), s.Policy)
	}
	level := slog.LevelInfo
	if s.verbose {
		level = slog.LevelDebug
	}
	// A log or records that nobody reads any more must not end who supervises.
	signal.Ignore(unix.SIGPIPE)
	log, flush, err := daemon.NewLog(cmd.ErrOrStderr(), s.log, level)
	if err != nil {
		return serveError(err)
	}
	defer flush()
	if err := notify.FeatureNotify.Probe(); err != nil {
		return err
	}
	if s.target != "" {
		d, err := rules.ParseWaitTarget(s.target)
		if err != nil {
			return usageErrorf("--%w", err)
		}
		s.WaitTarget = &d
	}
	s.Log, s.Keep, s.Version = log, daemon.Keep(s.keep), buildVersion()
	if err := s.confined(); err != nil {
		return err
	}
	s.Again = func() *exec.Cmd {
		return &exec.Cmd{Path: "/proc/self/exe", Args: os.Args, Stdout: os.Stdout, Stderr: os.Stderr}
	}
	return serveError(daemon.Run(s.Config))
}

// confined sets how receive threads are confined. They have listeners that come later, for which a private file table is no place.
func (s *serveSettings) confined() error {
	var c *confiner
	switch s.confine {
	case confineOff:
		s.Confinement = confineOff
		s.Confine = func(*engine.Config) error {
			s.Log.Warn("--confine=off: receive threads are NOT CONFINED: who subverts one by a request can do all that this user may")
			return nil
		}
		return nil
	case confineBest:
		c = &confiner{level: confine.Shared, best: true}
	case confine.Shared.String():
		c = &confiner{level: confine.Shared}
	case confine.Private.String():
		return usageErrorf("--confine=private: a thread with a file table of its own does not get the listeners that come later: use shared")
	default:
		return usageErrorf("--confine: no level %q: the levels are shared, best, off", s.confine)
	}
	s.Confinement = c.String()
	s.Confine = func(cfg *engine.Config) error {
		plan, err := c.prepare()
		if err != nil {
			return err
		}
		if note := lackNote(plan); note != "" {
			s.Log.Warn(note)
		}
		c.confine(cfg, plan)
		return nil
	}
	return nil
}

// serveError makes an error of the daemon one of the command.
func serveError(err error) error {
	var usage *daemon.UsageError
	var said *daemon.ExitError
	switch {
	case errors.As(err, &usage):
		return &exitError{exitUsage, err}
	case errors.As(err, &said): // by another process, which has printed it
		return &exitError{Code: said.Code}
	}
	return err
}

// checkPolicy says what is wrong in a policy, a line each, or what it does.
func checkPolicy(stdout, stderr io.Writer, path string) error {
	text, err := daemon.ReadPolicy(path)
	if err != nil {
		return serveError(err)
	}
	err = rules.Check(stdout, path, text)
	var wrong *rules.Error
	if errors.As(err, &wrong) {
		fmt.Fprintln(stderr, strings.TrimSuffix(err.Error(), "\n"))
		return &exitError{Code: exitUsage}
	}
	return err
}
