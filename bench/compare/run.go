package compare

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
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

// BenchtimePlaceholder in a command is replaced by the session's time for -benchtime,
// and where a benchmark runs alone by the number of iterations that take about that
// long. To find that number is about half of what go test does with a benchmark, so
// that twice as many pairs fit into a budget; and both sides of a pair do the same.
const BenchtimePlaceholder = "{benchtime}"

// An Interleaver runs two commands in turn, round by round, each a fresh process
// each time, and keeps what they print. Where both commands have BenchPlaceholder,
// each benchmark runs alone, so that the two sides of a pair lie as close together as
// they can.
type Interleaver struct {
	Commands [2]string // for sh -c: old, new
	Rounds   int
	// Limit, if not 0, ends the rounds after the fifth when it is over.
	Limit   time.Duration
	Seed    uint64 // of the order
	Session string // a name that no other session has
	// Bench is what BenchPlaceholder becomes.
	Bench string
	// Benchtime is what BenchtimePlaceholder becomes: a time, or iterations as 100x.
	Benchtime string
	// Timeout bounds each run of a command.
	Timeout time.Duration
	// AllowNew accepts it if the old command prints no results: all may be new.
	AllowNew bool
	// Machine and Details describe this machine in the files: a fingerprint as
	// the key "machine" (the commands' output may overrule it), and comments.
	Machine string
	Details [][2]string
	// Header is what else the two files say of themselves: keys and values.
	Header [2][][2]string
	// Progress, if not nil, is told before each run how things are.
	Progress func(Progress)
}

// Progress is how far a session is.
type Progress struct {
	Command       string
	Done, Runs    int // runs of a command; Runs is 0 with a budget
	Decided, Rows int // with a budget: rows that have a verdict, of those that decide
	Left          time.Duration
}

// Run writes the two sides. Everything that a command does but print results is
// an error: to fail, to take too long, to print none, to print half a line. A
// session that fails leaves files without an end, which Compare refuses.
//
// Each command has a process group of its own, which is killed with it.
func (v *Interleaver) Run(ctx context.Context, old, new io.Writer) error {
	s := v.execution([2]io.Writer{old, new})
	rounds := v.Rounds
	if v.Limit > 0 {
		rounds = 0 // nobody knows yet
	}
	if err := s.begin(rounds, 0); err != nil {
		return err
	}
	for start := time.Now(); s.round < v.Rounds && !(v.Limit > 0 && s.round >= 5 && time.Since(start) > v.Limit); {
		s.progress.Runs = s.progress.Done + 2*(v.Rounds-s.round)*max(1, len(s.names))
		if err := s.cycle(ctx, s.names); err != nil {
			return err
		}
	}
	return s.end()
}

// looksOfBudget is how often Measure judges, at most.
const looksOfBudget = 20

// Measure is Run, but with a budget of time: it goes on, with those benchmarks only
// that have a row without a verdict, until each row has one or the budget is spent.
// It returns the report of what it wrote. A run that is on its way when the budget
// ends is not cut off.
func (v *Interleaver) Measure(ctx context.Context, old, new io.Writer, budget time.Duration, o Options) (*Report, error) {
	var kept [2]bytes.Buffer
	s := v.execution([2]io.Writer{io.MultiWriter(old, &kept[0]), io.MultiWriter(new, &kept[1])})
	if err := s.begin(0, budget); err != nil {
		return nil, err
	}
	var open []string // nil for all
	start, next := time.Now(), 1
	s.ends = start.Add(budget)
	for {
		if err := s.cycle(ctx, open); err != nil {
			return nil, err
		}
		spent := min(1, float64(time.Since(start))/float64(budget))
		if due := int(spent * looksOfBudget); due < next {
			continue
		} else {
			next = due + 1
		}
		for _, w := range s.sinks {
			if err := markLook(w, look{s.round, math.Round(spent*1e4) / 1e4}); err != nil {
				return nil, err
			}
		}
		var inputs [2]Input
		for i, name := range []string{"old", "new"} {
			var end bytes.Buffer
			_ = markEnd(&end, v.Session)
			inputs[i] = Input{Label: name, Data: slices.Concat(kept[i].Bytes(), end.Bytes())}
		}
		rep, err := Compare(inputs[0], inputs[1], o)
		if err != nil {
			return nil, err
		}
		open = nil
		s.progress.Decided, s.progress.Rows = 0, 0
		for _, r := range rep.Rows {
			switch {
			case !r.Gated:
				continue
			case !r.open:
				s.progress.Decided++
			case !slices.Contains(open, r.Benchmark):
				open = append(open, r.Benchmark)
			}
			s.progress.Rows++
		}
		if len(open) == 0 || spent >= 1 {
			return rep, s.end()
		}
	}
}

// An execution is an Interleaver at work.
type execution struct {
	*Interleaver
	sinks    [2]io.Writer
	rnd      *rand.Rand // of the order of benchmarks
	orders   map[string]*order
	host     hostWatch
	round    int
	alone    bool     // benchmarks can run alone
	names    []string // of the benchmarks, if they do
	has      [2]map[string]bool
	fastest  map[string]float64 // ns/op of each benchmark, on either side
	ends     time.Time          // with a budget, when it is spent
	progress Progress
}

func (v *Interleaver) execution(sinks [2]io.Writer) *execution {
	s := &execution{Interleaver: v, sinks: sinks, fastest: map[string]float64{}, orders: map[string]*order{}, rnd: rand.New(rand.NewPCG(v.Seed, 0x62656e6368))} // "bench"
	s.alone = strings.Contains(v.Commands[0], BenchPlaceholder) && strings.Contains(v.Commands[1], BenchPlaceholder)
	return s
}

func (s *execution) begin(rounds int, budget time.Duration) error {
	for side, w := range s.sinks {
		var b bytes.Buffer
		_ = markStart(&b, s.Session, s.Seed, rounds, budget, [2]string{"old", "new"}[side])
		for _, d := range s.Details {
			fmt.Fprintf(&b, "%s%s: %s\n", machinePrefix, d[0], strings.ReplaceAll(d[1], "\n", " "))
		}
		if s.Machine != "" {
			fmt.Fprintf(&b, "machine: %s\n", s.Machine)
		}
		for _, h := range s.Header[side] {
			fmt.Fprintf(&b, "%s: %s\n", h[0], strings.ReplaceAll(h[1], "\n", " "))
		}
		if _, err := w.Write(b.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

func (s *execution) end() error {
	for _, w := range s.sinks {
		if err := markEnd(w, s.Session); err != nil {
			return err
		}
	}
	return nil
}

// errNotAlone says that a benchmark did not run when it was to run alone.
var errNotAlone = errors.New("it cannot run alone")

// cycle is a round of each of these benchmarks (of all, if nil), or of the whole commands at first and
// where benchmarks cannot run alone.
func (s *execution) cycle(ctx context.Context, names []string) error {
	s.round++
	if !s.alone || s.round == 1 || len(s.names) < 2 {
		return s.pair(ctx, "")
	}
	if names == nil {
		names = s.names
	}
	names = slices.Clone(names)
	s.rnd.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names {
		err := s.pair(ctx, name)
		if errors.Is(err, errNotAlone) { // and so nothing of this pair is written
			s.alone, s.names = false, nil
			return s.pair(ctx, "")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// pair runs both sides once, in this order's turn, and again if the host disturbed it.
func (s *execution) pair(ctx context.Context, name string) error {
	o := s.orders[name]
	if o == nil {
		o = newOrder(s.Seed + uint64(len(s.orders)))
		s.orders[name] = o
	}
	sides := o.next()
	out, use, err := s.both(ctx, name, sides)
	if err != nil {
		return err
	}
	note := ""
	if s.host.add(use); s.host.disturbed(use) {
		again, use2, err := s.both(ctx, name, sides)
		if err != nil {
			return err
		}
		note = " repeated"
		if use2.trouble() < use.trouble() {
			out, use = again, use2
		}
		if s.host.disturbed(use) {
			note += " disturbed"
		}
	}
	for i, side := range sides {
		if err := markRound(s.sinks[side], s.round, i+1, note); err != nil {
			return err
		}
		if _, err := s.sinks[side].Write(out[side]); err != nil {
			return err
		}
	}
	return nil
}

func (s *execution) both(ctx context.Context, name string, sides [2]int) (out [2][]byte, use pairUse, err error) {
	pattern := s.Bench
	if name != "" {
		pattern = Select([]string{name})
	}
	benchtime := s.benchtime(name)
	for _, side := range sides {
		command := strings.ReplaceAll(s.Commands[side], BenchPlaceholder, quoteWord(pattern))
		command = strings.ReplaceAll(command, BenchtimePlaceholder, benchtime)
		command = strings.ReplaceAll(command, ProfilePlaceholder, "")
		if s.Progress != nil {
			s.progress.Command = command
			if !s.ends.IsZero() {
				s.progress.Left = max(0, time.Until(s.ends))
			}
			s.Progress(s.progress)
		}
		s.progress.Done++
		var costs map[string]float64
		var names []string
		out[side], costs, use[side], err = runCommand(ctx, command, s.Timeout, s.AllowNew && side == 0 || name != "")
		switch {
		case err != nil:
			return out, use, fmt.Errorf("round %d: %w", s.round, err)
		}
		for n, cost := range costs {
			names = append(names, n)
			if old := s.fastest[n]; cost > 0 && (old == 0 || cost < old) {
				s.fastest[n] = cost
			}
		}
		slices.Sort(names)
		switch {
		case name == "" && s.alone && s.round == 1:
			s.has[side] = map[string]bool{}
			for _, n := range names {
				s.has[side][n] = true
				if !slices.Contains(s.names, n) {
					s.names = append(s.names, n)
				}
			}
		case name != "" && s.has[side][name] && !slices.Contains(names, name):
			return out, use, errNotAlone
		}
	}
	return out, use, nil
}

// benchtime is what a pair's commands have in the place of BenchtimePlaceholder.
func (s *execution) benchtime(name string) string {
	d, err := time.ParseDuration(s.Benchtime)
	cost := s.fastest[name]
	if err != nil || name == "" || cost == 0 {
		return s.Benchtime
	}
	return fmt.Sprintf("%dx", max(1, int64(d.Seconds()*1e9/cost)))
}

// quoteWord is quote, but always in quotes: a regular expression is no file name.
func quoteWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// waitDelay is how long a command that was ended, or has left a process behind, may hold on to its output. A machine that
// stalls takes some of it from the reader.
var waitDelay = 10 * time.Second

// runCommand returns what a command printed, which has at least one result, unless
// there may be nothing, with the names of the benchmarks in it and their ns/op, if they
// have that, and what else used the machine meanwhile.
func runCommand(ctx context.Context, command string, timeout time.Duration, nothing bool) ([]byte, map[string]float64, hostUse, error) {
	fail := func(format string, args ...any) ([]byte, map[string]float64, hostUse, error) {
		return nil, nil, hostUse{}, fmt.Errorf(format, args...)
	}
	run, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("it took longer than %v", timeout))
	defer cancel()
	cmd := exec.CommandContext(run, "sh", "-c", command)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// All of the group: a shell would leave its children behind. SIGTERM lets
	// them remove their temporary files; who ignores it is killed below.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = waitDelay
	var out bytes.Buffer
	errs := &tail{limit: 4 << 10}
	cmd.Stdout, cmd.Stderr = &out, errs
	watched := watchHost()
	err := cmd.Run()
	use := watched(cmd)
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // whoever is left
	}
	said := ""
	if s := strings.TrimSpace(errs.String()); s != "" {
		said = "; it said: " + s
	}
	switch {
	case ctx.Err() != nil:
		return fail("run %q: %w", command, context.Cause(ctx))
	case run.Err() != nil:
		return fail("run %q: %w%s", command, context.Cause(run), said)
	case errors.Is(err, exec.ErrWaitDelay):
		return fail("run %q: it ended and left a process behind that holds its output", command)
	case err != nil:
		if out.Len() > 0 && said == "" {
			said = "; it said: " + lastLine(out.String()) // go test reports failures on its output
		}
		return fail("run %q: %w%s", command, err, said)
	}
	all, err := benchproc.NewFilter("*")
	if err != nil {
		return nil, nil, use, err
	}
	sides, _, err := read([]Input{{Label: "its output", Data: out.Bytes()}}, all, nothing)
	if err != nil {
		return fail("run %q: %w%s", command, err, said)
	}
	costs := map[string]float64{}
	for _, side := range sides {
		for _, run := range side.runs {
			cost, _ := run.Value("sec/op")
			costs[string(run.Name.Full())] = 1e9 * cost
		}
	}
	// Marks are the session's own: a command that prints some does not make its rounds.
	return bytes.ReplaceAll(sides[0].text, []byte(markPrefix), []byte("# a command's "+markPrefix[2:])), costs, use, nil
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
