package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/spf13/pflag"
	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/bench/record"
	"github.com/unknot/unknot/bench/replay"
	"github.com/unknot/unknot/bench/storm"
)

// loadFlags say what the targets do.
type loadFlags struct {
	think, rates, arrivals, calls, hostile []string
	seed                                   uint64
	profile                                string

	recording *record.Recording // of the profile, once planned
	replay    *replay.Arrivals
	known     error // nil, or why the replay has no services
}

func (f *loadFlags) register(fl *pflag.FlagSet) {
	fl.StringSliceVar(&f.think, "think", []string{"0"}, "what a target does between two calls of a closed loop: 50us of computing, or sleep:50us; 50us~1 varies, with a coefficient of variation of 1")
	fl.StringSliceVar(&f.rates, "rate", nil, "make it an open loop: calls per second, from whichever targets are idle; latencies are from the intended start")
	fl.StringSliceVar(&f.arrivals, "arrivals", []string{"poisson"}, "how the calls of an open loop follow each other: constant, poisson, or onoff:10ms:40ms (bursts and silences of these mean lengths; --rate is the mean over both)")
	fl.StringArrayVar(&f.calls, "calls", []string{storm.Mix{}.String()}, "system calls with their weights, as in openat:3,getppid; several mixes by several flags")
	fl.StringSliceVar(&f.hostile, "hostile", []string{storm.Friendly.String()}, "what befalls the targets of a closed loop while their calls wait: kill (SIGKILL), signal, signal-killable (the same with WAIT_KILLABLE_RECV), fork-exec-exit, preempt (as Go programs are, by their own runtime)")
	fl.StringVar(&f.profile, "profile", "", "repeat the load of this recording, a `file` that unknot record wrote, in an open loop")
	fl.Uint64Var(&f.seed, "seed", 1, "of what is drawn: arrivals, think times, calls")
}

// plan combines the flags.
func (f *loadFlags) plan() (loads []bench.Load, err error) {
	if f.profile != "" {
		return f.planProfile()
	}
	thinks, kinds := []storm.Think{{}}, []storm.Arrivals{nil}
	if f.rates == nil {
		if thinks, err = parseAll("think", f.think, storm.ParseThink); err != nil {
			return nil, err
		}
	} else {
		if !isDefault(f.think, "0") {
			return nil, usageErrorf("--think and --rate: an open loop has no think time; leave one out")
		}
		rates, err := parseAll("rate", f.rates, func(s string) (float64, error) {
			r, err := strconv.ParseFloat(s, 64)
			if err != nil || !(r > 0) || math.IsInf(r, 1) {
				return 0, fmt.Errorf("%q: want calls per second, more than 0", s)
			}
			return r, nil
		})
		if err != nil {
			return nil, err
		}
		kinds = nil
		for _, r := range rates {
			ps, err := parseAll("arrivals", f.arrivals, func(s string) (storm.Process, error) { return storm.ParseProcess(s, r) })
			if err != nil {
				return nil, err
			}
			for _, p := range ps {
				kinds = append(kinds, p)
			}
		}
	}
	hostile, err := parseAll("hostile", f.hostile, storm.ParseHostile)
	if err != nil {
		return nil, err
	}
	if f.rates != nil && slices.ContainsFunc(hostile, func(h storm.Hostile) bool { return h != storm.Friendly }) {
		return nil, usageErrorf("--hostile and --rate: hostile targets are of a closed loop; leave one out")
	}
	mixes, err := parseAll("calls", f.calls, storm.ParseMix)
	if err != nil {
		return nil, err
	}
	for _, t := range thinks {
		for _, k := range kinds {
			for _, m := range mixes {
				for _, h := range hostile {
					loads = append(loads, bench.Load{Think: t, Arrivals: k, Mix: m, Hostile: h})
				}
			}
		}
	}
	return loads, nil
}

// planProfile makes the one load that a recording is.
func (f *loadFlags) planProfile() ([]bench.Load, error) {
	if f.rates != nil || !isDefault(f.think, "0") || !isDefault(f.arrivals, "poisson") || !isDefault(f.calls, storm.Mix{}.String()) || !isDefault(f.hostile, storm.Friendly.String()) {
		return nil, usageErrorf("--profile: the recording says which calls are made when; leave out --rate, --arrivals, --think, --calls and --hostile")
	}
	var err error
	if f.recording, err = record.ReadFile(f.profile); err != nil {
		return nil, fmt.Errorf("--profile: %w", err)
	}
	f.replay, f.known = replay.Of(f.recording)
	return []bench.Load{{Arrivals: f.replay}}, nil
}

func isDefault(list []string, v string) bool { return len(list) == 1 && list[0] == v }

func parseAll[T any](flag string, list []string, parse func(string) (T, error)) (all []T, err error) {
	for _, s := range list {
		v, err := parse(s)
		if err != nil {
			return nil, usageErrorf("--%s: %w", flag, err)
		}
		all = append(all, v)
	}
	if len(all) == 0 {
		return nil, usageErrorf("--%s: the list is empty: name at least one", flag)
	}
	return all, nil
}
