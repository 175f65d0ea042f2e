package main

import (
	"fmt"
	"math"
	"strconv"

	"github.com/spf13/pflag"
	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/bench/storm"
)

// loadFlags say what the targets do.
type loadFlags struct {
	think, rates, arrivals, calls []string
	seed                          uint64
}

func (f *loadFlags) register(fl *pflag.FlagSet) {
	fl.StringSliceVar(&f.think, "think", []string{"0"}, "what a target does between two calls of a closed loop: 50us of computing, or sleep:50us; 50us~1 varies, with a coefficient of variation of 1")
	fl.StringSliceVar(&f.rates, "rate", nil, "make it an open loop: calls per second, from whichever targets are idle; latencies are from the intended start")
	fl.StringSliceVar(&f.arrivals, "arrivals", []string{"poisson"}, "how the calls of an open loop follow each other: constant, poisson, or onoff:10ms:40ms (bursts and silences of these mean lengths; --rate is the mean over both)")
	fl.StringArrayVar(&f.calls, "calls", []string{storm.Mix{}.String()}, "system calls with their weights, as in openat:3,getppid; several mixes by several flags")
	fl.Uint64Var(&f.seed, "seed", 1, "of what is drawn: arrivals, think times, calls")
}

// plan combines the flags.
func (f *loadFlags) plan() (loads []bench.Load, err error) {
	thinks, kinds := []storm.Think{{}}, []storm.Arrivals{nil}
	if f.rates == nil {
		if thinks, err = parseAll("think", f.think, storm.ParseThink); err != nil {
			return nil, err
		}
	} else {
		if len(f.think) != 1 || f.think[0] != "0" {
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
	mixes, err := parseAll("calls", f.calls, storm.ParseMix)
	if err != nil {
		return nil, err
	}
	for _, t := range thinks {
		for _, k := range kinds {
			for _, m := range mixes {
				loads = append(loads, bench.Load{Think: t, Arrivals: k, Mix: m})
			}
		}
	}
	return loads, nil
}

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
