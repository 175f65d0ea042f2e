package main

import (
	"context"
	"fmt"
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
		connect         string
		targets, cpu    int
		think, duration time.Duration
	)
	c := &cobra.Command{
		Use:   "storm --connect socket",
		Short: "storm a supervisor of your own with trapped calls",
		Long: `storm makes trapped system calls (getppid) from many threads, for any supervisor
that listens on a UNIX stream socket: it connects, passes the listener of its
filter in one message with one byte (SCM_RIGHTS), and starts when it has read one
byte back. At the end it prints what the targets saw: calls answered with a value,
and those that failed, by errno.

Exit codes: 0 every call was answered, 1 some were not or the supervisor is gone,
2 wrong usage.`,
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
			case think < 0:
				return usageErrorf("--think %v: want 0 or more", think)
			case cpu < -1:
				return usageErrorf("--cpu %d: want a CPU's number, or -1 for all", cpu)
			}
			ctx := cmd.Context()
			conn, err := net.Dial("unix", connect)
			if err != nil {
				return fmt.Errorf("reach the supervisor: %w", err)
			}
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })() // an interrupt ends the wait
			s, err := storm.Start(ctx, storm.Config{Targets: targets, Think: think, CPU: storm.CPU(cpu + 1)})
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
			case <-time.After(duration):
			case <-ctx.Done():
			}
			if err := stop(); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "targets %d: %.0f calls/s, %v, lost %d, round trip p50 %s p99 %s\n",
				targets, float64(r.Calls())/r.Elapsed.Seconds(), r.Counts, r.Lost,
				bench.Duration(r.RoundTrip.Quantile(.5)), bench.Duration(r.RoundTrip.Quantile(.99)))
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
	fl.DurationVar(&think, "think", 0, "time that a thread computes between two calls")
	fl.DurationVar(&duration, "duration", time.Second, "of the storm")
	return c
}
