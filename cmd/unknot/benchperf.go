package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/spf13/cobra"
	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/engine/notify"
)

func newBenchPerfCmd() *cobra.Command {
	var (
		loop   uint64
		sync   bool
		format string
	)
	c := &cobra.Command{
		Use:   "perf",
		Short: "repeat perf bench sched seccomp-notify, for its number",
		Long: `perf repeats "perf bench sched seccomp-notify" of the kernel's tools/perf, whose
number kernel developers know, with its flags and its output: one target calls
gettid and does nothing else, one thread blocks in RECV and answers, neither is
pinned. No engine takes part: it is what the kernel and a Go thread allow.

The time is from the target's release to the last answer; perf's own also has the
start and the end of the target in it, which is nothing in a million calls.

Exit codes: 0 all calls were answered, 1 they were not or it was interrupted, 2
wrong usage.`,
		Example: `  unknot bench perf --sync-mode
  perf bench sched seccomp-notify --sync-mode`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case loop < 1 || loop > math.MaxInt64:
				return usageErrorf("--loop %d: want at least 1", loop)
			case format != "default" && format != "simple":
				return usageErrorf("--format %q: want default or simple", format)
			}
			if err := notify.FeatureNotify.Probe(); err != nil {
				return err
			}
			took, err := bench.Perf(cmd.Context(), loop, sync)
			switch {
			case cmd.Context().Err() != nil:
				return errors.New("interrupted: there is no result")
			case err != nil:
				return fmt.Errorf("bench perf: %w", err)
			}
			writePerf(cmd.OutOrStdout(), format, loop, took)
			return nil
		},
	}
	fl := c.Flags()
	fl.Uint64VarP(&loop, "loop", "l", 1e6, "`calls` to answer")
	fl.BoolVarP(&sync, "sync-mode", "s", false, "have the kernel wake each side on the other's CPU (SYNC_WAKE_UP)")
	fl.StringVarP(&format, "format", "f", "default", "default, or simple: the seconds alone")
	return c
}

// writePerf prints as perf bench does, to the blank.
func writePerf(w io.Writer, format string, calls uint64, took time.Duration) {
	seconds := fmt.Sprintf("%d.%03d", took/time.Second, took%time.Second/time.Millisecond)
	if format == "simple" {
		fmt.Fprintln(w, seconds)
		return
	}
	usecs := float64(took.Microseconds()) // as perf's clock
	fmt.Fprintf(w, "# Running 'sched/seccomp-notify' benchmark:\n# Executed %d system calls\n\n %14s: %s [sec]\n\n %14f usecs/op\n %14d ops/sec\n",
		calls, "Total time", seconds, usecs/float64(calls), int64(float64(calls)/max(usecs, 1)*1e6))
}
