package main

import (
	"context"
	"fmt"
	"math"
	"net"
	"time"

	"github.com/spf13/cobra"
	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

func newStormCmd() *cobra.Command {
	var (
		connect      string
		targets, cpu int
		duration     time.Duration
		load         loadFlags
	)
	c := &cobra.Command{
		Use:   "storm --connect socket",
		Short: "storm a supervisor of your own with trapped calls",
		Long: `storm makes trapped system calls from many threads, for any supervisor
that listens on a UNIX stream socket: it connects, passes the listener of its
filter in one message with one byte (SCM_RIGHTS), and starts when it has read one
byte back. At the end it prints what the targets saw: calls answered with a value,
and those that failed, by errno.

Each thread calls again once it has its answer and has thought (a closed loop), or,
with --rate, calls are made when it is their time, whatever the answers (an open
loop). Calls other than getppid are trapped only with 0x756e6b6e in the high half of
their sixth argument, so that what the program's runtime calls is left alone. With
--hostile the targets are killed, signalled or replaced while their calls wait.

Exit codes: 0 every call was answered, 1 some were not, the supervisor is gone, or
there were too few targets for an open loop, 2 wrong usage.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if connect == "" {
				return usageErrorf("storm whom? name the supervisor's socket: --connect PATH")
			}
			if targets < 1 || targets > storm.MaxTargets {
				return usageErrorf("--targets %d: want a whole number from 1 to %d", targets, storm.MaxTargets)
			}
			switch {
			case duration <= 0:
				return usageErrorf("--duration %v: want more than 0", duration)
			case cpu < -1:
				return usageErrorf("--cpu %d: want a CPU's number, or -1 for all", cpu)
			}
			loads, err := load.plan()
			if err != nil {
				return err
			}
			if len(loads) > 1 {
				return usageErrorf("one storm at a time: name one think time or rate, one kind of arrivals, one mix of calls and one hostility")
			}
			config, err := loads[0].Config(targets, storm.CPU(cpu+1), duration, load.seed)
			if err != nil {
				return usageErrorf("--rate, --duration: %w", err)
			}
			ctx := cmd.Context()
			conn, err := net.Dial("unix", connect)
			if err != nil {
				return fmt.Errorf("reach the supervisor: %w", err)
			}
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })() // an interrupt ends the wait
			s, err := storm.Start(ctx, config)
			if err != nil {
				return err
			}
			var r *storm.Report
			stop := func() error {
				r, err = s.Stop(10 * time.Second)
				return err
			}
			if err := notify.SendListener(conn.(*net.UnixConn), s.Listener()); err != nil {
				_ = stop()
				return err
			}
			// Only the supervisor's copy shall be left, so that its end is ours.
			_ = s.Listener().Close()
			if _, err := conn.Read(make([]byte, 1)); err != nil {
				_ = stop()
				return fmt.Errorf("wait for the supervisor's word: %w", err)
			}
			if err := s.Go(); err != nil {
				_ = stop()
				return err
			}
			select {
			case <-time.After(duration + storm.Lead()):
			case <-ctx.Done():
			}
			if err := stop(); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "targets %d, %s loop: %.0f calls/s, %v, lost %d, round trip p50 %s p99 %s",
				targets, loads[0].Loop(), float64(r.Calls())/r.Elapsed.Seconds(), r.Counts, r.Lost,
				bench.Duration(bench.Percentile(r.RoundTrip, .5)), bench.Duration(bench.Percentile(r.RoundTrip, .99)))
			if r.Open == nil {
				fmt.Fprintln(cmd.OutOrStdout())
			} else {
				w := r.Open.Window(r.Open.Origin(), math.MaxInt64, 0, 0)
				fmt.Fprintf(cmd.OutOrStdout(), ", from the intended start p50 %s p99 %s, late %d of %d\n",
					bench.Duration(bench.Percentile(w.Corrected, .5)), bench.Duration(bench.Percentile(w.Corrected, .99)), w.Late, w.Intended)
				if w.Void() && r.Lost == 0 {
					return fmt.Errorf("limited by the generator: no target was idle at the intended start of %d of %d calls: raise --targets or lower --rate", w.Late, w.Intended)
				}
			}
			if gone := r.Failed(unix.ENOSYS); r.Lost > 0 || gone > 0 {
				return fmt.Errorf("%d calls were never answered, %d found no supervisor", r.Lost, gone)
			}
			return nil
		},
	}
	fl := c.Flags()
	fl.StringVar(&connect, "connect", "", "the supervisor's UNIX `socket`")
	fl.IntVar(&targets, "targets", 16, "threads that make trapped calls")
	fl.IntVar(&cpu, "cpu", -1, "pin the targets to this CPU; -1: do not")
	load.register(fl)
	fl.DurationVar(&duration, "duration", time.Second, "of the storm")
	return c
}
