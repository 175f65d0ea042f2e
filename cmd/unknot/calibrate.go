package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/unknot/unknot/bench/compare"
)

func newCalibrateCmd() *cobra.Command {
	var s sessionFlags
	var comparisons int
	var output, format string
	c := &cobra.Command{
		Use:   "calibrate [flags] COMMAND",
		Short: "measure this machine's noise floor: compare a command with itself",
		Long: `calibrate runs a shell command that prints Go benchmark results against itself, in
the same order as compare --run would, for as many rounds as --comparisons
comparisons of --rounds rounds have. The noise floor of a unit of a benchmark is
the largest change that any of these comparisons estimates, where there is none.

compare tests against no less than 1.5 times the floor (its --floor-factor), and
does not pass where the floor is above its threshold. The floor is kept in
results/MACHINE/floor.json, of this machine (see: version --machine), with the
fingerprint of what the figures depend on; compare refuses it when that changes.

Exit codes: 0 the floor is written, 2 wrong usage or a command that failed.`,
		Example: `  unknot calibrate --rounds 50 'unknot bench --engine unknot --path inline --targets 1 --duration 200ms --count 1'
  unknot calibrate -o floor.json 'go test -run "^$" -bench . -benchtime 100ms ./...'`,
		Args: cobra.MatchAll(func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("calibrate what? name one shell command, in quotes; there are %d arguments", len(args))
			}
			return nil
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return usageErrorf("no format %q: there are text and json", format)
			}
			if err := s.check(); err != nil {
				return err
			}
			if comparisons < 1 || comparisons > 1000 {
				return usageErrorf("--comparisons %d: want 1 to 1000", comparisons)
			}
			if output == "" {
				output = floorPath()
				if err := os.MkdirAll(filepath.Dir(output), 0o777); err != nil {
					return asExitError(fmt.Errorf("make a place for the floor: %w", err))
				}
			}
			return asExitError(calibrate(cmd, &s, comparisons, args[0], output, format))
		},
	}
	fl := c.Flags()
	s.add(fl.IntVar, fl.Uint64Var, fl.DurationVar, fl.StringVar)
	fl.IntVar(&comparisons, "comparisons", 10, "how many comparisons the floor is the largest change of")
	fl.StringVarP(&output, "output", "o", "", "`file` to write (default results/MACHINE/floor.json)")
	fl.StringVar(&format, "format", "text", "of what is printed: text or json")
	return c
}

func calibrate(cmd *cobra.Command, s *sessionFlags, comparisons int, command, output, format string) error {
	if err := checkOutput(output); err != nil {
		return err
	}
	v := s.interleaver(cmd, [2]string{command, command}, s.rounds*comparisons)
	var a, b bytes.Buffer
	if err := runSession(cmd, v, &a, &b); err != nil {
		return err
	}
	floor, err := compare.Calibrate(compare.Input{Label: "first", Data: a.Bytes()}, compare.Input{Label: "second", Data: b.Bytes()}, s.rounds)
	if err != nil {
		return err
	}
	floor.Date, floor.Command, floor.Seed = time.Now().UTC().Truncate(time.Second), command, v.Seed
	file, err := floor.Encode()
	if err != nil {
		return err
	}
	if err := writeWhole(output, file); err != nil {
		return err
	}
	var out bytes.Buffer
	if format == "json" {
		out.Write(file)
	} else {
		fmt.Fprintf(&out, "noise floor: %s (%d comparisons of %d rounds, order seed %d)\n", output, floor.Comparisons, floor.Rounds, floor.Seed)
		t := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
		fmt.Fprintf(t, "  benchmark\tunit\tfloor\n")
		for _, r := range floor.Rows {
			fmt.Fprintf(t, "  %s\t%s\t%.1f%%\n", r.Benchmark, r.Unit, 100*r.Floor)
		}
		_ = t.Flush()
	}
	if _, err := cmd.OutOrStdout().Write(out.Bytes()); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	return nil
}
