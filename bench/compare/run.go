package compare

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/perf/benchproc"
)

// BenchPlaceholder in a command is replaced by a regular expression for -bench:
// by that of the session, or in a confirmation by one that selects the suspects.
const BenchPlaceholder = "{bench}"

// An Interleaver runs two commands in turn, round by round, each a fresh process
// each time, and keeps what they print.
type Interleaver struct {
	Commands [2]string // for sh -c: old, new
	Rounds   int
	Seed     uint64 // of the order
	Session  string // a name that no other session has
	// Bench is what BenchPlaceholder becomes.
	Bench string
	// Timeout bounds each run of a command.
	Timeout time.Duration
	// AllowNew accepts it if the old command prints no results: all may be new.
	AllowNew bool
	// Machine and Details describe this machine in the files: a fingerprint as
	// the key "machine" (the commands' output may overrule it), and comments.
	Machine string
	Details [][2]string
	// Progress, if not nil, is told before each run how many are done.
	Progress func(done, total int, command string)
}

// Run writes the two sides. Everything that a command does but print results is
// an error: to fail, to take too long, to print none, to print half a line. A
// session that fails leaves files without an end, which Compare refuses.
//
// Each command has a process group of its own, which is killed with it.
func (v *Interleaver) Run(ctx context.Context, old, new io.Writer) error {
	sinks := [2]io.Writer{old, new}
	for side, w := range sinks {
		if err := v.begin(w, [2]string{"old", "new"}[side]); err != nil {
			return err
		}
	}
	orders, done := newOrder(v.Seed), 0
	for n := 1; n <= v.Rounds; n++ {
		for i, side := range orders.next() {
			command := strings.ReplaceAll(v.Commands[side], BenchPlaceholder, quoteWord(v.Bench))
			if v.Progress != nil {
				v.Progress(done, 2*v.Rounds, command)
			}
			out, err := runCommand(ctx, command, v.Timeout, v.AllowNew && side == 0)
			if err != nil {
				return fmt.Errorf("round %d: %w", n, err)
			}
			done++
			if err := markRound(sinks[side], n, i+1); err != nil {
				return err
			}
			if _, err := sinks[side].Write(out); err != nil {
				return err
			}
		}
	}
	for _, w := range sinks {
		if err := markEnd(w, v.Session); err != nil {
			return err
		}
	}
	return nil
}

func (v *Interleaver) begin(w io.Writer, side string) error {
	var b bytes.Buffer
	_ = markStart(&b, v.Session, v.Seed, v.Rounds, side)
	for _, d := range v.Details {
		fmt.Fprintf(&b, "%s%s: %s\n", machinePrefix, d[0], strings.ReplaceAll(d[1], "\n", " "))
	}
	if v.Machine != "" {
		fmt.Fprintf(&b, "machine: %s\n", v.Machine)
	}
	_, err := w.Write(b.Bytes())
	return err
}

// quoteWord is quote, but always in quotes: a regular expression is no file name.
func quoteWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// runCommand returns what a command printed, which has at least one result, unless
// there may be nothing.
func runCommand(ctx context.Context, command string, timeout time.Duration, nothing bool) ([]byte, error) {
	run, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("it took longer than %v", timeout))
	defer cancel()
	cmd := exec.CommandContext(run, "sh", "-c", command)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// All of the group: a shell would leave its children behind. SIGTERM lets
	// them remove their temporary files; who ignores it is killed below.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 3 * time.Second
	var out bytes.Buffer
	errs := &tail{limit: 4 << 10}
	cmd.Stdout, cmd.Stderr = &out, errs
	err := cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // whoever is left
	}
	said := ""
	if s := strings.TrimSpace(errs.String()); s != "" {
		said = "; it said: " + s
	}
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("run %q: %w", command, context.Cause(ctx))
	case run.Err() != nil:
		return nil, fmt.Errorf("run %q: %w%s", command, context.Cause(run), said)
	case errors.Is(err, exec.ErrWaitDelay):
		return nil, fmt.Errorf("run %q: it ended and left a process behind that holds its output", command)
	case err != nil:
		if out.Len() > 0 && said == "" {
			said = "; it said: " + lastLine(out.String()) // go test reports failures on its output
		}
		return nil, fmt.Errorf("run %q: %w%s", command, err, said)
	}
	all, err := benchproc.NewFilter("*")
	if err != nil {
		return nil, err
	}
	sides, _, err := read([]Input{{Label: "its output", Data: out.Bytes()}}, all, nothing)
	if err != nil {
		return nil, fmt.Errorf("run %q: %w%s", command, err, said)
	}
	// Marks are the session's own: a command that prints some does not make its rounds.
	return bytes.ReplaceAll(sides[0].text, []byte(markPrefix), []byte("# a command's "+markPrefix[2:])), nil
}

func lastLine(s string) string {
	s = strings.TrimRight(s, "\n")
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// A tail keeps the end of what is written to it.
type tail struct {
	b     []byte
	limit int
}

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if n := len(t.b) - t.limit; n > 0 {
		t.b = slices.Delete(t.b, 0, n)
	}
	return len(p), nil
}

func (t *tail) String() string { return string(t.b) }

var procsSuffix = regexp.MustCompile(`-\d+$`)

// Select is a pattern for `go test -bench` that runs these benchmarks, given as
// results name them. It may run some more: go matches a pattern level by level,
// so all levels that the names share are stated, each with all its values.
func Select(names []string) string {
	var levels []map[string]bool
	var order [][]string
	depth := -1
	for _, name := range names {
		parts := strings.Split("Benchmark"+name, "/")
		if depth < 0 || len(parts) < depth {
			depth = len(parts)
		}
		for i, p := range parts {
			if i == len(order) {
				order, levels = append(order, nil), append(levels, map[string]bool{})
			}
			q := regexp.QuoteMeta(p)
			if i == len(parts)-1 {
				// The suffix is GOMAXPROCS, which the pattern does not see, unless
				// there is none and it belongs to the name.
				if s := procsSuffix.FindString(p); s != "" {
					q = regexp.QuoteMeta(strings.TrimSuffix(p, s)) + "(" + s + ")?"
				}
			}
			if !levels[i][q] {
				levels[i][q] = true
				order[i] = append(order[i], q)
			}
		}
	}
	var out []string
	for i := range max(depth, 0) {
		out = append(out, "^("+strings.Join(order[i], "|")+")$")
	}
	return strings.Join(out, "/")
}
