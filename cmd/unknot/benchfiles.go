package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"runtime/pprof"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/bench/trace"
	"github.com/unknot/unknot/engine/hist"
)

// benchFiles are what bench writes beside its results: what a line of a benchmark
// cannot hold.
type benchFiles struct {
	hdr, stages, cpuProfile string

	profile bytes.Buffer
}

func (f *benchFiles) register(fl *pflag.FlagSet) {
	fl.StringVar(&f.hdr, "hdr", "", "write the percentiles of the round trips (open loop: from the intended start and from the call) to this `file`, for HdrHistogram's plotter")
	fl.StringVar(&f.stages, "stages", "", "trace another storm of each combination and write its stages to this `file`, a line of json each (see unknot trace)")
	fl.StringVar(&f.cpuProfile, "cpuprofile", "", "write a CPU profile of the supervisors, for go tool pprof, to this `file`")
}

// check refuses now what would fail after the measuring.
func (f *benchFiles) check(c *cobra.Command) error {
	for flag, path := range map[string]string{"hdr": f.hdr, "stages": f.stages, "cpuprofile": f.cpuProfile} {
		if !c.Flags().Changed(flag) {
			continue
		}
		if err := checkFile(flag, path); err != nil {
			return err
		}
	}
	if f.stages != "" {
		if err := trace.Probe(); err != nil {
			return fmt.Errorf("--stages: %w", err)
		}
	}
	return nil
}

// startProfile begins the CPU profile, if one is wanted; stopProfile ends it, and may be called again.
func (f *benchFiles) startProfile() error {
	if f.cpuProfile == "" {
		return nil
	}
	return pprof.StartCPUProfile(&f.profile)
}

func (f *benchFiles) stopProfile() {
	if f.cpuProfile != "" {
		pprof.StopCPUProfile()
	}
}

func (f *benchFiles) writeProfile() error {
	if f.cpuProfile == "" {
		return nil
	}
	f.stopProfile()
	return writeWhole(f.cpuProfile, f.profile.Bytes())
}

// writeHDR writes the distributions of all rounds of each spec. What is void is
// not in them.
func (f *benchFiles) writeHDR(specs []bench.Spec, results []*bench.Result) error {
	if f.hdr == "" {
		return nil
	}
	var b bytes.Buffer
	for _, s := range specs {
		corrected, roundTrip := new(hist.Snapshot), new(hist.Snapshot)
		for _, r := range results {
			if r.Spec == s && r.Void() == nil {
				corrected.Merge(r.Corrected)
				roundTrip.Merge(r.RoundTrip)
			}
		}
		if corrected.Count > 0 && s.Load.Loop() == bench.LoopOpen {
			if err := printHDR(&b, "corrected round trip of "+s.Name(), corrected); err != nil {
				return err
			}
		}
		if roundTrip.Count > 0 {
			if err := printHDR(&b, "round trip of "+s.Name(), roundTrip); err != nil {
				return err
			}
		}
	}
	return writeWhole(f.hdr, b.Bytes())
}

// writeStages traces a storm of each spec.
func (f *benchFiles) writeStages(cmd *cobra.Command, b *benchFlags, specs []bench.Spec) error {
	if f.stages == "" {
		return nil
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	p := newProgress(cmd.ErrOrStderr(), len(specs))
	defer p.clear()
	for i, s := range specs {
		p.show(i, "stages of "+s.Name())
		r, err := bench.Stages(cmd.Context(), s, b.duration)
		if err != nil {
			return fmt.Errorf("--stages: %w", err)
		}
		if err := enc.Encode(stagesOf(s.Name(), r)); err != nil {
			return err
		}
	}
	return writeWhole(f.stages, out.Bytes())
}

// stagesOf is a line of --stages: the stages as `unknot trace --format json` prints
// them, but for the buckets.
func stagesOf(name string, r *trace.Report) any {
	stages := (&traceReport{Report: r, stages: true}).jsonStages()
	for i := range stages {
		stages[i].Buckets = nil
	}
	return struct {
		Benchmark string      `json:"benchmark"`
		Elapsed   int64       `json:"elapsed_ns"`
		Lost      uint64      `json:"lost"` // calls that are in no stage though they should be
		Stages    []jsonStage `json:"stages"`
	}{name, r.Elapsed.Nanoseconds(), r.Overflow + r.Missed + r.Unmatched + r.Unjoined + r.Broken, stages}
}
