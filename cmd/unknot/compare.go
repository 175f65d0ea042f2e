package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/bench/compare"
)

// compareFlags are compare's flags as given.
type compareFlags struct {
	session                                  sessionFlags
	run, confirm, uneven, allowNew           bool
	threshold, floor, format, filter, output string
	plot, history, profile                   string
	gate, ignore, commits                    []string
	alpha, floorFactor                       float64
	floorAge, budget                         time.Duration
}

// noFloor is what --floor says to leave a recorded floor alone.
const noFloor = "none"

func newCompareCmd() *cobra.Command {
	var f compareFlags
	c := &cobra.Command{
		Use:   "compare [flags] OLD NEW",
		Short: "compare two sets of benchmark results, with an exit code that a gate can trust",
		Long: `compare reads two files in Go benchmark format, from any benchmarks, and gives
each unit of each benchmark a verdict:

  pass          new is not worse than old by more than θ
  regressed     new is worse than old by more than θ
  improved      new is better than old by more than θ
  inconclusive  none of these could be shown; the report says why

each shown with confidence 1-alpha. θ is --threshold, or --floor-factor times the
noise floor that calibrate recorded here if that is more. Noise too high for a
verdict is inconclusive, not pass.

With --run, OLD and NEW are shell commands that print results. Both are run in
each of --rounds rounds, in random order from a seed, and the test is on the
ratios within the rounds, which slow minutes and drift leave alone: many short
rounds find more than a few long ones. What seems regressed is measured again in
fresh rounds, and stays regressed if those agree. In a command, {bench} becomes
--bench the first time, and then a pattern for go test -bench that selects one
benchmark: each is interleaved alone, so that a pair's two sides lie close together.
{benchtime} becomes --benchtime the first time, and then the iterations that take
about as long, which leaves out the half of each run in which go test finds that out.

With --budget instead of --rounds it measures until it knows: it goes on, with
those benchmarks only that have no verdict, until each has one or the budget is
spent (and for a quarter more if what seems regressed is to be measured again).
To look often costs no certainty, as the looks share alpha.

With --profile, what regressed runs a few times more with a CPU profile, and the
report has the first lines of what pprof says the two sides differ by. The flag
-test.cpuprofile=FILE (or another, by --profile=FLAG) goes where {profile} stands
in the commands, or to their ends.

Only the units of --gate decide (unless given: the time per operation, and any
unit that one side lacks); all are shown. A unit needs to be known to Go (ns/op,
MB/s, B/op, allocs/op) or declared by a line "Unit NAME better=lower" or higher.

Exit codes: 0 pass or improved, 1 regressed, 2 wrong usage, bad input or a
command that failed, 3 inconclusive.`,
		Example: `  unknot compare old.txt new.txt
  unknot compare --run --rounds 20 './old.test -test.bench {bench}' './new.test -test.bench {bench}'
  unknot compare --run --budget 2m './old.test -test.bench {bench} -test.benchtime {benchtime}' './new.test -test.bench {bench} -test.benchtime {benchtime}'
  unknot compare --format markdown --gate ns/op,allocs/op old.txt new.txt`,
		Args: cobra.MatchAll(func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return fmt.Errorf("compare what? name two files, or --run and two commands; there are %d arguments", len(args))
			}
			return nil
		}),
		RunE: func(cmd *cobra.Command, args []string) error { return asExitError(runCompare(cmd, &f, args)) },
	}
	fl := c.Flags()
	fl.BoolVar(&f.run, "run", false, "OLD and NEW are shell commands: run them in turn")
	f.session.add(fl.IntVar, fl.Uint64Var, fl.DurationVar, fl.StringVar)
	fl.DurationVar(&f.budget, "budget", 0, "with --run, measure for as long as it needs, up to this, instead of --rounds")
	fl.BoolVar(&f.confirm, "confirm", true, "with --run, measure regressions again before reporting them")
	fl.StringVarP(&f.output, "output", "o", "", "with --run, keep the results in this `directory` (default a new temporary one)")
	fl.StringVar(&f.profile, "profile", "", "with --run, run what regressed again with CPU profiles, by this `flag` of the commands")
	fl.Lookup("profile").NoOptDefVal = "-test.cpuprofile"
	fl.StringSliceVar(&f.commits, "commits", nil, "with --run, the commits of OLD and NEW, which the report names")
	fl.StringVar(&f.plot, "plot", "", "draw the pairs into this `file`, as SVG (default with --run: pairs.svg beside the results)")
	fl.StringVar(&f.history, "history", "", "append what is found to history.txt in this `directory`, for unknot trend")
	fl.StringVar(&f.threshold, "threshold", "5%", "how much worse new may be")
	fl.Float64Var(&f.alpha, "alpha", compare.DefaultAlpha, "chance of error of each verdict")
	fl.StringVar(&f.floor, "floor", "", "`file` of the noise floor, or none (default results/MACHINE/floor.json, if there is one)")
	fl.Float64Var(&f.floorFactor, "floor-factor", compare.DefaultFloorFactor, "θ is at least this many noise floors")
	fl.DurationVar(&f.floorAge, "floor-age", compare.DefaultFloorAge, "older noise floors are stale")
	fl.StringSliceVar(&f.gate, "gate", nil, "units that decide")
	fl.StringVar(&f.filter, "filter", "", "use only these results, as benchstat's -filter")
	fl.StringSliceVar(&f.ignore, "ignore", nil, "file keys (as date: in the files) that do not tell results apart")
	fl.BoolVar(&f.uneven, "allow-uneven", false, "accept benchmarks with more runs on one side")
	fl.BoolVar(&f.allowNew, "allow-new", false, "what OLD lacks is new, and only noted")
	fl.StringVar(&f.format, "format", "text", "text, json or markdown")
	return c
}

// sessionFlags are the flags of whatever interleaves commands.
type sessionFlags struct {
	rounds  int
	seed    uint64
	timeout time.Duration
	bench   string
	time    string
}

func (s *sessionFlags) add(ints func(*int, string, int, string), uints func(*uint64, string, uint64, string), durations func(*time.Duration, string, time.Duration, string), strings func(*string, string, string, string)) {
	ints(&s.rounds, "rounds", 20, "how often each command runs")
	uints(&s.seed, "seed", 0, "of the order of the runs (default a new one, which is reported)")
	durations(&s.timeout, "timeout", 10*time.Minute, "of each run of a command")
	strings(&s.bench, "bench", ".", "what {bench} becomes in the commands")
	strings(&s.time, "benchtime", "100ms", "what {benchtime} becomes in the commands")
}

func (s *sessionFlags) check() error {
	if s.rounds < 1 || s.rounds > 10000 {
		return usageErrorf("--rounds %d: want 1 to 10000", s.rounds)
	}
	if d, err := time.ParseDuration(s.time); !iterations.MatchString(s.time) && !(err == nil && d > 0) {
		return usageErrorf("--benchtime %q: want a time such as 100ms, or iterations such as 100x", s.time)
	}
	if s.timeout <= 0 {
		return usageErrorf("--timeout %v: want more than 0", s.timeout)
	}
	return nil
}

var iterations = regexp.MustCompile(`^[1-9][0-9]{0,17}x$`)

// asExitError makes every other error one of exit code 2: 1 says "regressed".
func asExitError(err error) error {
	var exit *exitError
	if err == nil || errors.As(err, &exit) {
		return err
	}
	return &exitError{compare.ExitError, err}
}

// parsePercent reads "5%" as .05.
func parsePercent(s string) (float64, error) {
	number, ok := strings.CutSuffix(s, "%")
	v, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil {
		return 0, fmt.Errorf("%q: want a percentage such as 5%%", s)
	}
	return v / 100, nil
}

func runCompare(cmd *cobra.Command, f *compareFlags, args []string) error {
	write, ok := map[string]func(*compare.Report, io.Writer) error{
		"text": (*compare.Report).Text, "json": (*compare.Report).JSON, "markdown": (*compare.Report).Markdown,
	}[f.format]
	if !ok {
		return usageErrorf("no format %q: there are text, json and markdown", f.format)
	}
	if err := f.session.check(); err != nil {
		return err
	}
	if !f.run {
		for _, name := range []string{"rounds", "budget", "seed", "timeout", "bench", "benchtime", "confirm", "output", "profile", "commits"} {
			if cmd.Flags().Changed(name) {
				return usageErrorf("--%s needs --run: files are measured already", name)
			}
		}
	}
	if n := len(f.commits); n != 0 && n != 2 {
		return usageErrorf("--commits %s: want two, OLD,NEW", strings.Join(f.commits, ","))
	}
	if cmd.Flags().Changed("budget") {
		switch {
		case cmd.Flags().Changed("rounds"):
			return usageErrorf("--rounds and --budget: choose one")
		case f.budget < time.Second:
			return usageErrorf("--budget %v: want 1s or more", f.budget)
		}
	}
	threshold, err := parsePercent(f.threshold)
	if err != nil {
		return usageErrorf("--threshold %w", err)
	}
	if threshold <= 0 {
		return usageErrorf("--threshold %s: want more than 0%%: no measurement shows that two things are equal", f.threshold)
	}
	if !(f.alpha > 0) || !(f.floorFactor >= 1) || f.floorAge <= 0 {
		return usageErrorf("--alpha %v, --floor-factor %v, --floor-age %v: want more than 0, at least 1, more than 0", f.alpha, f.floorFactor, f.floorAge)
	}
	floor, err := f.readFloor()
	if err != nil {
		return err
	}
	o := compare.Options{Alpha: f.alpha, Threshold: threshold, Floor: floor, FloorFactor: f.floorFactor, FloorAge: f.floorAge,
		Gate: f.gate, Filter: f.filter, Ignore: f.ignore, AllowUneven: f.uneven, AllowNew: f.allowNew}
	var rep *compare.Report
	if f.run {
		rep, err = f.measure(cmd, args, o)
	} else {
		rep, err = compareFiles(args[0], args[1], o)
	}
	if err != nil {
		return err
	}
	if err := f.leave(rep); err != nil {
		return err
	}
	if err := write(rep, cmd.OutOrStdout()); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	if rep.Exit != compare.ExitPass {
		return &exitError{Code: rep.Exit}
	}
	return nil
}

// leave writes what a comparison leaves beside its report.
func (f *compareFlags) leave(rep *compare.Report) error {
	if f.plot != "" {
		var b bytes.Buffer
		some, err := rep.Plot(&b)
		if err == nil && some {
			err = writeWhole(f.plot, b.Bytes())
		}
		if err != nil {
			return fmt.Errorf("plot: %w", err)
		}
		if some {
			rep.PlotFile = f.plot
		}
	}
	if f.history == "" {
		return nil
	}
	if err := os.MkdirAll(f.history, 0o755); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	h, err := os.OpenFile(filepath.Join(f.history, historyFile), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err == nil {
		err = errors.Join(rep.History(h, time.Now()), h.Close())
	}
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	return nil
}

// readFloor reads the floor that was asked for, or this machine's if there is one.
func (f *compareFlags) readFloor() (*compare.Floor, error) {
	switch f.floor {
	case noFloor:
		return nil, nil
	case "":
		floor, err := compare.ReadFloor(floorPath())
		if errors.Is(err, compare.ErrNoFloor) {
			return nil, nil
		}
		return floor, err
	}
	return compare.ReadFloor(f.floor)
}

// floorPath is where this machine's noise floor is kept.
func floorPath() string { return filepath.Join("results", machineSlug(), "floor.json") }

func compareFiles(old, new string, o compare.Options) (*compare.Report, error) {
	a, err := compare.ReadFile(old)
	if err != nil {
		return nil, err
	}
	b, err := compare.ReadFile(new)
	if err != nil {
		return nil, err
	}
	return compare.Compare(a, b, o)
}

// measure runs the commands and compares what they print, and regressions again.
func (f *compareFlags) measure(cmd *cobra.Command, commands []string, o compare.Options) (*compare.Report, error) {
	dir := f.output
	var err error
	if dir == "" {
		dir, err = os.MkdirTemp("", "compare-")
	} else {
		err = os.MkdirAll(dir, 0o777)
	}
	if err != nil {
		return nil, fmt.Errorf("make a place for the results: %w", err)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "unknot: results are kept in %s\n", dir)
	v := f.session.interleaver(cmd, [2]string{commands[0], commands[1]}, f.session.rounds)
	v.AllowNew = o.AllowNew
	for side, command := range commands {
		commit, version := builtFrom(command)
		if len(f.commits) == 2 {
			commit = f.commits[side]
		}
		for _, h := range [][2]string{{"commit", commit}, {"go", version}} {
			if h[1] != "" {
				v.Header[side] = append(v.Header[side], h)
			}
		}
	}
	if f.plot == "" {
		f.plot = filepath.Join(dir, "pairs.svg")
	}
	old, new := filepath.Join(dir, "old.txt"), filepath.Join(dir, "new.txt")
	measure := func(a, b io.Writer) error { return runSession(cmd, v, a, b) }
	if f.budget > 0 {
		measure = func(a, b io.Writer) error { return runBudget(cmd, v, f.budget, o, a, b) }
	}
	if err := interleaveFiles(old, new, measure); err != nil {
		return nil, err
	}
	rep, err := compareFiles(old, new, o)
	if err != nil {
		return nil, err
	}
	if f.confirm {
		if err := f.measureAgain(cmd, v, rep, dir, o); err != nil {
			return nil, fmt.Errorf("confirm: %w", err)
		}
	}
	if f.profile != "" && len(rep.Regressed()) > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "unknot: profiling what regressed\n")
		p := newProgress(cmd.ErrOrStderr(), 1)
		defer p.clear()
		v.Progress = func(now compare.Progress) { p.total = now.Runs; p.show(now.Done, now.Command) }
		// The verdict stands without it.
		if err := v.Profile(cmd.Context(), rep, f.profile, dir); err != nil {
			rep.Notes = append(rep.Notes, "no "+err.Error())
		}
	}
	return rep, nil
}

// measureAgain measures what regressed in fresh rounds, and holds it against those.
func (f *compareFlags) measureAgain(cmd *cobra.Command, v *compare.Interleaver, rep *compare.Report, dir string, o compare.Options) error {
	var names []string
	for _, r := range rep.Regressed() {
		if !slices.Contains(names, r.Benchmark) {
			names = append(names, r.Benchmark)
		}
	}
	if len(names) == 0 {
		return nil
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "unknot: %d suspects: measuring them again\n", len(names))
	w := f.session.interleaver(cmd, v.Commands, f.session.rounds)
	w.Seed, w.Bench, w.Limit, w.Header = v.Seed+1, compare.Select(names), f.budget/4, v.Header
	old, new := filepath.Join(dir, "old-confirm.txt"), filepath.Join(dir, "new-confirm.txt")
	if err := interleaveFiles(old, new, func(a, b io.Writer) error { return runSession(cmd, w, a, b) }); err != nil {
		return err
	}
	o.Gate = rep.Gate
	fresh, err := compareFiles(old, new, o)
	if err != nil {
		return err
	}
	rep.Confirm(fresh, w.Rounds)
	return nil
}

// builtFrom is what the first program that was built by Go says of itself, of those
// that a command names: the commit it was built from, and the version of Go.
func builtFrom(command string) (commit, version string) {
	for word := range strings.FieldsFuncSeq(command, func(r rune) bool { return strings.ContainsRune(" \t\n;&|()'\"", r) }) {
		if !strings.Contains(word, "/") {
			continue
		}
		info, err := buildinfo.ReadFile(word)
		if err != nil {
			continue
		}
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				commit = s.Value[:min(12, len(s.Value))] + commit
			case s.Key == "vcs.modified" && s.Value == "true":
				commit += "+"
			}
		}
		return commit, info.GoVersion
	}
	return "", ""
}

// interleaver makes a session of the flags.
func (s *sessionFlags) interleaver(cmd *cobra.Command, commands [2]string, rounds int) *compare.Interleaver {
	seed := s.seed
	if !cmd.Flags().Changed("seed") {
		seed = compare.NewSeed()
	}
	print, facts := bench.Fingerprint()
	return &compare.Interleaver{Commands: commands, Rounds: rounds, Seed: seed, Session: fmt.Sprintf("%016x", compare.NewSeed()),
		Bench: s.bench, Benchtime: s.time, Timeout: s.timeout, Machine: print, Details: facts}
}

// runSession runs a session with a line of progress on a terminal.
func runSession(cmd *cobra.Command, v *compare.Interleaver, old, new io.Writer) error {
	p := newProgress(cmd.ErrOrStderr(), 2*v.Rounds)
	defer p.clear()
	v.Progress = func(now compare.Progress) {
		p.total = max(1, now.Runs)
		p.show(min(now.Done, p.total), now.Command)
	}
	return interrupted(v.Run(cmd.Context(), old, new))
}

// runBudget runs a session with a budget, and says how many rows are decided.
func runBudget(cmd *cobra.Command, v *compare.Interleaver, budget time.Duration, o compare.Options, old, new io.Writer) error {
	p := newProgress(cmd.ErrOrStderr(), 1)
	defer p.clear()
	v.Progress = func(now compare.Progress) {
		if p.tty {
			rows := fmt.Sprintf("%d of %d rows decided", now.Decided, now.Rows)
			if now.Rows == 0 {
				rows = "no row decided"
			}
			fmt.Fprintf(p.w, "\r\x1b[K%s, %v left: %s", rows, now.Left.Round(time.Second), now.Command)
		}
	}
	_, err := v.Measure(cmd.Context(), old, new, budget, o)
	return interrupted(err)
}

func interrupted(err error) error {
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("interrupted: %w", err)
	}
	return err
}

// interleaveFiles writes a session to two files.
func interleaveFiles(old, new string, measure func(old, new io.Writer) error) (err error) {
	var files [2]*os.File
	for i, path := range []string{old, new} {
		if files[i], err = os.Create(path); err != nil {
			return fmt.Errorf("write results: %w", err)
		}
		defer func() { err = errors.Join(err, files[i].Close()) }()
	}
	return measure(files[0], files[1])
}
