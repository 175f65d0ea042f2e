package main

import (
	"errors"
	"fmt"
	"io"
	"os"
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
		return &exitError{1, fmt.Errorf("no one capacity meets wait-p99=%v everywhere: see the rows with a !, and whether a --wait-target alone does", waitP99)}
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
	said := map[string]int{} // a note on some parts of a file is for all of them
	note := func(name, path, text string) {
		if said[path+text]++; said[path+text] == 1 {
			fmt.Fprintf(cmd.ErrOrStderr(), "unknot: --from %s: %s\n", name, text)
		}
	}
	add := func(name, path string, rec *record.Recording) error {
		n, notes, err := tune.NodeFromRecording(name, rec, f.workers, work)
		switch {
		case err != nil && name == path:
			return unusable(name, err)
		case err != nil:
			note(name, path, "left out, as may be others: "+err.Error())
			return nil
		}
		for _, text := range notes {
			note(name, path, text)
		}
		if n.Load.Targets == 0 {
			n.Load.Targets = tune.AnyTargets
		}
		nodes = append(nodes, n)
		return nil
	}
	for _, path := range f.from {
		s, err := openSamples(path)
		if err != nil {
			return nil, err
		}
		if s == nil {
			rec, err := record.ReadFile(path)
			if err != nil {
				return nil, fmt.Errorf("--from: %w", err)
			}
			if err := add(path, path, rec); err != nil {
				return nil, err
			}
			continue
		}
		err = fromSamples(cmd.ErrOrStderr(), path, s, add)
		_ = s.Close()
		if err != nil {
			return nil, fmt.Errorf("--from: %w", err)
		}
	}
	if len(nodes) == 0 {
		return nil, errors.New("--from: no part of the samples is a load to tune for: see above")
	}
	return nodes, nil
}

// openSamples opens a file of several recordings; nil if it is no such one.
func openSamples(path string) (*record.Samples, error) {
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return nil, nil // reading it says what is wrong, if anything is
	}
	s, err := record.OpenSamples(path)
	if err != nil {
		return nil, fmt.Errorf("--from: %w", err)
	}
	if s.Len() == 1 {
		_ = s.Close()
		return nil, nil
	}
	return s, nil
}

// sampled reports whether one of the files is of samples.
func (f *tuneFlags) sampled() (bool, error) {
	for _, path := range f.from {
		s, err := openSamples(path)
		if err != nil {
			return false, err
		}
		if s != nil {
			_ = s.Close()
			return true, nil
		}
	}
	return false, nil
}

const (
	// samplesParts is into how many parts the samples of a file are divided at most, each of which is a row.
	samplesParts = 24
	// partBytes is how much of a part is looked at: some 30,000 calls, as many as are simulated.
	partBytes = 400_000
)

// fromSamples makes parts of a file of samples: those of a time of the day together, since their load is alike.
func fromSamples(stderr io.Writer, path string, s *record.Samples, add func(name, path string, rec *record.Recording) error) error {
	if s.Cut > 0 {
		fmt.Fprintf(stderr, "unknot: --from %s: the last %d bytes are no whole sample, and left out\n", path, s.Cut)
	}
	parts := min(samplesParts, s.Len())
	for part := range parts {
		from, to := s.Len()*part/parts, s.Len()*(part+1)/parts
		bytes := int64(0)
		for i := from; i < to; i++ {
			bytes += s.Size(i)
		}
		var all []*record.Recording
		step := int(min(bytes/partBytes+1, int64(to-from)))
		for i := from; i < to; i += step {
			r, err := s.Read(i)
			if err != nil {
				return err
			}
			all = append(all, r)
		}
		name := fmt.Sprintf("%s %s", path, all[0].Start.Format("01-02T15:04:05Z"))
		switch n := to - from; {
		case step > 1:
			name += fmt.Sprintf(" (%d of %d)", len(all), n)
		case n > 1:
			name += fmt.Sprintf(" (%d)", n)
		}
		if err := add(name, path, record.Join(all)); err != nil {
			return err
		}
	}
	return nil
}
