package compare

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// ProfilePlaceholder in a command is where Profile puts the flag for a CPU profile.
// In all other runs it is nothing.
const ProfilePlaceholder = "{profile}"

// A Profile says where the time of a regression went.
type Profile struct {
	Benchmark string `json:"benchmark"`
	// Top are the first lines of what Command prints.
	Top     []string `json:"top"`
	Command string   `json:"command"`
}

// Profiled are how many benchmarks Profile looks at, and how often it runs each side.
const (
	profiledBenchmarks = 3
	profiledRuns       = 10
	profiledLines      = 10
)

// Profile runs both sides of the worst of the regressed benchmarks again, in turn, with
// CPU profiles, which it keeps in a directory, and adds to the report by what they
// differ. Flag is that for which each command takes a file's name after "=":
// -test.cpuprofile for test binaries. It needs the go command for pprof.
func (v *Interleaver) Profile(ctx context.Context, r *Report, flag, dir string) error {
	rows := r.Regressed()
	slices.SortStableFunc(rows, func(a, b *Row) int {
		return int(1e6 * (worsening(b) - worsening(a)))
	})
	s := v.execution([2]io.Writer{})
	var done []string
	for _, row := range rows {
		if slices.Contains(done, row.Benchmark) || len(done) == profiledBenchmarks {
			continue
		}
		done = append(done, row.Benchmark)
		pattern := v.Bench
		if s.alone {
			pattern = Select([]string{row.Benchmark})
		}
		var files [2][]string
		for n := range profiledRuns {
			for side := range 2 {
				if n%2 == 1 {
					side = 1 - side
				}
				file, err := filepath.Abs(filepath.Join(dir, fmt.Sprintf("%s-%d-%d.pprof", [2]string{"old", "new"}[side], len(done), n+1)))
				if err != nil {
					return err
				}
				command := profiling(v.Commands[side], flag, file)
				command = strings.ReplaceAll(command, BenchPlaceholder, quoteWord(pattern))
				command = strings.ReplaceAll(command, BenchtimePlaceholder, v.Benchtime)
				if v.Progress != nil {
					v.Progress(Progress{Command: command, Done: 2 * n, Runs: 2 * profiledRuns})
				}
				if _, _, _, err := runCommand(ctx, command, v.Timeout, true); err != nil {
					return fmt.Errorf("profile %s: %w", row.Benchmark, err)
				}
				if _, err := os.Stat(file); err != nil {
					return fmt.Errorf("profile %s: %q wrote no profile: put {profile} where the command takes %s=FILE", row.Benchmark, command, flag)
				}
				files[side] = append(files[side], file)
			}
		}
		p, err := difference(ctx, row.Benchmark, files)
		if err != nil {
			return fmt.Errorf("profile %s: %w", row.Benchmark, err)
		}
		r.Profiles = append(r.Profiles, p)
	}
	return nil
}

// worsening is how much dearer new is.
func worsening(r *Row) float64 {
	if r.Better == "higher" {
		return 1/(1+float64(r.Change)) - 1
	}
	return float64(r.Change)
}

// profiling puts the flag into a command, at its end if it has no place.
func profiling(command, flag, file string) string {
	word := flag + "=" + quote(file)
	if strings.Contains(command, ProfilePlaceholder) {
		return strings.ReplaceAll(command, ProfilePlaceholder, word)
	}
	return command + " " + word
}

// difference asks pprof by what the two sides differ. It sorts by the time below each
// function: what a slowdown is made of (an allocation, a lock, a miss) is spent in the
// runtime, and who asked for it is what an engineer wants to know.
func difference(ctx context.Context, benchmark string, files [2][]string) (*Profile, error) {
	args := []string{"tool", "pprof", "-top", "-cum", `-hide=^(testing\.|runtime\.(goexit|main|mcall|mstart|schedule|park_m))`}
	for _, f := range files[0] {
		args = append(args, "-diff_base="+f)
	}
	args = append(args, files[1]...)
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "go", args...)
	var said bytes.Buffer
	c.Stderr = &said
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("go tool pprof: %w; it said: %s", err, lastLine(said.String()))
	}
	dir := filepath.Dir(files[0][0])
	p := &Profile{Benchmark: benchmark, Command: fmt.Sprintf("go tool pprof -top -cum -diff_base=%s %s", quote(filepath.Join(dir, filepath.Base(files[0][0]))), quote(files[1][0]))}
	table := false
	for line := range strings.Lines(string(out)) {
		line = strings.TrimRight(line, "\n")
		if table = table || strings.HasPrefix(strings.TrimSpace(line), "flat"); table && len(p.Top) <= profiledLines {
			p.Top = append(p.Top, line)
		}
	}
	if len(p.Top) < 2 {
		return nil, fmt.Errorf("go tool pprof shows no function: the runs are too short for samples of 10 ms")
	}
	return p, nil
}
