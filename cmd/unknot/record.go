package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/bench/record"
	"github.com/unknot/unknot/cmd/unknot/internal/rules"
	"github.com/unknot/unknot/engine/filter"
)

func newRecordCmd() *cobra.Command {
	sampler := record.Sampler{}
	c := &sampler.Config
	out, dropErrno := "", "EINTR"
	cmd := &cobra.Command{
		Use:   "record -p pid -o file",
		Short: "record what load a supervisor has",
		Long: `record follows a running supervisor, any that uses the notify ioctls, from the
kernel's tracepoints, and writes its load to a file: when calls came (when their
targets trapped), from which threads, how long they waited and were served, by
system call. No arguments, paths or names are stored. It needs the privileges of
tracing ("unknot doctor" says whether they are there) and a kernel with BTF.

It ends after --duration or --calls, at an interrupt, or with the supervisor. The
file is written then, whole or not at all.

How long handlers take is seen where the supervisor asks ID_VALID when it starts
on a call, or where one thread receives and answers it. unknot's engine asks for
one call in 64 and for those that waited long; Config.CheckAfter has it ask for all.
Of other supervisors the service is unknown.

Recording slows the supervisor: docs/recording.md says by how much. With --every 1m
--for 2s it is recorded for two seconds in each minute, at a moment that is drawn, for
a day unless --duration is given: the file is samples, written one by one, and what was
written stays whole whatever happens. --calls is then of all of them: a sample that has
more than its share of what is left ends sooner. A supervisor that was restarted is found
again by its program and arguments. "tune --from" takes the file as it is, and
"bench --profile FILE#17" one of its samples.

Exit codes: 0 the file is written, 1 nothing was recorded or it failed, 2 wrong
usage.`,
		Example: `  unknot record -p $(pidof supervisor) -o load.ukr --duration 30s
  unknot record -p $(pidof supervisor) -o day.ukr --every 1m --for 2s`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case !cmd.Flags().Changed("pid"):
				return usageErrorf("record which supervisor? name its process: -p PID%s", listenerHolders())
			case c.PID <= 0:
				return usageErrorf("--pid %d: want a process id", c.PID)
			case !cmd.Flags().Changed("output"):
				return usageErrorf("record to where? name a file: -o FILE")
			case cmd.Flags().Changed("duration") && c.Duration <= 0:
				return usageErrorf("--duration %v: want more than 0", c.Duration)
			case c.MaxCalls < 1 || c.MaxCalls > record.MaxCalls:
				return usageErrorf("--calls %d: want a whole number from 1 to %d", c.MaxCalls, record.MaxCalls)
			}
			var ok bool
			if c.DropErrno, ok = rules.Errno(dropErrno); !ok {
				return usageErrorf("--drop-errno %q: want an errno's name, such as EINTR or EAGAIN", dropErrno)
			}
			sampled := cmd.Flags().Changed("every") || cmd.Flags().Changed("for")
			if sampled {
				if err := checkSamples(&sampler, out, cmd.Flags().Changed); err != nil {
					return err
				}
			}
			if err := checkOutput(out); err != nil {
				return err
			}
			if sampled {
				return recordSamples(cmd, &sampler, out)
			}
			r, err := record.Record(cmd.Context(), *c)
			if errors.Is(err, record.ErrEmpty) {
				return nothingRecorded(c.PID, "meanwhile")
			} else if err != nil {
				return err
			}
			b, err := r.Encode()
			if err != nil {
				return err
			}
			if err := writeWhole(out, b); err != nil {
				return err
			}
			describeRecording(cmd.OutOrStdout(), r)
			if len(r.Calls) >= c.MaxCalls {
				fmt.Fprintf(cmd.ErrOrStderr(), "unknot: full after %v: --calls %d\n", r.Elapsed.Round(time.Millisecond), c.MaxCalls)
			}
			return nil
		},
	}
	fl := cmd.Flags()
	fl.IntVarP(&c.PID, "pid", "p", 0, "`process` id of the supervisor")
	fl.StringVarP(&out, "output", "o", "", "write the recording to this `file`")
	fl.DurationVar(&c.Duration, "duration", 0, "end after this time; without it an interrupt ends it, and a day with --every")
	fl.DurationVar(&sampler.Every, "every", 0, "take a sample in each such time, as 1m, with --for")
	fl.DurationVar(&sampler.For, "for", 0, "how long a sample is, as 2s, with --every")
	fl.IntVar(&c.MaxCalls, "calls", record.DefaultCalls, "end after so many calls, of some 13 bytes each; with --every 4194304 unless given")
	fl.StringVar(&dropErrno, "drop-errno", dropErrno, "what the supervisor answers to calls that it drops, by `name`")
	return cmd
}

func nothingRecorded(pid int, when string) error {
	return fmt.Errorf("nothing recorded, nothing written: process %d answered no notification %s; -p wants the supervisor, whose targets make calls%s", pid, when, listenerHolders())
}

// describeLost prints which calls are not in a recording, if any.
func describeLost(w io.Writer, l record.Lost) {
	if l != (record.Lost{}) {
		fmt.Fprintf(w, "not in it  %d unfinished, %d received before, %d overrun, %d missed\n", l.Unfinished, l.Unmatched, l.Overrun, l.Missed)
	}
}

// describeRecording prints what can be told from a recording.
func describeRecording(w io.Writer, r *record.Recording) {
	n := len(r.Calls)
	fmt.Fprintf(w, "calls      %d in %v (%.0f/s): %d served, %d dropped, %d stale\n", n, r.Elapsed.Round(time.Millisecond), r.Rate(),
		r.Count(record.Served), r.Count(record.Dropped), r.Count(record.Stale))
	describeLost(w, r.Lost)
	if t := r.Trapped(); t < n {
		fmt.Fprintf(w, "arrivals   %d of %d calls by their receive, since their trap was not seen\n", n-t, n)
	}
	for _, b := range r.Burstiness() {
		fmt.Fprintf(w, "bursts     in %v: dispersion %.3g (1: independent arrivals), peak %.0f/s\n", time.Duration(b.Window), b.Dispersion, b.Peak)
	}
	f := r.InFlight()
	fmt.Fprintf(w, "in flight  mean %.1f, at most %d, of %d threads\n", f.Mean, f.Max, r.Threads)
	loop, think := r.Feedback(), r.Think()
	fmt.Fprintf(w, "loop       %v (the rate falls by %.0f%% ± %.0f%% when most are in flight)\n", loop.Loop, 100*loop.Fall, 100*loop.Err)
	if think.Times.Count > 0 {
		fmt.Fprintf(w, "think      p50 %s, p99 %s; %.0f%% of it asleep\n", bench.Duration(think.Times.Quantile(.5)), bench.Duration(think.Times.Quantile(.99)), 100*think.Slept)
	}
	s := r.Service()
	if s.Times == nil {
		fmt.Fprintln(w, "service    unknown: no dispatch was seen")
		return
	}
	how := "by ID_VALID"
	if s.Dispatch == record.Inline {
		how = "answered where they were received"
	}
	fmt.Fprintf(w, "service    known of %d of %d served calls (%s); %.0f%% of it blocked, %.0f%% on a CPU\n", s.Known, s.Served, how, 100*s.Blocked, 100*s.Computing.Mean()/s.Times.Mean())
	for i, h := range s.BySyscall {
		if h != nil {
			fmt.Fprintf(w, "           %-20s %8d  p50 %s, p99 %s, mean %s\n", filter.Name(r.Syscalls[i].Arch, r.Syscalls[i].NR), h.Count,
				bench.Duration(h.Quantile(.5)), bench.Duration(h.Quantile(.99)), bench.Duration(h.Mean()))
		}
	}
}
