package compare

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
)

// A Verdict is what a comparison says of one unit of one benchmark, or of all.
type Verdict string

const (
	// Pass: with confidence 1-alpha new is not worse than old by more than θ.
	Pass Verdict = "pass"
	// Regressed: with confidence 1-alpha new is worse than old by more than θ.
	Regressed Verdict = "regressed"
	// Improved: with confidence 1-alpha new is better than old by more than θ.
	Improved Verdict = "improved"
	// New: old has it not, and Options.AllowNew says that this is well.
	New Verdict = "new"
	// Inconclusive: none of these was shown; Reason says why.
	Inconclusive Verdict = "inconclusive"
)

// Exit codes of a gate.
const (
	ExitPass         = 0 // pass or improved, at least once
	ExitRegressed    = 1
	ExitError        = 2 // wrong usage, unreadable or incomplete input, a command that failed
	ExitInconclusive = 3
)

// A Number is a float64 that JSON has as null where there is none.
type Number float64

// MarshalJSON implements json.Marshaler.
func (n Number) MarshalJSON() ([]byte, error) {
	if f := float64(n); math.IsNaN(f) || math.IsInf(f, 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(n))
}

// A Summary is one side of a row: the median and its 95% confidence interval,
// in the row's unit, as benchstat has them.
type Summary struct {
	N      int    `json:"n"` // runs
	Center Number `json:"center"`
	Lo     Number `json:"lo"`
	Hi     Number `json:"hi"`
}

// A Row is one unit of one benchmark.
type Row struct {
	Config    string   `json:"config"` // the file keys of its table, as key:value words
	Pkg       string   `json:"pkg,omitempty"`
	Benchmark string   `json:"benchmark"`
	Unit      string   `json:"unit"`   // tidied: sec/op, B/s
	Better    string   `json:"better"` // lower, higher, or "" where nobody declared it
	Gated     bool     `json:"gated"`
	Old       *Summary `json:"old"` // nil if the side has it not
	New       *Summary `json:"new"`

	// Paired says that the test is on the ratios within Pairs rounds.
	Paired bool `json:"paired"`
	Pairs  int  `json:"pairs,omitempty"`
	// Change is the estimated ratio new/old less 1, Lo and Hi its confidence
	// interval, each end with confidence 1-alpha.
	Change Number `json:"change"`
	Lo     Number `json:"lo"`
	Hi     Number `json:"hi"`
	// Theta is how much worse new may be, as a part of old; Floor is the noise
	// floor known for the row, or null.
	Theta Number `json:"theta"`
	Floor Number `json:"floor"`
	// PWorse is for "worse by more than θ" and PBetter for "better by more than
	// θ", both adjusted by Holm for all gated rows; PWithin is for "not worse by
	// more than θ".
	PWorse  Number `json:"p_worse"`
	PBetter Number `json:"p_better"`
	PWithin Number `json:"p_within"`
	// Level is, in a session with a budget, what the p-values (here not adjusted)
	// were held against at the look that decided; the interval has this level too.
	Level Number `json:"level,omitempty"`

	Verdict Verdict `json:"verdict"`
	Reason  string  `json:"reason,omitempty"`

	ratios  []float64 // ln of new's cost by old's in each pair
	numbers []int     // of their rounds
	open    bool      // more rounds may give it a verdict
	worse   *float64  // the p-value for "worse at all"; nil where there is no test
	fresh   *Row      // in the confirmation
}

func (r *Row) key() [3]string { return [3]string{r.Config, r.Benchmark, r.Unit} }

// A Report is the outcome of a comparison.
type Report struct {
	Verdict Verdict `json:"verdict"`
	Exit    int     `json:"exit"`
	Reason  string  `json:"reason,omitempty"` // why the whole is inconclusive, if not by its rows

	Old   string  `json:"old"` // labels
	New   string  `json:"new"`
	Seed  *uint64 `json:"seed,omitempty"` // of the order, if the runs were interleaved
	Alpha float64 `json:"alpha"`
	// Threshold is what was asked for; each row's Theta is what was tested.
	Threshold float64  `json:"threshold"`
	Gate      []string `json:"gate"` // units
	Machine   string   `json:"machine,omitempty"`
	// Facts are of the machine: CPU, number of CPUs, kernel. Commits and Go are of the
	// two sides, by the keys commit and go of the results. All as far as they are known.
	Facts   string    `json:"facts,omitempty"`
	Commits [2]string `json:"commits"`
	Go      [2]string `json:"go"`
	// Mismatch says in what way the machines differ.
	Mismatch  []string `json:"mismatch,omitempty"`
	Notes     []string `json:"notes,omitempty"`
	Rows      []*Row   `json:"rows"`
	Benchstat string   `json:"benchstat"` // the command that shows the same medians

	// Budget is how many seconds a session with a budget had. Of its pairs Repeated
	// were measured again, as the host disturbed them, and Disturbed are so even then.
	Budget    Number `json:"budget,omitempty"`
	Disturbed int    `json:"disturbed,omitempty"`
	Repeated  int    `json:"repeated,omitempty"`

	Confirmation *Confirmation `json:"confirmation,omitempty"`
	Profiles     []*Profile    `json:"profiles,omitempty"`
	PlotFile     string        `json:"plot,omitempty"` // what Plot wrote
}

// names are the commits and Go versions of both sides.
func (r *Report) names() string {
	var sides [2]string
	for i := range sides {
		sides[i] = strings.Join(slices.DeleteFunc([]string{r.Commits[i], r.Go[i]}, func(s string) bool { return s == "" }), ", ")
	}
	switch {
	case sides[0]+sides[1] == "":
		return ""
	case sides[0] == sides[1]:
		return "both " + sides[0]
	}
	for i := range sides {
		if sides[i] == "" {
			sides[i] = "unknown"
		}
	}
	return fmt.Sprintf("old is %s, new %s", sides[0], sides[1])
}

// A Confirmation is what fresh rounds said of the rows that seemed regressed.
type Confirmation struct {
	Old       string `json:"old"`
	New       string `json:"new"`
	Rounds    int    `json:"rounds"` // at most, with a budget
	Confirmed int    `json:"confirmed"`
	Suspects  int    `json:"suspects"`
}

// Regressed are the gated rows that have regressed.
func (r *Report) Regressed() (rows []*Row) {
	for _, row := range r.Rows {
		if row.Gated && row.Verdict == Regressed {
			rows = append(rows, row)
		}
	}
	return rows
}

// conclude makes the verdict of the whole: a regression is the worst, and what
// could not be decided is never a pass, nor is nothing at all.
func (r *Report) conclude() {
	count := map[Verdict]int{}
	for _, row := range r.Rows {
		if row.Gated {
			count[row.Verdict]++
		}
	}
	r.Reason = ""
	switch {
	case count[Regressed] > 0:
		r.Verdict, r.Exit = Regressed, ExitRegressed
	case count[Inconclusive] > 0:
		r.Verdict, r.Exit = Inconclusive, ExitInconclusive
	case count[Improved] > 0:
		r.Verdict, r.Exit = Improved, ExitPass
	case count[Pass] > 0:
		r.Verdict, r.Exit = Pass, ExitPass
	case count[New] > 0:
		r.Verdict, r.Exit, r.Reason = New, ExitPass, "all of it is new, and nothing was compared"
	default:
		r.Verdict, r.Exit, r.Reason = Inconclusive, ExitInconclusive, "no row is gated"
	}
}
