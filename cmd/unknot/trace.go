package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/unknot/unknot/bench/trace"
	"github.com/unknot/unknot/cmd/unknot/internal/rules"
)

// traceSettings are trace's flags.
type traceSettings struct {
	pid                int
	all                bool
	interval, duration time.Duration
	format             string
	sample             int
	explain, bars      bool
	dropErrno          string
}

func newTraceCmd() *cobra.Command {
	s := traceSettings{format: "text", sample: 1, dropErrno: "EINTR"}
	c := &cobra.Command{
		Use:   "trace (-p pid | --all)",
		Short: "say where the time of each trapped call goes, in any supervisor",
		Long: `trace follows every call of a supervisor's targets, from the trap until the target
runs again, by eBPF on the kernel's tracepoints. It needs nothing from the
supervisor, which may be any program that uses the notify ioctls. -p names the
supervisor (the process that receives), not its targets; --all takes every
supervisor on the machine together.

The report comes at the end: of the supervisor, of --duration, or at an interrupt.
With --interval there is one for each interval too.

Stages follow each other without a gap, from one sys_exit of the target to its next.
"wait" needs a supervisor that asks ID_VALID when it starts on a call; in others
"service" begins with the receive.
The mean number in flight is held against Little's law. What was lost is said.

Tracing slows the supervisor and, a little, every system call on the machine.
--sample 16 follows one call in 16. --explain also splits the slowest call into
causes that add up to all of its time.

Privileges: root, or CAP_BPF and CAP_PERFMON. The stages need Linux 5.18 with BTF;
on a kernel without BTF there are receive, dispatch and answer only.

Exit codes: 0 success, 1 failure, 2 wrong usage.`,
		Example: `  unknot trace -p $(pidof my-supervisor) --duration 5s
  unknot trace --all --interval 1s --format json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("bars") {
				s.bars = isTerminal(cmd.OutOrStdout())
			}
			return traceSupervisor(cmd, &s)
		},
	}
	fl := c.Flags()
	fl.IntVarP(&s.pid, "pid", "p", 0, "the supervisor's process `id`")
	fl.BoolVar(&s.all, "all", false, "trace every supervisor on the machine")
	fl.DurationVar(&s.interval, "interval", 0, "report each time that this has passed; 0: at the end only")
	fl.DurationVar(&s.duration, "duration", 0, "how long to trace; 0: until an interrupt")
	fl.StringVar(&s.format, "format", s.format, "text, json (a line for each report), or hdr (percentiles for HdrHistogram's plotter)")
	fl.IntVar(&s.sample, "sample", s.sample, "follow one call in so many")
	fl.BoolVar(&s.explain, "explain", false, "split the slowest call into causes")
	fl.BoolVar(&s.bars, "bars", false, "draw each stage's distribution (default: on a terminal)")
	fl.StringVar(&s.dropErrno, "drop-errno", s.dropErrno, "what the supervisor answers to calls that it drops, by `name`")
	return c
}

// config checks the flags.
func (s *traceSettings) config() (cfg trace.Config, err error) {
	switch {
	case s.pid != 0 && s.all:
		return cfg, usageErrorf("-p and --all: which of them?")
	case s.pid == 0 && !s.all:
		return cfg, usageErrorf("trace which supervisor? -p PID or --all%s", listenerHolders())
	case s.pid < 0:
		return cfg, usageErrorf("-p %d: want a process id", s.pid)
	case s.interval < 0 || s.interval > 0 && s.interval < 10*time.Millisecond:
		return cfg, usageErrorf("--interval %v: want 0, or 10ms and more", s.interval)
	case s.duration < 0:
		return cfg, usageErrorf("--duration %v: want 0 or more", s.duration)
	case s.sample < 1:
		return cfg, usageErrorf("--sample %d: want 1 or more", s.sample)
	case s.format != "text" && s.format != "json" && s.format != "hdr":
		return cfg, usageErrorf("no format %q: there are text, json and hdr", s.format)
	}
	errno, ok := rules.Errno(s.dropErrno)
	if !ok {
		return cfg, usageErrorf("--drop-errno %q: want an errno's name, such as EINTR or EAGAIN", s.dropErrno)
	}
	return trace.Config{TGID: s.pid, DropErrno: errno, Stages: true, Explain: s.explain, Sample: s.sample}, nil
}

// listenerHolders names the processes that hold a listener, as far as this user sees.
func listenerHolders() string {
	var found []string
	for _, h := range trace.ListenerHolders() {
		if len(found) == 8 {
			found = append(found, "more")
			break
		}
		found = append(found, strings.TrimSpace(strconv.Itoa(h.PID)+" "+h.Name))
	}
	if len(found) == 0 {
		return ""
	}
	return " (listeners are held by " + strings.Join(found, ", ") + ")"
}

// A traceReport is what is printed: an interval, or the whole.
type traceReport struct {
	*trace.Report
	occupancy *trace.Occupancy
	settings  *traceSettings
	who       string
	stages    bool
	whole     bool
}

func traceSupervisor(cmd *cobra.Command, s *traceSettings) error {
	cfg, err := s.config()
	if err != nil {
		return err
	}
	who := "every supervisor"
	var sup *trace.Process
	if s.pid != 0 {
		if sup, err = trace.OpenProcess(s.pid); err != nil {
			return err
		}
		defer sup.Close()
		who = nameProcess(s.pid, sup) // it may be gone at the end
	}
	t, err := trace.Start(cfg)
	if err != nil {
		return err
	}
	defer t.Close()
	ctx := cmd.Context()
	if s.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.duration)
		defer cancel()
	}
	stderr := cmd.ErrOrStderr()
	holds := sup == nil || sup.HoldsListener()
	if !holds {
		fmt.Fprintf(stderr, "unknot: %s holds no listener yet: -p wants the supervisor%s\n", who, listenerHolders())
	}
	if !t.Stages() {
		fmt.Fprintln(stderr, "unknot: this kernel has no BTF (CONFIG_DEBUG_INFO_BTF): receive, dispatch and answer only")
	}
	print := func(r *traceReport) error { return r.print(cmd.OutOrStdout()) }

	var whole *trace.Report
	add := func(r *trace.Report) {
		if whole == nil {
			whole = r
		} else {
			whole.Merge(r)
		}
	}
	all, now := new(trace.Occupancy), new(trace.Occupancy)
	var reportAt time.Time
	if s.interval > 0 {
		reportAt = time.Now().Add(s.interval)
	}
	for ctx.Err() == nil {
		// Looks that follow no rhythm, lest it be the supervisor's.
		d := 2*time.Millisecond + rand.N(8*time.Millisecond)
		if s.interval > 0 {
			d = min(d, max(0, time.Until(reportAt)))
		}
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
		n, err := t.InFlight()
		if err != nil {
			return err
		}
		all.Look(n)
		now.Look(n)
		if sup != nil && sup.Ended() {
			fmt.Fprintf(stderr, "unknot: process %d has ended\n", s.pid)
			break
		}
		if s.interval > 0 && !time.Now().Before(reportAt) {
			r, err := t.Take()
			if err != nil {
				return err
			}
			if err := print(&traceReport{Report: r, occupancy: now, settings: s, who: who, stages: t.Stages()}); err != nil {
				return err
			}
			add(r)
			now = new(trace.Occupancy)
			reportAt = reportAt.Add(s.interval)
		}
	}
	r, err := t.Take()
	if err != nil {
		return err
	}
	add(r)
	if err := print(&traceReport{Report: whole, occupancy: all, settings: s, who: who, stages: t.Stages(), whole: true}); err != nil {
		return err
	}
	switch {
	case whole.Seen+whole.Unmatched > 0 || s.pid == 0:
	case !holds && !sup.HoldsListener():
		return fmt.Errorf("trace %s: it received nothing and holds no listener", who)
	default:
		fmt.Fprintf(stderr, "unknot: %s received nothing\n", who)
	}
	return nil
}

// nameProcess is a process's number, with its name where that is known.
func nameProcess(pid int, p *trace.Process) string {
	if name := p.Name(); name != "" {
		return fmt.Sprintf("process %d (%s)", pid, name)
	}
	return fmt.Sprintf("process %d", pid)
}
