package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/unknot/unknot/bench/compare"
	"golang.org/x/perf/benchunit"
)

// historyFile is what compare --history appends to.
const historyFile = "history.txt"

func newTrendCmd() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "trend [flags] DIR",
		Short: "show where the results of compare --history changed: slow drifts that no one comparison shows",
		Long: `trend reads the history that compare --history DIR appended to, and shows for each
unit of each benchmark on each machine where its level changed: the first
comparison of the new level with its commit, the medians before and after, and the
chance that the same values in another order look so (2% at most).

Change points are found by E-divisive (Matteson and James 2014), which assumes no
distribution. Each level has four comparisons or more.

Exit codes: 0 shown, 2 wrong usage or a history that cannot be read.`,
		Example: `  unknot compare --run --budget 5m --history ~/history OLD NEW && unknot trend ~/history`,
		Args: cobra.MatchAll(func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("trend of what? name the directory of compare --history; there are %d arguments", len(args))
			}
			return nil
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return usageErrorf("no format %q: there are text and json", format)
			}
			return asExitError(showTrends(cmd, args[0], format))
		},
	}
	c.Flags().StringVar(&format, "format", "text", "text or json")
	return c
}

func showTrends(cmd *cobra.Command, dir, format string) error {
	in, err := compare.ReadFile(filepath.Join(dir, historyFile))
	if err != nil {
		return err
	}
	trends, err := compare.Trends(in)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if format == "json" {
		e := json.NewEncoder(&b)
		e.SetIndent("", "  ")
		if err := e.Encode(trends); err != nil {
			return err
		}
	} else {
		printTrends(&b, trends)
	}
	if _, err := cmd.OutOrStdout().Write(b.Bytes()); err != nil {
		return fmt.Errorf("print trends: %w", err)
	}
	return nil
}

func printTrends(b *bytes.Buffer, trends []*compare.Trend) {
	machine, changed := "", 0
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for i, tr := range trends {
		if i == 0 || tr.Machine != machine {
			fmt.Fprintf(t, "machine: %s\nbenchmark\tunit\tcomparisons\tfirst\tlast\tdrift\tlevels change at\n", tr.Machine)
			machine = tr.Machine
		}
		print := func(v compare.Number) string {
			return benchunit.Scale(float64(v), benchunit.ClassOf(tr.Unit))
		}
		name := tr.Benchmark
		if tr.Pkg != "" {
			name = tr.Pkg + " " + name
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%+.1f%%\t", name, tr.Unit, tr.Values, print(tr.First), print(tr.Last), 100*(float64(tr.Last)/float64(tr.First)-1))
		for k, c := range tr.Changes {
			if k > 0 {
				fmt.Fprint(t, "\n\t\t\t\t\t\t")
			}
			fmt.Fprintf(t, "%s %s: %s to %s, %+.1f%% (p %.3f)", c.Date, c.Commit, print(c.Before), print(c.After), 100*float64(c.Change), float64(c.P))
			changed++
		}
		if len(tr.Changes) == 0 {
			fmt.Fprint(t, "nowhere")
		}
		fmt.Fprintln(t)
	}
	_ = t.Flush()
	fmt.Fprintf(b, "%d changes of level in %d trends\n", changed, len(trends))
}
