package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/bench/record"
	"github.com/unknot/unknot/bench/replay"
	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/cmd/unknot/internal/fleet"
	"github.com/unknot/unknot/cmd/unknot/internal/tune"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/dist"
)

type tuneFlags struct {
	target, maxDrop, work, think string
	from                         []string
	fleet                        fleet.Query
	end                          string
	arrivals                     string
	rate                         float64
	changed                      func(string) bool
	notes                        []string
	targets, workers, rounds     int
	duration                     time.Duration
	seed                         uint64
	confine                      string
	config, goFile, html         string
}

func newTuneCmd() *cobra.Command {
	var f tuneFlags
	c := &cobra.Command{
		Use:   "tune --target wait-p99=DURATION (--work DURATION | --from FILE ... | --prometheus URL) [flags]",
		Short: "find the queue size that meets a latency target, and prove it",
		Long: `tune finds the capacity of the queue with which calls wait no longer than the
target under a load: it measures storms with the given handlers, fits a
simulation of the engine to them, takes the smallest capacity that the
simulation says meets the target and serves as much as any, storms that, learns
from it and chooses again; and at last storms the choice, half of it and twice
of it, under that load and under another arrival process.
Predicted stands beside measured; a prediction that is off by more than 25% of
the p99 or 2 points of the drop rate is said to DISAGREE.

The load is a closed loop of --targets threads, each of which calls again when it
has its answer and has thought for --think; or, with --rate, an open loop whose
calls come whatever the answers, from any of --targets threads; or, with --from,
what "unknot record" recorded of a supervisor. Handlers that compute share the
machine's CPUs with the targets; handlers that sleep do not. Beside the capacity
stands what --wait-target does without one.

With several recordings, one of samples (record --every), or --prometheus, nothing is
stormed: the loads are other machines' or hours'. By simulation tune finds the capacity for each, the one for all, and
what that costs those whom it does not fit. --prometheus takes the arrivals and
services of "unknot serve" from the series that a Prometheus has of --status,
by node; it prints its queries, and names what is missing.

Exit codes: 0 there is an answer and its prediction agrees, 1 something failed,
or no capacity works (the reason, and what would, is on standard error), 2 wrong
usage, 3 the answer's prediction disagrees with what was measured.`,
		Example: `  unknot tune --target wait-p99=1ms --targets 64 --work 50us --workers 2
  unknot tune --target wait-p99=5ms --targets 64 --work sleep:1ms --workers 4 --html report.html --go config.go
  unknot tune --target wait-p99=2ms --rate 5000 --arrivals onoff:10ms:40ms --work 50us
  unknot tune --target wait-p99=2ms --from load.ukr
  unknot tune --target wait-p99=2ms --from monday.ukr --from sunday.ukr
  unknot tune --target wait-p99=2ms --from day.ukr --from 'other.ukr#17'
  unknot tune --target wait-p99=2ms --prometheus http://localhost:9090 --range 6h`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.changed = cmd.Flags().Changed
			return runTune(cmd, &f)
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.target, "target", "", "what is asked for: wait-p99=200us")
	fl.StringVar(&f.maxDrop, "max-drop", "100%", "part of the calls that may be dropped at most")
	fl.StringVar(&f.work, "work", "", "what the handler does: 50us of CPU time, or sleep:1ms; 50us~1 varies, with a coefficient of variation of 1")
	fl.StringVar(&f.think, "think", "0", "time that a thread sleeps between two calls")
	fl.Float64Var(&f.rate, "rate", 0, "calls per second of an open loop")
	fl.StringVar(&f.arrivals, "arrivals", "poisson", "how the calls of an open loop follow each other: constant, poisson, or onoff:10ms:40ms (mean lengths of bursts and silences)")
	fl.StringArrayVar(&f.from, "from", nil, "take the load from this recording, a `file` that unknot record wrote; of several, say over which of them a capacity holds")
	fl.StringVar(&f.fleet.URL, "prometheus", "", "take the loads of daemons from the Prometheus at this `URL`")
	fl.DurationVar(&f.fleet.Range, "range", time.Hour, "of the series, until --end")
	fl.StringVar(&f.end, "end", "", "when the range ends, as 2006-01-02T15:04:05Z; now unless given")
	fl.StringVar(&f.fleet.By, "by", "instance", "the `label` that tells nodes apart")
	fl.StringVar(&f.fleet.Match, "match", "", "`matchers` of the series, such as 'job=\"unknot\"'")
	fl.IntVar(&f.targets, "targets", 64, "threads that make trapped calls; of an open loop as many as are wanted at once unless said otherwise")
	fl.IntVar(&f.workers, "workers", 2, "workers of the engine")
	fl.IntVar(&f.rounds, "rounds", 5, "of the verification")
	fl.DurationVar(&f.duration, "duration", 0, "of one storm (0: 500ms, and longer for bursts and for handlers that take long, to 3s)")
	fl.Uint64Var(&f.seed, "seed", 1, "of the order of the storms and of the simulation")
	fl.StringVar(&f.confine, "confine", "private", confineUsage)
	fl.StringVar(&f.config, "config", "", "write the settings for run --config to this `file`")
	fl.StringVar(&f.goFile, "go", "", "write them as Go code to this `file`")
	fl.StringVar(&f.html, "html", "", "write a report to this `file`")
	return c
}

func (f *tuneFlags) request() (r tune.Request, err error) {
	if r.WaitP99, r.MaxDrop, err = f.goal(); err != nil {
		return r, err
	}
	for _, l := range []struct {
		flag   string
		v, max int
	}{{"targets", f.targets, storm.MaxTargets}, {"workers", f.workers, engine.MaxWorkers}, {"rounds", f.rounds, 1000}} {
		if l.v < 1 || l.v > l.max {
			return r, usageErrorf("--%s %d: want 1 to %d", l.flag, l.v, l.max)
		}
	}
	if f.duration != 0 && f.duration < 10*time.Millisecond {
		return r, usageErrorf("--duration %v: want at least 10ms, or 0 for as long as the load wants", f.duration)
	}
	confiners, err := parseConfinements([]string{f.confine})
	if err != nil {
		return r, err
	}
	if err := f.load(&r); err != nil {
		return r, err
	}
	r.Workers, r.Rounds, r.Duration, r.Seed, r.Confine = f.workers, f.rounds, f.duration, f.seed, confiners[0]
	return r, nil
}

// goal is what is tuned for.
func (f *tuneFlags) goal() (waitP99 time.Duration, maxDrop float64, err error) {
	if f.target == "" {
		return 0, 0, usageErrorf("tune for what? give a --target, as in --target wait-p99=200us")
	}
	if waitP99, err = tune.ParseTarget(f.target); err != nil {
		return 0, 0, usageErrorf("--target: %w", err)
	}
	if maxDrop, err = parsePart(f.maxDrop); err != nil {
		return 0, 0, usageErrorf("--max-drop: %w", err)
	}
	return waitP99, maxDrop, nil
}

// handlers are what --work says of them, nil if nothing.
func (f *tuneFlags) handlers() (*bench.Work, error) {
	if f.work == "" {
		return nil, nil
	}
	w, err := bench.ParseWork(f.work)
	switch {
	case err != nil:
		return nil, usageErrorf("--work: %w", err)
	case w.Script != nil:
		return nil, usageErrorf("--work %q: tune finds one setting for one load: tune for each step, or for the slowest, or give run and serve a --wait-target", f.work)
	case w.Spin:
		return nil, usageErrorf("--work %q: tune knows handlers that compute (50us) and handlers that sleep (sleep:1ms)", f.work)
	}
	return &w, nil
}

// unusable says why a recording is no load to tune for; nil if err is.
func unusable(file string, err error) error {
	switch {
	case errors.Is(err, replay.ErrServiceUnknown):
		return fmt.Errorf("--from %s: %w; say how long handlers take: --work", file, err)
	case err != nil:
		return fmt.Errorf("--from %s: %w", file, err)
	}
	return nil
}

// load is the load, and notes on it.
func (f *tuneFlags) load(r *tune.Request) error {
	work, err := f.handlers()
	if err != nil {
		return err
	}
	if len(f.from) == 1 {
		for _, name := range []string{"rate", "arrivals", "think", "targets"} {
			if f.changed(name) {
				return usageErrorf("--from and --%s: the recording says it; leave one out", name)
			}
		}
		rec, err := record.ReadFile(f.from[0])
		if err != nil {
			return fmt.Errorf("--from: %w", err)
		}
		r.Load, f.notes, err = tune.FromRecording(rec, work)
		if err == nil && r.Load.Targets > 0 {
			err = r.Load.Check()
		}
		return unusable(f.from[0], err)
	}
	if work == nil {
		return usageErrorf("tune for which handlers? give --work, as in --work 50us or --work sleep:1ms, or a recording: --from FILE, or --prometheus URL")
	}
	r.Load = tune.Load{Targets: f.targets, Service: tune.ServiceOf(*work)}
	if f.changed("rate") {
		if f.changed("think") {
			return usageErrorf("--think and --rate: an open loop has no think time; leave one out")
		}
		p, err := storm.ParseProcess(f.arrivals, f.rate)
		if err != nil {
			return usageErrorf("--rate, --arrivals: %w", err)
		}
		r.Load.Arrivals.Calls = p
		if !f.changed("targets") {
			r.Load.Targets = 0 // enough
			return nil
		}
	} else {
		if f.changed("arrivals") {
			return usageErrorf("--arrivals: are of an open loop; give its --rate")
		}
		think, err := dist.Parse(f.think)
		if err != nil || think.CV != 0 {
			return usageErrorf("--think %q: want a duration such as 1ms", f.think)
		}
		r.Load.Arrivals.Think = think
	}
	if err := r.Load.Check(); err != nil {
		return usageErrorf("%w", err)
	}
	return nil
}

// parsePart reads "0.1%" or "0.001".
func parsePart(s string) (float64, error) {
	v, percent := strings.CutSuffix(s, "%")
	x, err := strconv.ParseFloat(v, 64)
	if percent {
		x /= 100
	}
	if err != nil || !(x >= 0 && x <= 1) {
		return 0, fmt.Errorf("%q: want a part such as 0.1%%", s)
	}
	return x, nil
}

func runTune(cmd *cobra.Command, f *tuneFlags) error {
	sampled, err := f.sampled()
	if err != nil {
		return err
	}
	if len(f.from) > 1 || sampled || f.changed("prometheus") {
		return f.tuneFleet(cmd)
	}
	for _, name := range []string{"range", "end", "by", "match"} {
		if f.changed(name) {
			return usageErrorf("--%s: is of --prometheus; give its URL", name)
		}
	}
	r, err := f.request()
	if err != nil {
		return err
	}
	for _, out := range []struct{ flag, path string }{{"config", f.config}, {"go", f.goFile}, {"html", f.html}} {
		if out.path != "" {
			if err := checkFile(out.flag, out.path); err != nil {
				return err
			}
		}
	}
	if err := notify.FeatureNotify.Probe(); err != nil {
		return err
	}
	confineNote(cmd.ErrOrStderr(), []string{f.confine})
	for _, n := range f.notes {
		fmt.Fprintf(cmd.ErrOrStderr(), "unknot: --from %s: %s\n", f.from[0], n)
	}
	p := newProgress(cmd.ErrOrStderr(), 1)
	r.Progress = func(done, total int, what string) {
		p.total = total
		p.show(done, what)
	}
	res, err := tune.Tune(cmd.Context(), r)
	p.clear()
	if err != nil {
		return err
	}
	if err := res.Text(cmd.OutOrStdout()); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	for _, out := range []struct {
		path string
		text func() string
	}{{f.config, res.Settings}, {f.goFile, res.Go}, {f.html, res.HTML}} {
		if out.path != "" {
			if err := writeWhole(out.path, []byte(out.text())); err != nil {
				return err
			}
		}
	}
	if !res.Agrees() {
		return &exitError{3, fmt.Errorf("at the recommended capacity, %d, the prediction DISAGREES with what was measured: trust the measured figures", res.Chosen.Capacity)}
	}
	return nil
}
