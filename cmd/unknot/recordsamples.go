package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/bench/record"
	"github.com/unknot/unknot/bench/trace"
	"github.com/unknot/unknot/engine/hist"
	"golang.org/x/sys/unix"
)

const (
	// sampledFor and sampledCalls are record's --duration and --calls with --every: a day, and some 55 MB.
	sampledFor   = 24 * time.Hour
	sampledCalls = 1 << 22
	// shortestSample is such that loading the programs, a tenth of a second, is not all that is done.
	shortestSample = 10 * time.Millisecond
)

// checkSamples checks the flags of --every and --for, and gives the others the values that they have with it.
func checkSamples(s *record.Sampler, out string, changed func(string) bool) error {
	switch {
	case !changed("every"):
		return usageErrorf("--for %v: of how long a time? say --every too, as in --every 1m; or --duration, to record once", s.For)
	case !changed("for"):
		return usageErrorf("--every %v: for how long? say --for too, as in --for 2s", s.Every)
	case s.For < shortestSample:
		return usageErrorf("--for %v: want at least %v", s.For, shortestSample)
	case s.Every <= s.For:
		return usageErrorf("--every %v: want more than --for %v; leave both out to record all the time", s.Every, s.For)
	}
	if !changed("duration") {
		s.Duration = sampledFor
	}
	if !changed("calls") {
		s.MaxCalls = sampledCalls
	}
	if s.Duration < s.Every {
		return usageErrorf("--duration %v: want at least --every %v", s.Duration, s.Every)
	}
	if _, err := os.Lstat(out); !errors.Is(err, fs.ErrNotExist) {
		return usageErrorf("--output %s: exists; samples are written as they are taken, to a new file: name another one (tune takes several)", out)
	}
	return nil
}

// recordSamples is record with --every.
func recordSamples(cmd *cobra.Command, s *record.Sampler, out string) (err error) {
	stderr := cmd.ErrOrStderr()
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	who, known := programOf(s.PID)
	pid, away := s.PID, false
	s.Find = func() (int, bool) {
		if now, ok := programOf(pid); ok && (!known || now == who) {
			return pid, true
		}
		if !known { // nor could another one be
			fmt.Fprintf(stderr, "unknot: process %d ended\n", pid)
			cancel()
			return 0, false
		}
		next, ok := who.process()
		switch {
		case ok:
			fmt.Fprintf(stderr, "unknot: process %d is the supervisor now, by its program and arguments\n", next)
			pid, away = next, false
		case !away:
			away = true
			fmt.Fprintf(stderr, "unknot: process %d ended: another one with its program and arguments is looked for before each sample; an interrupt ends this\n", pid)
		}
		return pid, ok
	}
	file := record.NewSampleFile(out)
	defer func() { err = errors.Join(err, file.Close()) }()
	var all sampleSums
	var unwritten int
	var failure error
	progress := newProgress(stderr, int(s.Duration/s.Every))
	begun := time.Now()
	n, err := s.Run(ctx, func(r *record.Recording) error {
		defer func() { progress.show(int(time.Since(begun)/s.Every), out) }()
		if err := file.Add(r); err != nil {
			if file.Size() == 0 {
				return fmt.Errorf("write the first sample: %w", err)
			}
			if unwritten++; unwritten == 1 {
				fmt.Fprintf(stderr, "unknot: a sample could not be written and is left out, the file is whole: %v; the next ones are tried\n", err)
			}
			failure = err
			return nil
		}
		all.add(r)
		return nil
	})
	progress.clear()
	if len(all.rates) > 0 {
		all.describe(cmd.OutOrStdout(), s, n, time.Since(begun), file.Size())
	}
	switch {
	case err != nil && file.Size() > 0:
		return fmt.Errorf("ended after %d samples, which are in %s: %w", len(all.rates), out, err)
	case err != nil:
		return err
	case n.Taken == 0:
		return nothingRecorded(s.PID, fmt.Sprintf("in %d samples", n.Empty))
	case unwritten > 0:
		return fmt.Errorf("%d of %d samples could not be written: %w", unwritten, n.Taken, failure)
	}
	return nil
}

// A program is what a process runs. By it a supervisor is found again when it was restarted.
type program struct{ exe, args string }

func programOf(pid int) (program, bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	exe, err := os.Readlink(dir + "/exe")
	if err != nil { // also of a zombie
		return program{}, false
	}
	args, err := os.ReadFile(dir + "/cmdline")
	return program{strings.TrimSuffix(exe, " (deleted)"), string(args)}, err == nil
}

// process is the one process that runs p or, of several, the one that holds a listener.
func (p program) process() (int, bool) {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return 0, false
	}
	var found []int
	for _, d := range dirs {
		if pid, err := strconv.Atoi(d.Name()); err == nil && pid != os.Getpid() {
			if is, ok := programOf(pid); ok && is == p {
				found = append(found, pid)
			}
		}
	}
	if len(found) > 1 {
		holders := map[int]bool{}
		for _, h := range trace.ListenerHolders() {
			holders[h.PID] = true
		}
		found = slices.DeleteFunc(found, func(pid int) bool { return !holders[pid] })
	}
	if len(found) != 1 {
		return 0, false
	}
	return found[0], true
}

// sampleSums are what is told of samples.
type sampleSums struct {
	calls, served, dropped, stale, known, threads int
	elapsed                                       time.Duration
	lost                                          record.Lost
	rates                                         []float64
	busiest                                       time.Time
	service                                       hist.Snapshot
}

func (a *sampleSums) add(r *record.Recording) {
	a.calls += len(r.Calls)
	a.served += r.Count(record.Served)
	a.dropped += r.Count(record.Dropped)
	a.stale += r.Count(record.Stale)
	a.threads = max(a.threads, r.Threads)
	a.elapsed += r.Elapsed
	a.lost.Add(r.Lost)
	if len(a.rates) == 0 || r.Rate() > slices.Max(a.rates) {
		a.busiest = r.Start
	}
	a.rates = append(a.rates, r.Rate())
	if s := r.Service(); s.Times != nil {
		a.known += s.Known
		a.service.Merge(s.Times)
	}
}

func (a *sampleSums) describe(w io.Writer, s *record.Sampler, n record.Sampled, took time.Duration, size int64) {
	fmt.Fprintf(w, "samples    %d in %v, of %v every %v", len(a.rates), took.Round(time.Millisecond), s.For, s.Every)
	for _, c := range []struct {
		n    int
		what string
	}{{n.Full, "ended early, having their share of --calls"}, {n.Empty, "without a call, not kept"}, {n.Away, "while there was no supervisor"}, {n.Late, "left out, the machine was busy"}} {
		if c.n > 0 {
			fmt.Fprintf(w, "; %d %s", c.n, c.what)
		}
	}
	fmt.Fprintf(w, "\ncalls      %d in %v: %d served, %d dropped, %d stale\n", a.calls, a.elapsed.Round(time.Millisecond), a.served, a.dropped, a.stale)
	describeLost(w, a.lost)
	slices.Sort(a.rates)
	fmt.Fprintf(w, "calls/s    by sample: %.0f to %.0f, median %.0f; most at %s\n", a.rates[0], a.rates[len(a.rates)-1], a.rates[len(a.rates)/2], a.busiest.Format(time.RFC3339))
	fmt.Fprintf(w, "threads    at most %d in a sample\n", a.threads)
	if a.known > 0 {
		fmt.Fprintf(w, "service    known of %d of %d served calls: p50 %s, p99 %s, mean %s\n", a.known, a.served,
			bench.Duration(a.service.Quantile(.5)), bench.Duration(a.service.Quantile(.99)), bench.Duration(a.service.Mean()))
	} else {
		fmt.Fprintln(w, "service    unknown: no dispatch was seen")
	}
	var own unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &own)
	used := time.Duration(own.Utime.Nano() + own.Stime.Nano())
	fmt.Fprintf(w, "cost       calls were followed for %.2g%% of the time; %.2g%% of a CPU for this command; %d bytes of file\n", 100*a.elapsed.Seconds()/took.Seconds(), 100*used.Seconds()/took.Seconds(), size)
}
