package tune

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/unknot/unknot/bench"
)

// percent prints a part of one with two digits.
func percent(x float64) string { return fmt.Sprintf("%.2g%%", 100*x) }

// FitError is by which part the simulation is off on average.
func (r *Result) FitError() float64 { return math.Exp(r.Fit.Misfit) - 1 }

// Corrected is by which part its 99th percentiles are off once they are corrected.
func (r *Result) Corrected() float64 { return math.Exp(r.Fit.Residual) - 1 }

func verdict(agrees bool) string {
	if agrees {
		return "AGREES"
	}
	return "DISAGREES"
}

// Text writes the answer for a terminal.
func (r *Result) Text(w io.Writer) error {
	var b strings.Builder
	line := func(head, format string, args ...any) {
		fmt.Fprintf(&b, "%-11s%s\n", head, fmt.Sprintf(format, args...))
	}
	q := r.Request
	line("service", "mean %s  CV %.2g   (%d workers; %+.0fns per call in flight)", bench.Duration(r.Service.Mean), r.Service.CV, q.Workers, r.Fit.Service.Slope)
	line("capacity", "%.0f calls/s (95%% CI %.0f–%.0f)   knee at %.0f targets (95%% CI %.0f–%.0f)", r.Capacity, r.CapacityLow, r.CapacityHigh, r.Knee, r.KneeLow, r.KneeHigh)
	line("depth", "recommend %d   (%s)", r.Chosen.Capacity, r.bounds())
	line("fit", "the simulation is off by %s on average, its p99 by %s once corrected", percent(r.FitError()), percent(r.Corrected()))
	line("predicted", "wait p99 %s  drops %s at %.0f/s", bench.Duration(r.Chosen.P99), percent(r.Chosen.Drop), r.Chosen.Goodput)
	process := ""
	for _, c := range r.Checks {
		if c.Process != process {
			process = c.Process
			fmt.Fprintf(&b, "\n%s, %d threads, %d rounds\n%9s  %11s %11s %23s  %7s %7s  %9s\n", process, q.Load.Targets, c.Rounds, "capacity", "predicted", "measured", "[range] of wait p99", "drops", "drops", "served/s")
		}
		mark := " "
		if c.Chosen {
			mark = "*"
		}
		target := ""
		if !c.Measured.Meets {
			target = "  misses the target"
		}
		capacity := strconv.Itoa(c.Capacity)
		if c.Target {
			capacity = "target"
		}
		fmt.Fprintf(&b, "%s%8s  %11s %11s %23s  %7s %7s  %9.0f  %s%s\n", mark, capacity, bench.Duration(c.Predicted.P99), bench.Duration(c.Measured.P99),
			"["+bench.Duration(c.P99Low)+", "+bench.Duration(c.P99High)+"]", percent(c.Predicted.Drop), percent(c.Measured.Drop), c.Measured.Goodput, verdict(c.Agrees), target)
	}
	b.WriteByte('\n')
	line("or", "--wait-target %v, without a capacity: %s", q.WaitP99, r.alone())
	_, err := io.WriteString(w, b.String())
	return err
}

// alone is how the wait target did beside the chosen capacity, under the load itself.
func (r *Result) alone() string {
	var fixed, target *Check
	for i := range r.Checks {
		c := &r.Checks[i]
		if c.Process != r.Checks[0].Process {
			break
		}
		if c.Chosen {
			fixed = c
		}
		if c.Target {
			target = c
		}
	}
	if fixed == nil || target == nil {
		return "not verified"
	}
	return fmt.Sprintf("wait p99 %s, %.3f times what capacity %d serves, drops %s; it follows the load, and this capacity does not",
		bench.Duration(target.Measured.P99), target.Measured.Goodput/fixed.Measured.Goodput, fixed.Capacity, percent(target.Measured.Drop))
}

// bounds are those of the capacity.
func (r *Result) bounds() string {
	s := fmt.Sprintf("deadline bound %d, ", r.Deadline)
	if a := r.Request.Load.Arrivals; !a.Open() {
		return s + fmt.Sprintf("targets %d", r.Request.Load.Targets)
	} else if !bursts(a) {
		return s + "no bursts"
	}
	return s + fmt.Sprintf("burst bound %d", r.Burst)
}

// Settings is the answer as settings for `unknot run --config`.
func (r *Result) Settings() string {
	return fmt.Sprintf("# for wait-p99=%v; %s\nqueue: %d\nworkers: %d\npolicy: drop-oldest\npace: auto\n# Or, in place of queue, so that the engine follows the load:\n# wait-target: %v\n", r.Request.WaitP99, r.summary(), r.Chosen.Capacity, r.Request.Workers, r.Request.WaitP99)
}

// Go is the answer as a Go file.
func (r *Result) Go() string {
	return fmt.Sprintf(`package main

import (
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/policy"
)

// engineConfig is for wait-p99=%v; %s
func engineConfig(h engine.Handler) engine.Config {
	return engine.Config{
		Handler: h,
		Queue:   %d,
		Workers: %d,
		Policy:  policy.DropOldest,
	}
}
`, r.Request.WaitP99, r.summary(), r.Chosen.Capacity, r.Request.Workers)
}

func (r *Result) summary() string {
	for _, c := range r.Checks {
		if c.Chosen {
			return fmt.Sprintf("measured: wait p99 %s, drops %s, %.0f calls/s under %s", bench.Duration(c.Measured.P99), percent(c.Measured.Drop), c.Measured.Goodput, r.Request.Load)
		}
	}
	return "not verified"
}

// ParseTarget reads what is asked for: wait-p99=200us.
func ParseTarget(s string) (time.Duration, error) {
	name, value, ok := strings.Cut(s, "=")
	if !ok || name != "wait-p99" {
		return 0, fmt.Errorf("target %q: the one there is, is wait-p99=DURATION, the 99th percentile of the time from receive to dispatch, as in wait-p99=200us", s)
	}
	d, err := time.ParseDuration(value)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("target %q: want a duration above 0, as in wait-p99=200us", s)
	}
	return d, nil
}
