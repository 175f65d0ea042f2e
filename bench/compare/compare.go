package compare

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"golang.org/x/perf/benchfmt"
	"golang.org/x/perf/benchmath"
	"golang.org/x/perf/benchproc"
	"golang.org/x/perf/benchunit"
)

// Defaults of Options.
const (
	DefaultAlpha       = .05
	DefaultThreshold   = .05
	DefaultFloorFactor = 1.5
	DefaultFloorAge    = 30 * 24 * time.Hour
)

// DefaultGate are the units that decide unless told otherwise: the time per
// operation, which every Go benchmark has. Each further unit costs all of them
// power (see Holm), throughputs repeat the time, and high percentiles are so
// noisy that most gates on them end inconclusive. All are shown.
var DefaultGate = []string{"sec/op"}

// Options of a comparison. The zero value means the defaults.
type Options struct {
	// Alpha is the chance of an error that each verdict may have: of any false
	// "regressed" among all gated rows, and of a false "pass" of one.
	Alpha float64
	// Threshold is how much worse new may be, as a part of old: .05 for 5%.
	Threshold float64
	// Floor is the noise floor of this machine, and FloorFactor how many times it
	// the tested threshold must be at least. FloorAge is when a floor is stale,
	// at the time Now.
	Floor       *Floor
	FloorFactor float64
	FloorAge    time.Duration
	Now         time.Time
	// Gate are the units that decide. If it is empty they are DefaultGate, and
	// a unit of any name that one side lacks is inconclusive.
	Gate []string
	// Filter selects results, in benchstat's syntax.
	Filter string
	// Ignore are file keys whose values do not tell rows apart.
	Ignore []string
	// AllowNew only notes the benchmarks that old lacks: they are new, and there is
	// nothing to compare them with.
	AllowNew bool
	// AllowUneven accepts a row that has more runs on one side.
	AllowUneven bool
}

func (o *Options) check() error {
	def := func(v *float64, d float64) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.Alpha, DefaultAlpha)
	def(&o.Threshold, DefaultThreshold)
	def(&o.FloorFactor, DefaultFloorFactor)
	if o.FloorAge == 0 {
		o.FloorAge = DefaultFloorAge
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	switch {
	case !(o.Alpha > 0 && o.Alpha < .5):
		return fmt.Errorf("alpha %v: want more than 0 and less than 0.5", o.Alpha)
	case !(o.Threshold > 0 && o.Threshold <= 10):
		return fmt.Errorf("threshold %v: want more than 0%%, since no measurement shows that two things are equal, and at most 1000%%", o.Threshold)
	case !(o.FloorFactor >= 1 && o.FloorFactor <= 100):
		return fmt.Errorf("floor factor %v: want 1 to 100", o.FloorFactor)
	}
	return nil
}

// Compare compares two sets of results. Its error says that there is no verdict
// at all (exit code 2): an input that is not whole, or an option that cannot be.
func Compare(old, new Input, o Options) (*Report, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	query := o.Filter
	if query == "" {
		query = "*"
	}
	filter, err := benchproc.NewFilter(query)
	if err != nil {
		return nil, fmt.Errorf("filter %q: %w", o.Filter, err)
	}
	sides, units, err := read([]Input{old, new}, filter, o.AllowNew)
	if err != nil {
		return nil, err
	}
	keys := useKeys(sides, o.AllowUneven)
	ignore := keys.ignore
	for _, k := range o.Ignore {
		if !slices.Contains(ignore, k) {
			ignore = append(ignore, k)
		}
	}
	list, err := cells(sides, ignore)
	if err != nil {
		return nil, err
	}
	gate, err := gateUnits(o.Gate, list)
	if err != nil {
		return nil, err
	}
	rep := &Report{Old: old.Label, New: new.Label, Alpha: o.Alpha, Threshold: o.Threshold, Gate: gate,
		Machine: machineOf(sides), Mismatch: machines(sides), Benchstat: benchstatCommand(old, new, ignore, o.Filter)}
	for i, s := range sides {
		rep.Commits[i], rep.Go[i] = s.only("commit"), s.only("go")
	}
	rep.Facts = facts(sides)
	rep.noteKeys(sides, keys, o.Ignore)
	planned := map[string]int{}
	looks := map[string][]look{}
	for i, s := range sides {
		for session, d := range s.marks.budget {
			rep.Budget += Number(d.Seconds() / 2) // it is in both files
			if i == 1 && !slices.Equal(s.marks.looks[session], sides[0].marks.looks[session]) {
				return nil, fmt.Errorf("%s and %s do not say the same of when session %s judged: a file was changed", old.Label, new.Label, session)
			}
			looks[session] = s.marks.looks[session]
		}
		for session, n := range s.marks.planned {
			planned[session] = max(planned[session], n)
			if seed := s.marks.seed[session]; rep.Seed == nil {
				rep.Seed = &seed
			}
		}
	}
	c := &comparer{o: &o, rep: rep, units: units, planned: planned, looks: looks, list: list}
	rep.Disturbed, rep.Repeated = sides[0].marks.disturbed, sides[0].marks.repeated
	var aside string
	if o.Floor, aside = o.Floor.usable(o.Now); aside != "" {
		rep.note("warning: the noise floor is set aside, as %s: θ is the threshold alone (calibrate here)", aside)
		c.aside = true
	}
	if o.Floor.knows(list) {
		c.floorTrouble = o.Floor.trouble(rep.Machine, o.Now, o.FloorAge)
	}
	for _, cell := range list {
		c.add(cell, len(o.Gate) == 0, gate)
	}
	c.noteFloor()
	c.judge()
	rep.conclude()
	return rep, nil
}

// noteKeys says which keys do not tell rows apart, and which would better not.
func (r *Report) noteKeys(sides []*results, keys keyUse, asked []string) {
	for _, k := range keys.ignore {
		var one [2]string // of which each side has one value
		single := true
		for i, s := range sides {
			values := s.valuesOf(k)
			one[i] = values[0]
			single = single && len(values) == 1
		}
		switch {
		case slices.Contains(machineKeys, k), slices.Contains(asked, k), k == "coverage":
		case single && (k == "commit" || k == "go"): // the report has a line of them
		case k == "pkg":
			lacks := sides[b2i(one[1] == "")].label
			r.note("%s has no %s lines, which are ignored (was it cut out by grep?): %s has %q", lacks, k, sides[b2i(one[0] == "")].label, one[0]+one[1])
		case single:
			r.note("the key %s differs and is ignored: %q, %q", k, one[0], one[1])
		default:
			r.note("%s: the key %s differs and is ignored, as it tells no benchmarks apart (a line of a log? print those to standard error)", where(sides, k), k)
		}
	}
	for _, k := range keys.splitting {
		if !slices.Contains(asked, k) {
			r.note("%s: the key %s has no value in common: if it says only when or what was measured, or is a line of a log, --ignore %s", where(sides, k), k, k)
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (r *Report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// gateUnits tidies the units' names and refuses what no row has.
func gateUnits(gate []string, list []*cell) ([]string, error) {
	if len(gate) == 0 {
		return DefaultGate, nil
	}
	var have, want []string
	for _, c := range list {
		if !slices.Contains(have, c.unit) {
			have = append(have, c.unit)
		}
	}
	for _, u := range gate {
		_, tidy := benchunit.Tidy(1, u)
		if !slices.Contains(have, tidy) {
			return nil, fmt.Errorf("no result has the unit %q to gate: there are %s", u, strings.Join(have, ", "))
		}
		if !slices.Contains(want, tidy) {
			want = append(want, tidy)
		}
	}
	return want, nil
}

// benchstatCommand shows the same medians: it must ignore the same keys.
func benchstatCommand(old, new Input, ignore []string, filter string) string {
	words := []string{"benchstat"}
	if len(ignore) > 0 {
		words = append(words, "-ignore", quote(strings.Join(ignore, ",")))
	}
	if filter != "" {
		words = append(words, "-filter", quote(filter))
	}
	return strings.Join(append(words, quote(old.Label), quote(new.Label)), " ")
}

// quote makes one word of a shell's command line.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./,:=@%+", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// A comparer makes the rows of one report and judges them.
type comparer struct {
	o            *Options
	rep          *Report
	units        benchfmt.UnitMetadataMap
	planned      map[string]int
	looks        map[string][]look // of sessions with a budget
	list         []*cell
	floorTrouble string // why the floor cannot be used
	aside        bool   // there is one that does not count at all
	rows         []*judged
	floors       int // rows with a floor
}

// judged is a row on its way to its verdict.
type judged struct {
	*Row
	pair   pair
	rounds []round // of the pairs
	exact  bool
	new    bool   // old lacks it, and may
	looks  []look // of its session, if that had a budget
	// trouble is why there can be no verdict; shaky is why there can be no pass.
	trouble, shaky string
}

// add makes a row of a cell.
func (c *comparer) add(cell *cell, all bool, gate []string) {
	better := c.units.GetBetter(cell.unit)
	assume := c.units.GetAssumption(cell.unit)
	nan := Number(math.NaN())
	j := &judged{exact: assume == benchmath.AssumeExact, Row: &Row{
		Config: cell.config.String(), Pkg: cell.pkg, Benchmark: cell.name.StringValues(), Unit: cell.unit, Gated: slices.Contains(gate, cell.unit),
		Change: nan, Lo: nan, Hi: nan, Floor: nan, Theta: Number(c.o.Threshold), PWorse: nan, PBetter: nan, PWithin: nan,
	}}
	c.rows, c.rep.Rows = append(c.rows, j), append(c.rep.Rows, j.Row)
	switch {
	case better < 0:
		j.Better = "lower"
	case better > 0:
		j.Better = "higher"
	}
	j.Old, j.New = summarize(assume, cell.values[0]), summarize(assume, cell.values[1])
	if j.Old == nil || j.New == nil {
		side := c.rep.Old
		if j.New == nil {
			side = c.rep.New
		}
		j.trouble = "missing in " + side + elsewhere(cell, c.list, b2i(j.New == nil))
		j.Gated = j.Gated || all
		j.new = j.Old == nil && c.o.AllowNew
		return
	}
	var lost int
	j.pair, j.rounds, lost = cell.pair(better, c.planned)
	j.Paired = j.pair.paired
	if j.Paired {
		j.Pairs = len(j.pair.x)
	}
	for _, v := range slices.Concat(cell.values[0], cell.values[1]) {
		if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
			j.trouble = fmt.Sprintf("a value is %v: ratios need finite numbers from 0 on", v)
			return
		}
	}
	j.estimate(j.pair, c.o.Alpha)
	for i, r := range j.rounds {
		if j.pair.x[i] > 0 && j.pair.y[i] > 0 {
			j.ratios, j.numbers = append(j.ratios, math.Log(j.pair.y[i]/j.pair.x[i])), append(j.numbers, r.number)
		}
	}
	sessions := map[string]bool{}
	for _, r := range j.rounds {
		sessions[r.session] = true
		j.looks = c.looks[r.session]
	}
	switch {
	case j.looks != nil && len(sessions) > 1:
		j.trouble = "of several sessions with a budget each, which cannot be put together"
	case len(c.rep.Mismatch) > 0:
		j.trouble = "measured on different machines"
	case better == 0:
		j.trouble = fmt.Sprintf("nobody declared which way %s is better: print a line \"Unit %s better=lower\" (or higher)", cell.unit, cell.unit)
	case lost > 0:
		j.trouble = fmt.Sprintf("%d of %d rounds lack it on one side", lost, lost+len(j.pair.x))
	case !j.Paired && j.Old.N != j.New.N && !c.o.AllowUneven:
		j.trouble = fmt.Sprintf("%d runs and %d: is a file truncated? (allow uneven runs if not)", j.Old.N, j.New.N)
	case j.exact && (j.Old.Lo != j.Old.Hi || j.New.Lo != j.New.Hi):
		j.trouble = "declared exact (assume=exact), and its values vary"
	}
	c.floor(j)
}

// estimate is the change, with an interval that is of new/old whichever is better.
func (j *judged) estimate(p pair, alpha float64) {
	center, lo, hi := p.effect(alpha)
	if j.Better == "higher" {
		center, lo, hi = 1/center, 1/hi, 1/lo
	}
	j.Change, j.Lo, j.Hi = Number(center-1), Number(lo-1), Number(hi-1)
	if j.exact {
		// The values of a row that is exact have no distribution.
		nan := Number(math.NaN())
		j.Change, j.Lo, j.Hi = Number(float64(j.New.Center)/float64(j.Old.Center)-1), nan, nan
	}
	if math.IsNaN(float64(j.Change)) && j.Old.Center == j.New.Center {
		j.Change = 0
	}
}

// elsewhere says where on the side that lacks a row something like it is, and by
// which flag the two can be one.
func elsewhere(lost *cell, list []*cell, side int) string {
	procs := func(c *cell) string { return procsSuffix.ReplaceAllString(c.name.StringValues(), "") }
	for _, c := range list {
		if c == lost || c.unit != lost.unit || len(c.values[side]) == 0 || len(c.values[1-side]) > 0 {
			continue
		}
		if c.name != lost.name {
			if c.config == lost.config && procs(c) == procs(lost) {
				return fmt.Sprintf(", which has %s: was it run with another GOMAXPROCS?", c.name.StringValues())
			}
			continue
		}
		var keys, differ []string
		for _, f := range lost.config.Projection().FlattenedFields() {
			if a, b := lost.config.Get(f), c.config.Get(f); a != b {
				keys, differ = append(keys, f.Name), append(differ, fmt.Sprintf("%s %q and not %q", f.Name, b, a))
			}
		}
		if len(keys) > 0 {
			return fmt.Sprintf(", which has it with %s: if both are one, --ignore %s", strings.Join(differ, ", "), strings.Join(keys, ","))
		}
	}
	return ""
}

// floor raises θ to what this machine can tell apart.
func (c *comparer) floor(j *judged) {
	if c.o.Floor == nil || j.exact {
		return
	}
	if c.floorTrouble != "" {
		if j.trouble == "" {
			j.trouble = c.floorTrouble
		}
		return
	}
	f, ok := c.o.Floor.of(j.Row)
	if !ok {
		return
	}
	c.floors++
	j.Floor = Number(f)
	j.Theta = Number(max(c.o.Threshold, c.o.FloorFactor*f))
	if f > c.o.Threshold {
		j.shaky = fmt.Sprintf("the noise floor, %s, is above the threshold, %s", percent(f), percent(c.o.Threshold))
	}
}

// noteFloor says what stands behind θ.
func (c *comparer) noteFloor() {
	gated := 0
	for _, j := range c.rows {
		if j.Gated && !j.exact && j.trouble == "" && math.IsNaN(float64(j.Floor)) {
			gated++
		}
	}
	switch {
	case c.aside:
	case c.o.Floor == nil:
		c.rep.note("no noise floor is recorded for this machine: θ is the threshold alone (calibrate records one)")
	case c.floorTrouble != "":
		c.rep.note("%s", c.floorTrouble)
	case gated > 0:
		c.rep.note("the noise floor has nothing on %d of the gated rows: their θ is the threshold alone", gated)
	}
}

func summarize(assume benchmath.Assumption, values []float64) *Summary {
	if len(values) == 0 {
		return nil
	}
	// NewSample sorts what it is given, and ours are in the order of the rounds.
	th := benchmath.DefaultThresholds
	s := assume.Summary(benchmath.NewSample(slices.Clone(values), &th), .95)
	return &Summary{N: len(values), Center: Number(s.Center), Lo: Number(s.Lo), Hi: Number(s.Hi)}
}

// judge gives every row its verdict. The gated rows are one family of tests and
// the rest another, so that looking at more does not make the gate blinder.
func (c *comparer) judge() {
	for _, gated := range []bool{true, false} {
		var family, sequential []*judged
		for _, j := range c.rows {
			if j.Gated != gated {
				continue
			}
			switch {
			case j.new:
				j.Verdict, j.Reason = New, "nothing to compare it with"
			case j.trouble != "":
				j.Verdict, j.Reason = Inconclusive, j.trouble
			case j.exact:
				c.judgeExact(j)
			case j.looks != nil:
				sequential = append(sequential, j)
			default:
				family = append(family, j)
			}
		}
		c.judgeLooks(sequential)
		worse, better := make([]float64, len(family)), make([]float64, len(family))
		for i, j := range family {
			factor := 1 + float64(j.Theta)
			worse[i], better[i] = j.pair.exceeds(factor), j.pair.below(1/factor)
		}
		worse, better = holm(worse), holm(better)
		for i, j := range family {
			j.PWorse, j.PBetter = Number(worse[i]), Number(better[i])
			c.judgeOne(j, len(family))
		}
	}
}

func (c *comparer) judgeOne(j *judged, tests int) {
	factor := 1 + float64(j.Theta)
	within := j.pair.below(factor)
	if j.pair.constant() {
		within = 0
	}
	j.PWithin = Number(within)
	atAll := j.pair.exceeds(1)
	j.worse = &atAll
	need := c.needed(tests, j.Paired)
	switch runs := min(len(j.pair.x), len(j.pair.y)); {
	case !(float64(j.PWorse) > c.o.Alpha):
		j.Verdict = Regressed
	case !(float64(j.PBetter) > c.o.Alpha):
		j.Verdict = Improved
	case runs < need:
		kind := "runs a side"
		if j.Paired {
			kind = "rounds"
		}
		j.Verdict, j.Reason = Inconclusive, fmt.Sprintf("%d %s are too few: with %d gated rows nothing can be shown with fewer than %d", runs, kind, tests, need)
	case j.shaky != "":
		j.Verdict, j.Reason = Inconclusive, j.shaky
	case !(within > c.o.Alpha):
		j.Verdict = Pass
	default:
		j.Verdict, j.Reason = Inconclusive, c.undecided(j)
	}
}

// judgeLooks judges rows of sessions that looked at them again and again.
func (c *comparer) judgeLooks(rows []*judged) {
	var all []*sequence
	of := map[*sequence]*judged{}
	ends := map[look]bool{}
	for _, j := range rows {
		s := &sequence{pair: j.pair, theta: float64(j.Theta), shaky: j.shaky != ""}
		all, of[s] = append(all, s), j
		for _, l := range j.looks {
			ends[l] = true
		}
	}
	f := newFamily(c.o.Alpha, all)
	looks := slices.SortedFunc(maps.Keys(ends), func(a, b look) int { return cmp.Or(cmp.Compare(a.spent, b.spent), cmp.Compare(a.rounds, b.rounds)) })
	for _, l := range looks {
		f.look(func(s *sequence) int {
			n := 0
			for n < len(of[s].rounds) && of[s].rounds[n].number <= l.rounds {
				n++
			}
			return n
		}, l.spent)
	}
	for _, s := range all {
		j := of[s]
		factor := 1 + s.theta
		now := s.at(max(s.n, 1))
		atAll := now.exceeds(1)
		j.worse = &atAll
		j.PWorse, j.PBetter, j.PWithin = Number(now.exceeds(factor)), Number(now.below(1/factor)), Number(now.below(factor))
		j.Level = Number(s.level)
		if s.level > 0 {
			j.estimate(now, s.level)
		} else {
			j.Lo, j.Hi = Number(math.NaN()), Number(math.NaN())
		}
		switch j.Verdict = s.verdict; {
		case s.verdict == Inconclusive:
			j.Reason = j.shaky
		case s.verdict == "":
			j.Verdict, j.Reason, j.open = Inconclusive, c.unspent(j, s), true
		}
	}
}

// unspent says why a budget was not enough.
func (c *comparer) unspent(j *judged, s *sequence) string {
	budget := time.Duration(float64(c.rep.Budget) * float64(time.Second))
	if s.level == 0 || !(float64(j.Hi) < 1e6) {
		return fmt.Sprintf("%d rounds are too few to show anything: give it more than --budget %v, or make each run shorter", s.n, budget)
	}
	enough := func(rounds float64) string {
		d := time.Duration(float64(budget) * rounds / float64(s.n)).Round(time.Second)
		if d > time.Minute {
			d = (d + 29*time.Second).Round(time.Minute)
		}
		return fmt.Sprintf("; --budget %v should do", d)
	}
	return j.why(s.at(s.n), s.level, "rounds", enough)
}

// undecided says why neither "worse than θ" nor "not worse than θ" was shown.
func (c *comparer) undecided(j *judged) string {
	what := "runs a side"
	if j.Paired {
		what = "rounds"
	}
	return j.why(j.pair, c.o.Alpha, what, func(n float64) string { return fmt.Sprintf("; about %.0f %s should do", n, what) })
}

func (j *judged) why(p pair, alpha float64, what string, enough func(runs float64) string) string {
	reason := "too noisy to tell whether it is worse by more than " + percent(float64(j.Theta))
	center, lo, hi := p.effect(alpha)
	limit, change, half := math.Log1p(float64(j.Theta)), math.Log(center), math.Log(hi/center)
	if change > limit {
		half = math.Log(center / lo)
	}
	// The interval shrinks with the root of the number of runs. As long as it is wider
	// than θ it does not say where the change lies, and there may be none.
	distance, have, wide := math.Abs(limit-change), float64(len(p.x)), half > limit
	if wide {
		distance = limit
	}
	n := math.Ceil(have*math.Pow(half/distance, 2)/5) * 5
	switch most := max(1000, 5*have); {
	case math.IsNaN(half) || math.IsInf(half, 0):
	case n <= most && n > have:
		reason += enough(n)
	case n > most && !wide:
		reason = fmt.Sprintf("the change, %s, is about %s itself: more %s would hardly tell; choose a --threshold on one side of it",
			signed(center-1), percent(float64(j.Theta)), what)
	case n > most:
		reason += fmt.Sprintf(", and more %s would hardly do: make each run longer (-benchtime), or the machine quieter", what)
	}
	return reason
}

// needed is with how many runs a side (or rounds) the smallest p-value is small
// enough even for the first of Holm's steps.
func (c *comparer) needed(tests int, paired bool) int {
	for n := 4; n < 100; n++ {
		p := pair{x: make([]float64, n), y: make([]float64, n), paired: paired}
		if p.least()*float64(max(1, tests)) <= c.o.Alpha {
			return n
		}
	}
	return 100
}

// judgeExact compares two numbers that have no noise.
func (c *comparer) judgeExact(j *judged) {
	old, new := float64(j.Old.Center), float64(j.New.Center)
	if j.Better == "higher" {
		old, new = new, old
	}
	switch limit := 1 + float64(j.Theta); {
	case new > old*limit:
		j.Verdict = Regressed
	case new*limit < old:
		j.Verdict = Improved
	default:
		j.Verdict = Pass
	}
}
