package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/bench/record"
	"github.com/unknot/unknot/bench/replay"
	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/bench/trace"
	"github.com/unknot/unknot/engine"
)

// What bench --profile takes from the recording instead of its defaults.

// profileWork has the handlers work as recorded, unless --work says how.
func (f *benchFlags) profileWork(works []bench.Work) ([]bench.Work, error) {
	if f.load.recording == nil || f.changed("work") {
		return works, nil
	}
	if err := f.load.known; errors.Is(err, replay.ErrServiceUnknown) {
		return nil, fmt.Errorf("--profile %s: %w; say how long handlers take: --work", f.load.profile, err)
	} else if err != nil {
		return nil, err
	}
	return []bench.Work{{Tagged: true}}, nil
}

// profileTargets has enough threads, which an open loop never runs out of, and
// storms for as long as was recorded, but for 10 s at most.
func (f *benchFlags) profileTargets(targets *[]int, queues, workers []int) {
	r := f.load.recording
	if r == nil {
		return
	}
	if !f.changed("targets") {
		// Those that are held up at once, if the replay is served as was recorded, and
		// those that a queue of ours holds if it is not.
		n := 2*r.InFlight().Max + 2*slices.Max(queues) + slices.Max(workers)
		*targets = []int{min(max(n, 32), storm.MaxTargets)}
	}
	if !f.changed("duration") {
		f.duration = min(max(r.Elapsed, 100*time.Millisecond), 10*time.Second)
	}
}

// profileSummary storms once more, records that, and says how near the replay came
// to the recording, by the same clocks and at the same cost.
func (f *benchFlags) profileSummary(ctx context.Context, w io.Writer, specs []bench.Spec) error {
	if f.load.recording == nil || ctx.Err() != nil {
		return nil
	}
	if err := trace.Probe(); err != nil {
		fmt.Fprintf(w, "\nunknot: how near the replay came is not known: %v\n", err)
		return nil
	}
	for _, s := range specs {
		if s.Path == bench.PathQueue {
			s.CheckAfter = engine.AlwaysCheck
		}
		got, err := recordReplay(ctx, s, f.duration)
		if err != nil {
			return fmt.Errorf("record the replay: %w", err)
		}
		fmt.Fprintf(w, "\nreplay of %s by %s, recorded again:\n", f.load.profile, s.Name())
		compareRecordings(w, f.load.recording, got)
	}
	return nil
}

func recordReplay(ctx context.Context, s bench.Spec, d time.Duration) (*record.Recording, error) {
	until, end := context.WithCancel(ctx)
	defer end()
	type outcome struct {
		r   *record.Recording
		err error
	}
	done, begun := make(chan outcome, 1), make(chan struct{})
	go func() {
		r, err := record.Record(until, record.Config{PID: os.Getpid(), MaxCalls: record.MaxCalls, Begun: func() { close(begun) }})
		done <- outcome{r, err}
	}()
	select {
	case <-begun:
	case got := <-done:
		return got.r, got.err
	}
	res, err := bench.Once(ctx, s, d, false)
	end()
	got := <-done
	if err != nil {
		return nil, err
	}
	if err := res.Void(); err != nil {
		return nil, fmt.Errorf("void: %w", err)
	}
	return got.r, got.err
}

// compareRecordings prints what the replay is to reproduce, and what follows from it.
func compareRecordings(w io.Writer, a, b *record.Recording) {
	rate := func(r *record.Recording) float64 { // between its first and its last call
		first, last := r.Calls[0].Arrival, r.Calls[len(r.Calls)-1].Arrival
		return float64(len(r.Calls)-1) / (float64(last-first) / 1e9)
	}
	row := func(what string, x, y float64, show func(float64) string) {
		fmt.Fprintf(w, "%-13s recorded %9s  replayed %9s  %+.1f%%\n", what, show(x), show(y), 100*(y/x-1))
	}
	perSecond := func(x float64) string { return fmt.Sprintf("%.0f/s", x) }
	row("arrivals", rate(a), rate(b), perSecond)
	sa, sb := a.Service(), b.Service()
	if sa.Times == nil || sb.Times == nil {
		fmt.Fprintln(w, "service       unknown")
		return
	}
	row("service p50", sa.Times.Quantile(.5), sb.Times.Quantile(.5), bench.Duration)
	row("service p99", sa.Times.Quantile(.99), sb.Times.Quantile(.99), bench.Duration)
	row("on a CPU p50", sa.Computing.Quantile(.5), sb.Computing.Quantile(.5), bench.Duration)
	fa, fb := a.InFlight(), b.InFlight()
	row("in flight", fa.Mean, fb.Mean, func(x float64) string { return fmt.Sprintf("%.1f", x) })
}
