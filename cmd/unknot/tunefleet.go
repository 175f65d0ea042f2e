package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/unknot/unknot/bench/record"
	"github.com/unknot/unknot/cmd/unknot/internal/fleet"
	"github.com/unknot/unknot/cmd/unknot/internal/tune"
	"github.com/unknot/unknot/engine"
)

// fleetTimeout bounds all queries together.
const fleetTimeout = 2 * time.Minute

// tuneFleet tunes for several loads, by simulation: recordings, or nodes that a Prometheus has series of.
func (f *tuneFlags) tuneFleet(cmd *cobra.Command) error {
	waitP99, maxDrop, err := f.goal()
	if err != nil {
		return err
	}
	if f.workers < 1 || f.workers > engine.MaxWorkers {
		return usageErrorf("--workers %d: want 1 to %d", f.workers, engine.MaxWorkers)
	}
	for _, name := range []string{"rate", "arrivals", "think", "targets", "rounds", "duration", "confine", "config", "go", "html"} {
		if f.changed(name) {
			return usageErrorf("--%s: several loads are simulated, not stormed; leave it out, or give one --from", name)
		}
	}
	out := cmd.OutOrStdout()
	var nodes []tune.Node
	if f.changed("prometheus") {
		nodes, err = f.fromPrometheus(cmd)
	} else {
		nodes, err = f.fromRecordings(cmd)
	}
	if err != nil {
		return err
	}
	res, err := tune.TuneFleet(nodes, waitP99, maxDrop, f.seed)
	if err != nil {
		return err
	}
	if err := res.Text(out); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	if !res.Holds() {
		return &exitError{1, fmt.Errorf("no one capacity meets wait-p99=%v everywhere: see the rows with a !, or give them a --wait-target", waitP99)}
	}
	return nil
}

func (f *tuneFlags) fromPrometheus(cmd *cobra.Command) ([]tune.Node, error) {
	for _, name := range []string{"from", "work"} {
		if f.changed(name) {
			return nil, usageErrorf("--prometheus and --%s: the series say what the load is; leave one out", name)
		}
	}
	q := f.fleet
	q.Timeout, q.End = fleetTimeout, time.Now()
	if f.changed("workers") {
		q.Workers = f.workers
	}
	if q.Range < time.Minute {
		return nil, usageErrorf("--range %v: want at least 1m, for some scrapes to be in it", q.Range)
	}
	if f.end != "" {
		var err error
		if q.End, err = time.Parse(time.RFC3339, f.end); err != nil {
			return nil, usageErrorf("--end %q: want a time such as 2026-01-02T15:04:05Z", f.end)
		}
	}
	a, err := fleet.Read(cmd.Context(), q)
	w := cmd.OutOrStdout()
	if a != nil {
		fmt.Fprintf(w, "range     %s to %s\n", a.From.UTC().Format(time.RFC3339), a.To.UTC().Format(time.RFC3339))
		for _, asked := range a.Asked {
			fmt.Fprintf(w, "query     %s\n", asked)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("--prometheus: %w", err)
	}
	for _, n := range a.Notes {
		fmt.Fprintf(w, "note      %s\n", n)
	}
	fmt.Fprintln(w)
	return a.Nodes, nil
}

func (f *tuneFlags) fromRecordings(cmd *cobra.Command) (nodes []tune.Node, err error) {
	work, err := f.handlers()
	if err != nil {
		return nil, err
	}
	for _, path := range f.from {
		rec, err := record.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("--from: %w", err)
		}
		n, notes, err := tune.NodeFromRecording(path, rec, f.workers, work)
		if err := unusable(path, err); err != nil {
			return nil, err
		}
		for _, note := range notes {
			fmt.Fprintf(cmd.ErrOrStderr(), "unknot: --from %s: %s\n", path, note)
		}
		if n.Load.Targets == 0 {
			n.Load.Targets = tune.AnyTargets
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}
