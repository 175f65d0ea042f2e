package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aclements/go-moremath/stats"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/bench/trace"
	"github.com/unknot/unknot/cmd/unknot/internal/rules"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/policy"
	"github.com/unknot/unknot/internal/machine"
	"github.com/unknot/unknot/internal/wholefile"
	"golang.org/x/sys/unix"
)

// benchFlags are bench's flags as given; plan makes them a list of runs.
type benchFlags struct {
	engines, paths, targets, listeners, work, workers, queue, batch, policy, pace, target, confine, priority []string
	duration                                                                                                 time.Duration
	count                                                                                                    int
	out, trace                                                                                               string
	targetCPU                                                                                                int
	load                                                                                                     loadFlags
	stall                                                                                                    time.Duration
	changed                                                                                                  func(flag string) bool // on the command line
	files                                                                                                    benchFiles
}

func newBenchCmd() *cobra.Command {
	var f benchFlags
	c := &cobra.Command{
		Use:   "bench",
		Short: "storm the engines and print what they did, in Go benchmark format",
		Long: `bench storms each engine with trapped system calls, in rotation, and prints one
line for each repetition in Go benchmark format on standard output, ready for
benchstat. Flags that take a list (separated by commas) are all combined.

A repetition is a storm without tracing, for everything but the wait, and one
with tracing, for the wait (receive to dispatch) of the queue path. The key
"clock" says which clock the waits of the queue path are by; the inline path's
are always the engine's own.

The engines: unknot (paths inline and queue), chan (libseccomp, a channel,
goroutines), seed (blocking receive, bounded queue, one drop at a time), bare
(the least a Go thread can do; inline). The queue path's drop batch is capped at
the queue.

With --listeners there are so many target processes, each with a listener and
--targets threads of its own: chan, seed and bare have a goroutine or thread for
each, and bare-pool, another engine then, a thread with an epoll instance for each
CPU. The units slowest-listener/s and p999-roundtrip-ns (the worst listener's) say
how even it was.

An interrupted bench keeps the repetitions that were finished.

Exit codes: 0 all was measured, 1 a run failed, a target hung, or the answers that
targets saw, by errno, are not those that the engine counts, 2 wrong usage.

--profile repeats a recorded load: its calls at their times, with handlers that take
as long as those that were recorded, and says how near the replay came.`,
		Example: `  unknot bench --engine unknot,chan --targets 1,16 --count 10 -o new.txt
  unknot bench --path queue --work 50us --queue 16 --targets 64
  unknot bench --listeners 1,4,16,64 --targets 1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.changed = cmd.Flags().Changed
			return runBench(cmd, &f)
		},
	}
	f.register(c.Flags())
	c.AddCommand(newBenchPerfCmd())
	return c
}

func (f *benchFlags) register(fl *pflag.FlagSet) {
	fl.StringSliceVar(&f.engines, "engine", bench.EngineNames(false), "engines to compare")
	fl.StringSliceVar(&f.paths, "path", []string{bench.PathInline, bench.PathQueue}, "paths of a notification: inline, queue")
	fl.StringSliceVar(&f.targets, "targets", []string{"1", "16"}, "threads that make trapped calls, of each listener")
	fl.StringSliceVar(&f.listeners, "listeners", nil, "target processes, each with a listener of its own; without it one, and bare-pool is not compared")
	fl.StringSliceVar(&f.work, "work", []string{"0"}, "what the handler does: 50us of CPU time, sleep:1ms, or spin:1us of wall-clock time; 50us~1 varies, with a coefficient of variation of 1; 50us+200us@1s+50us@2s changes after so long, and has a line for each part")
	fl.StringSliceVar(&f.workers, "workers", []string{"2"}, "workers of the queue path")
	fl.StringSliceVar(&f.queue, "queue", []string{"64"}, "capacity of the queue in notifications")
	fl.StringSliceVar(&f.batch, "drop-batch", []string{bench.Auto}, "how many of the oldest calls a full queue drops at least; auto adapts")
	fl.StringSliceVar(&f.policy, "policy", []string{policy.DropOldest.String()}, "which calls give way when unknot's queue is full: drop-oldest, drop-newest, block")
	fl.StringSliceVar(&f.pace, "pace", []string{bench.Auto}, "how long unknot holds dropped calls before it tells them: 5ms, auto, none")
	fl.StringSliceVar(&f.target, "wait-target", []string{noTarget}, waitTargetUsage+"; of unknot, whose --queue is then 1024 unless given")
	fl.StringSliceVar(&f.priority, "priority", []string{keepPriority}, priorityUsage+"; of unknot")
	fl.StringSliceVar(&f.confine, "confine", []string{"private"}, confineUsage+"; of unknot")
	fl.DurationVar(&f.duration, "duration", time.Second, "of one repetition")
	fl.IntVar(&f.count, "count", 5, "repetitions of each combination")
	f.load.register(fl)
	fl.DurationVar(&f.stall, "stall", 0, "hold up one handler for so long, once in each repetition: what the corrected latencies are there to show")
	fl.IntVar(&f.targetCPU, "target-cpu", -1, "pin the targets to this CPU; -1 leaves them to the scheduler")
	fl.StringVar(&f.trace, "trace", "auto", "measure the queue path's wait by eBPF tracepoints: on, off, or auto where permitted")
	fl.StringVarP(&f.out, "output", "o", "", "also write the results to this `file`, whole or not at all")
	f.files.register(fl)
}

// plan makes the specs of one round.
func (f *benchFlags) plan() (specs []bench.Spec, err error) {
	for _, l := range []struct {
		flag string
		list []string
	}{{"engine", f.engines}, {"path", f.paths}, {"targets", f.targets}, {"work", f.work}, {"workers", f.workers}, {"queue", f.queue}, {"drop-batch", f.batch}, {"policy", f.policy}, {"pace", f.pace}, {"wait-target", f.target}} {
		if len(l.list) == 0 {
			return nil, usageErrorf("--%s: the list is empty: name at least one", l.flag)
		}
	}
	ints := func(flag string, list []string, limit int) (out []int, err error) {
		for _, s := range list {
			n, err := strconv.Atoi(s)
			if err != nil || n < 1 || n > limit {
				return nil, usageErrorf("--%s %q: want whole numbers from 1 to %d", flag, s, limit)
			}
			out = append(out, n)
		}
		return out, nil
	}
	for _, p := range f.paths {
		if p != bench.PathInline && p != bench.PathQueue {
			return nil, usageErrorf("--path %q: the paths are inline, queue", p)
		}
	}
	loads, err := f.load.plan()
	if err != nil {
		return nil, err
	}
	engines, listeners := f.engines, []int{0}
	if len(f.listeners) > 0 {
		if listeners, err = ints("listeners", f.listeners, maxListeners); err != nil {
			return nil, err
		}
		if !f.changed("engine") {
			engines = bench.EngineNames(true)
		}
		// A private file table has one listener.
		switch {
		case !f.changed("confine"):
			f.confine = []string{"shared"}
		case slices.Contains(f.confine, "private") && slices.Max(listeners) > 1:
			return nil, usageErrorf("--confine private is for one listener: with --listeners use shared or off")
		}
		for _, l := range loads {
			if l.Loop() == bench.LoopOpen {
				return nil, usageErrorf("--listeners: an open loop has one schedule and one listener: leave out --listeners, or --rate and --profile")
			}
		}
	}
	var works []bench.Work
	for _, s := range f.work {
		w, err := bench.ParseWork(s)
		if err != nil {
			return nil, usageErrorf("--work: %w", err)
		}
		works = append(works, w)
	}
	if works, err = f.profileWork(works); err != nil {
		return nil, err
	}
	for _, w := range works {
		if w.Script != nil && w.Script.Last() >= f.duration {
			return nil, usageErrorf("--work %v: its last step is at %v, and --duration is %v: storm for longer", w, w.Script.Last(), f.duration)
		}
	}
	targets, err := ints("targets", f.targets, storm.MaxTargets)
	if err != nil {
		return nil, err
	}
	workers, err := ints("workers", f.workers, engine.MaxWorkers)
	if err != nil {
		return nil, err
	}
	queues, err := ints("queue", f.queue, engine.MaxQueue)
	if err != nil {
		return nil, err
	}
	f.profileTargets(&targets, queues, workers)
	var batches []int // 0 adapts
	for _, s := range f.batch {
		if s == bench.Auto {
			batches = append(batches, 0)
			continue
		}
		n, err := ints("drop-batch", []string{s}, engine.MaxQueue)
		if err != nil {
			return nil, err
		}
		batches = append(batches, n...)
	}
	drops, err := f.drops()
	if err != nil {
		return nil, err
	}
	for _, d := range drops {
		for _, w := range works {
			if most := w.Longest(); d.target > 0 && most > d.target {
				return nil, usageErrorf("--wait-target %v with --work %v: no depth can meet this: service is %v, add workers until nobody waits, or raise the target", d.target, w, most)
			}
		}
	}
	var raises []bool
	for _, p := range f.priority {
		raise, ok := parsePriority(p)
		if !ok {
			return nil, usageErrorf("--priority %q: want %s", p, priorityForms)
		}
		raises = append(raises, raise)
	}
	confiners, err := parseConfinements(f.confine)
	if err != nil {
		return nil, err
	}
	for _, t := range targets {
		for _, n := range listeners {
			if n*t > storm.MaxTargets {
				return nil, usageErrorf("--listeners %d with --targets %d: %d threads: at most %d", n, t, n*t, storm.MaxTargets)
			}
			for _, w := range works {
				for _, q := range queues {
					for _, c := range workers {
						for _, b := range batches {
							for _, e := range engines {
								paths, err := bench.Paths(e)
								if err != nil {
									return nil, usageErrorf("--engine: %w", err)
								}
								for _, p := range paths {
									if !slices.Contains(f.paths, p) {
										continue
									}
									s := bench.Spec{Stall: f.stall, Seed: f.load.seed, Engine: e, Path: p, Targets: t, Listeners: n, Work: w, Workers: c, Queue: q,
										DropBatch: min(b, q), TargetCPU: storm.CPU(f.targetCPU + 1), Policy: drops[0].policy, Pace: drops[0].pace}
									if e != "unknot" {
										specs = append(specs, s) // nobody else has a choice
										continue
									}
									for _, s.Confine = range confiners {
										for _, d := range drops {
											s.Policy, s.Pace, s.WaitTarget = d.policy, d.pace, d.target
											if s.Queue = q; d.target > 0 && p == bench.PathQueue && !f.changed("queue") {
												s.Queue = engine.DefaultTargetQueue
											}
											if p != bench.PathQueue {
												s.WaitTarget = 0
											}
											for _, s.RaisePriority = range raises {
												specs = append(specs, s)
											}
											if p != bench.PathQueue {
												break
											}
										}
									}
								}
							}
						}
					}
				}
			}
		}
	}
	specs = withLoads(specs, loads)
	if len(specs) == 0 {
		return nil, usageErrorf("nothing to run: no engine of --engine %s has a path of --path %s", strings.Join(f.engines, ","), strings.Join(f.paths, ","))
	}
	if f.targetCPU < -1 || f.targetCPU >= 1024 {
		return nil, usageErrorf("--target-cpu %d: want a CPU's number, or -1", f.targetCPU)
	}
	if f.count < 1 {
		return nil, usageErrorf("--count %d: want at least 1", f.count)
	}
	if f.duration < time.Millisecond {
		return nil, usageErrorf("--duration %v: want at least 1ms", f.duration)
	}
	if f.stall < 0 || f.stall >= f.duration {
		return nil, usageErrorf("--stall %v: want less than --duration %v, which it lies in", f.stall, f.duration)
	}
	for _, l := range loads {
		if _, err := l.Config(1, 0, f.duration, f.load.seed); err != nil {
			return nil, usageErrorf("--rate, --duration: %w", err)
		}
	}
	return specs, nil
}

// withLoads combines specs with loads.
func withLoads(specs []bench.Spec, loads []bench.Load) (all []bench.Spec) {
	for _, l := range loads {
		for _, s := range specs {
			s.Load = l
			all = append(all, s)
		}
	}
	return all
}

// maxListeners bounds --listeners: each is a process.
const maxListeners = 512

// A drop is one combination of --policy, --pace and --wait-target.
type drop struct {
	policy policy.Kind
	pace   time.Duration
	target time.Duration
}

func (f *benchFlags) drops() (all []drop, err error) {
	for _, name := range f.policy {
		k, err := policy.ParseKind(name)
		if err != nil {
			return nil, usageErrorf("--policy: %w", err)
		}
		for _, p := range f.pace {
			d, err := rules.ParsePace(p)
			if err != nil {
				return nil, usageErrorf("--%w", err)
			}
			for _, w := range f.target {
				target, err := rules.ParseWaitTarget(w)
				if err != nil {
					return nil, usageErrorf("--%w", err)
				}
				all = append(all, drop{k, d, target})
			}
		}
	}
	return all, nil
}

func runBench(cmd *cobra.Command, f *benchFlags) error {
	specs, err := f.plan()
	if err != nil {
		return err
	}
	if err := notify.FeatureNotify.Probe(); err != nil {
		return err
	}
	confineNote(cmd.ErrOrStderr(), f.confine)
	var file bytes.Buffer
	out := io.Writer(cmd.OutOrStdout())
	if cmd.Flags().Changed("output") {
		// Refuse now what would fail after the measuring.
		if err := checkOutput(f.out); err != nil {
			return err
		}
		out = io.MultiWriter(out, &file)
	}
	if err := f.files.check(cmd); err != nil {
		return err
	}
	traced := false
	switch f.trace {
	case "off":
	case "on", "auto":
		err := trace.Probe()
		if err != nil && f.trace == "on" {
			return fmt.Errorf("--trace=on: %w", err)
		}
		if err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "unknot: waits are by the engine's own clock: %v\n", err)
		}
		traced = err == nil
	default:
		return usageErrorf("--trace %q: want on, off or auto", f.trace)
	}
	if traced && slices.ContainsFunc(specs, func(s bench.Spec) bool { return s.Work.Script != nil }) {
		if f.trace == "on" {
			return usageErrorf("--trace=on: a --work with steps has its waits by the engine's own clock: leave out --trace")
		}
		traced = false
	}
	comments, keys := facts()
	// One key for the whole file: a key that changes within it would split
	// benchstat's tables.
	clock := bench.ClockEngine
	if traced {
		clock = bench.ClockTracepoints
	}
	keys = append(keys, [2]string{"clock", clock})
	w, err := bench.NewWriter(out, comments, keys)
	if err != nil {
		return err
	}
	progress := newProgress(cmd.ErrOrStderr(), len(specs)*f.count)
	var results []*bench.Result
	ctx, lost := cmd.Context(), 0
	var failed error
	if err := f.files.startProfile(); err != nil {
		return fmt.Errorf("--cpuprofile: %w", err)
	}
	defer f.files.stopProfile() // if a write fails before writeProfile
	session := bench.Session{Specs: specs, Rounds: f.count, Length: f.duration, Traced: traced,
		Next: func(s bench.Spec) { progress.show(len(results), s.Name()) }}
	for r, err := range session.Run(ctx) {
		// Once for all the rounds in which it happens again.
		if err != nil && (failed == nil || !strings.Contains(failed.Error(), err.Error())) {
			failed = errors.Join(failed, err)
		}
		if r == nil {
			continue
		}
		lost += r.Lost
		results = append(results, r)
		if err := w.Write(r); err != nil {
			return fmt.Errorf("write results: %w", err)
		}
	}
	progress.clear()
	if err := f.files.writeProfile(); err != nil {
		failed = errors.Join(failed, err)
	}
	summary(cmd.ErrOrStderr(), specs, results)
	if err := f.profileSummary(ctx, cmd.ErrOrStderr(), specs); err != nil {
		failed = errors.Join(failed, err)
	}
	if f.out != "" && len(results) > 0 {
		if err := writeWhole(f.out, file.Bytes()); err != nil {
			return err
		}
	}
	if err := f.files.writeHDR(specs, results); err != nil {
		return err
	}
	switch {
	case failed != nil:
		return failed
	case ctx.Err() != nil:
		return errors.New("interrupted: the repetitions above are complete, the rest is missing")
	case lost > 0:
		return fmt.Errorf("%d targets hung and were killed: see the lines with lost > 0", lost)
	}
	return f.files.writeStages(cmd, f, specs)
}

// facts are what a reader must know of the machine: comments for what changes
// from run to run (a key that differs would split benchstat's tables), keys for
// what makes numbers comparable.
func facts() (comments []string, keys [][2]string) {
	comments = []string{"date: " + time.Now().UTC().Format(time.RFC3339)}
	if bi, ok := debug.ReadBuildInfo(); ok {
		for _, s := range bi.Settings {
			if s.Key == "vcs.revision" || s.Key == "vcs.modified" {
				comments = append(comments, s.Key+": "+s.Value)
			}
		}
	}
	hash, details := bench.Fingerprint()
	for _, d := range details {
		comments = append(comments, "machine "+d[0]+": "+d[1])
	}
	comments = append(comments, "loop: closed: nothing says when a call should have been made, so its corrected latency is the round trip; open: corrected from the intended start")
	keys = [][2]string{{"goos", runtime.GOOS}, {"goarch", runtime.GOARCH}, {"pkg", "github.com/unknot/unknot/bench"}}
	if cpu := machine.GoTestCPU(); cpu != "" {
		keys = append(keys, [2]string{"cpu", cpu})
	}
	return comments, append(keys, [2]string{"machine", hash})
}

// checkOutput is checkFile for --output.
func checkOutput(path string) error { return checkFile("output", path) }

// checkFile refuses now what writeWhole to the path of a flag would after the work.
func checkFile(flag, path string) error {
	if path == "" {
		return usageErrorf("--%s: name a file", flag)
	}
	if err := wholefile.Check(path); err != nil {
		return usageErrorf("--%s %s: %w", flag, path, err)
	}
	return nil
}

// writeWhole writes a file that is either complete or as it was.
func writeWhole(path string, b []byte) error {
	if err := wholefile.Write(path, b); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// summary prints the medians, their ratios to chan, and where the waits lie. Void
// results are in neither.
func summary(w io.Writer, specs []bench.Spec, results []*bench.Result) {
	if len(results) == 0 {
		return
	}
	results = slices.DeleteFunc(slices.Clone(results), func(r *bench.Result) bool { return r.Void() != nil })
	median := func(s bench.Spec, of func(*bench.Result) float64) float64 {
		return medianOf(slices.DeleteFunc(slices.Clone(results), func(r *bench.Result) bool { return r.Spec != s }), of)
	}
	// What listeners are told apart for is beside the rest.
	many := slices.ContainsFunc(specs, func(s bench.Spec) bool { return s.Listeners > 0 })
	var manyHead string
	width := 7
	if many {
		width = 9 // bare-pool
		manyHead = fmt.Sprintf(" %9s %10s %13s", "listeners", "slowest/s", "worst p99.9")
	}
	fmt.Fprintf(w, "\n%-*s %-7s %-7s %8s %12s %11s %9s %12s %12s %13s %9s %5s%s\n", width, "engine", "path", "loop", "targets", "work", "served/s", "vs chan", "p50 trip", "p99 trip", "p99 corrected", "eintr/op", "lost", manyHead)
	for _, s := range specs {
		fmt.Fprintf(w, "%-*s %-7s %-7s %8d %12v ", width, s.Engine, s.Path, s.Load.Loop(), s.Targets, s.Work)
		if math.IsNaN(median(s, served)) {
			fmt.Fprintf(w, "%11s\n", "no result")
			continue
		}
		chanSpec := s
		chanSpec.Engine, chanSpec.Path, chanSpec.Confine = "chan", bench.PathQueue, nil
		ratio := "-"
		if c := median(chanSpec, served); c > 0 {
			ratio = fmt.Sprintf("%.2fx", median(s, served)/c)
		}
		fmt.Fprintf(w, "%11.0f %9s %12s %12s %13s %9.3f %5.0f",
			median(s, served), ratio,
			bench.Duration(median(s, trip(.5))), bench.Duration(median(s, trip(.99))),
			bench.Duration(median(s, func(r *bench.Result) float64 { return bench.Percentile(r.Corrected, .99) })),
			median(s, eintrs),
			median(s, func(r *bench.Result) float64 { return float64(r.Lost) }))
		if many {
			fmt.Fprintf(w, " %9d %10.0f %13s", s.Listeners, median(s, (*bench.Result).Slowest),
				bench.Duration(median(s, func(r *bench.Result) float64 { return r.WorstTrip(.999) })))
		}
		fmt.Fprintln(w)
		partsSummary(w, results, s, width)
	}
	for _, s := range specs {
		if s.Engine != "unknot" {
			continue
		}
		all, any := new(hist.Snapshot), false
		for _, r := range results {
			if r.Spec == s && r.Wait != nil {
				all.Merge(r.Wait)
				any = true
			}
		}
		if !any {
			continue
		}
		fmt.Fprintln(w)
		bench.Histogram(w, "wait (receive to dispatch) of "+s.Name(), all)
		byReceiver(w, results, s)
	}
}

// medianOf is the median of what results say, NaN if none says anything.
func medianOf(results []*bench.Result, of func(*bench.Result) float64) float64 {
	var sample stats.Sample
	for _, r := range results {
		if v := of(r); !math.IsNaN(v) { // a percentile of too few calls
			sample.Xs = append(sample.Xs, v)
		}
	}
	return sample.Quantile(.5)
}

func served(r *bench.Result) float64 { return float64(r.Targets.OK) / r.Elapsed.Seconds() }

func trip(p float64) func(*bench.Result) float64 {
	return func(r *bench.Result) float64 { return bench.Percentile(r.RoundTrip, p) }
}

// eintrs is how many EINTRs there were for each served call.
func eintrs(r *bench.Result) float64 {
	return float64(r.Targets.Failed(unix.EINTR)) / float64(max(1, r.Targets.OK))
}

// partsSummary prints the medians of the parts of storms whose work has steps, a line each.
func partsSummary(w io.Writer, results []*bench.Result, s bench.Spec, width int) {
	var parts [][]*bench.Result
	for _, r := range results {
		if r.Spec != s {
			continue
		}
		for i, p := range r.Parts {
			if i == len(parts) {
				parts = append(parts, nil)
			}
			if p.Void() == nil {
				parts[i] = append(parts[i], p)
			}
		}
	}
	for i, rs := range parts {
		if len(rs) == 0 {
			continue
		}
		fmt.Fprintf(w, "%-*s part %-2d %-7s %8s %12v %11.0f %9s %12s %12s %13s %9.3f", width, "", i+1, "", "", rs[0].Work,
			medianOf(rs, served), "-", bench.Duration(medianOf(rs, trip(.5))), bench.Duration(medianOf(rs, trip(.99))), "-", medianOf(rs, eintrs))
		if rs[0].Wait != nil {
			wait := func(p float64) string {
				return bench.Duration(medianOf(rs, func(r *bench.Result) float64 { return bench.Percentile(r.Wait, p) }))
			}
			fmt.Fprintf(w, "  wait p50 %s p99 %s", wait(.5), wait(.99))
		}
		fmt.Fprintln(w)
	}
}

// byReceiver prints the waits of a traced storm's receivers, if there were several.
func byReceiver(w io.Writer, results []*bench.Result, s bench.Spec) {
	var all []*hist.Snapshot
	for _, r := range results {
		if r.Spec != s {
			continue
		}
		for i, h := range r.ReceiverWaits {
			if i == len(all) {
				all = append(all, new(hist.Snapshot))
			}
			all[i].Merge(h)
		}
	}
	for i, h := range all {
		fmt.Fprintf(w, "receiver %d: %d dispatched, p50 wait %s, p99 wait %s\n", i, h.Count, bench.Duration(h.Quantile(.5)), bench.Duration(h.Quantile(.99)))
	}
}

// progress is one line on a terminal that says what runs; nothing elsewhere.
type progress struct {
	w     io.Writer
	total int
	tty   bool
	start time.Time
}

func newProgress(w io.Writer, total int) *progress {
	return &progress{w: w, total: total, tty: isTerminal(w), start: time.Now()}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

func (p *progress) show(done int, what string) {
	if !p.tty {
		return
	}
	const width = 30
	full := width * done / p.total
	fmt.Fprintf(p.w, "\r\x1b[K[%s%s] %d/%d %s %s", strings.Repeat("=", full), strings.Repeat(" ", width-full), done, p.total, time.Since(p.start).Round(time.Second), what)
}

func (p *progress) clear() {
	if p.tty {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
