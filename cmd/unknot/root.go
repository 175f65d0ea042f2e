package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/unknot/unknot/cmd/unknot/internal/rules"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/launch"
	"golang.org/x/sys/unix"
)

// Exit codes. A subcommand with codes of its own (a supervised command's
// status, a verdict) returns an *exitError.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

// An exitError ends the program with Code. Err is the line on standard error;
// without it nothing is printed, as when a supervised command's own status is
// passed on.
type exitError struct {
	Code int
	Err  error
}

func (e *exitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit status %d", e.Code)
	}
	return e.Err.Error()
}

func (e *exitError) Unwrap() error { return e.Err }

// usageErrorf is a mistake on the command line: exit code 2.
func usageErrorf(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// subcommands make the command, one file for each.
var subcommands = []func() *cobra.Command{
	newBenchCmd,
	newCalibrateCmd,
	newCompareCmd,
	newConfineCmd,
	newRecordCmd,
	newRunCmd,
	newRunRestCmd,
	newServeCmd,
	newStormCmd,
	newTopCmd,
	newTuneCmd,
	newTraceCmd,
	newTrendCmd,
	newDoctorCmd,
	newVersionCmd,
}

// run is the whole program but for os.Exit.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 0 || args[0] != "run" && args[0] != "serve" { // whose signals are its command's, or its own
		var stop context.CancelFunc
		ctx, stop = notifyContext(ctx, unix.SIGINT, unix.SIGTERM)
		defer stop()
		// The first signal asks, the second kills: a subcommand that must outlive
		// both catches them itself.
		context.AfterFunc(ctx, stop)
	}

	root := newRootCmd(stdin, stdout, stderr)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	code := exitFailure
	var exit *exitError
	if errors.As(err, &exit) {
		code = exit.Code
	}
	if exit == nil || exit.Err != nil {
		fmt.Fprintf(stderr, "unknot: %v\n", oneLine(err))
	}
	return code
}

// notifyContext is signal.NotifyContext without the signals that the caller had
// ignored, as `trap ” INT` and background jobs of scripts do. These, and all
// others that were ignored, stay so, also where the Go runtime has put a
// handler in their place; our own children inherit that.
func notifyContext(ctx context.Context, signals ...os.Signal) (context.Context, context.CancelFunc) {
	started := launch.Started()
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		switch sig {
		case unix.SIGCHLD, unix.SIGURG, unix.SIGPROF, engine.DefaultInterrupt: // ours
		default:
			if started.Ignores(sig) {
				signal.Ignore(sig)
			}
		}
	}
	signals = slices.DeleteFunc(signals, func(s os.Signal) bool { return started.Ignores(s.(syscall.Signal)) })
	if len(signals) == 0 { // none at all would be every signal
		return context.WithCancel(ctx)
	}
	return signal.NotifyContext(ctx, signals...)
}

// oneLine keeps the promise that an error is one line on standard error; what is wrong in a policy is several errors.
func oneLine(err error) string {
	var policy *rules.Error
	if errors.As(err, &policy) {
		return err.Error()
	}
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

func newRootCmd(stdin io.Reader, stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "unknot",
		Short: "seccomp user notifications at high rate",
		Long: `unknot answers seccomp user notifications at high rate: a supervisor that never
lets a backlog make every call slow, and never loses a call.

Results go to standard output; progress, notes and errors to standard error.
Exit codes: 0 success, 1 failure, 2 wrong usage; "run" exits like its command.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          knownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SetOut(cmd.ErrOrStderr())
			_ = cmd.Help()
			return &exitError{Code: exitUsage}
		},
	}
	// Before any subcommand: the completion command takes the output as it finds it.
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		var bad *pflag.InvalidValueError
		if errors.As(err, &bad) { // which quotes the parser that refused it
			want := map[string]string{"int": "a whole number", "duration": "a duration such as 500ms or 10s"}[bad.GetFlag().Value.Type()]
			if want != "" {
				err = fmt.Errorf("--%s %q: want %s", bad.GetFlag().Name, bad.GetValue(), want)
			}
		}
		return usageErrorf("%w (see: %s --help)", err, cmd.CommandPath())
	})
	for _, c := range subcommands {
		root.AddCommand(c())
	}
	// What cobra adds on its own comes first, so that its errors are usage errors too.
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Args = func(cmd *cobra.Command, args []string) error {
				found, rest, _ := root.Find(args)
				return knownCommand(found, rest)
			}
		case "completion":
			c.Args = nil
			c.RunE = func(cmd *cobra.Command, args []string) error {
				return usageErrorf("completion for which shell? %s knows bash, fish, powershell, zsh", cmd.CommandPath())
			}
		}
	}
	argsAreUsage(root)
	return root
}

// knownCommand refuses arguments of the root: they are misspelt subcommands.
func knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if !cmd.HasAvailableSubCommands() {
		return fmt.Errorf("%s has no command %q", cmd.CommandPath(), args[0])
	}
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return fmt.Errorf("no command %q: did you mean %s?", args[0], strings.Join(near, " or "))
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	slices.Sort(names)
	return fmt.Errorf("no command %q: there are %s", args[0], strings.Join(names, ", "))
}

// argsAreUsage makes every refusal of positional arguments exit with 2.
func argsAreUsage(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageErrorf("%w (see: %s --help)", err, cmd.CommandPath())
			}
			return nil
		}
	}
	for _, c := range cmd.Commands() {
		argsAreUsage(c)
	}
}
