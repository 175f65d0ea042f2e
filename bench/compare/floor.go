package compare

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/perf/benchproc"
)

// floorFormat is the version of the file's layout.
const floorFormat = 1

// A Floor is what comparisons of a command with itself showed on one machine:
// the change that the machine reports where there is none.
type Floor struct {
	Format      int        `json:"format"`
	Machine     string     `json:"machine"` // fingerprint
	Date        time.Time  `json:"date"`
	Command     string     `json:"command"`
	Seed        uint64     `json:"seed"`
	Comparisons int        `json:"comparisons"`
	Rounds      int        `json:"rounds"` // of each comparison
	Rows        []FloorRow `json:"rows"`
}

// A FloorRow is the floor of one unit of one benchmark.
type FloorRow struct {
	Pkg       string `json:"pkg,omitempty"`
	Benchmark string `json:"benchmark"`
	Unit      string `json:"unit"`
	// Floor is the largest change that any of the comparisons estimated, either
	// way, as a part: .012 for 1.2%.
	Floor float64 `json:"floor"`
}

// ErrNoFloor is the error of ReadFloor for a file that does not exist.
var ErrNoFloor = fs.ErrNotExist

// ReadFloor reads a file that calibration wrote.
func ReadFloor(path string) (*Floor, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read noise floor: %w", err)
	}
	f, err := decodeFloor(b)
	if err != nil {
		return nil, fmt.Errorf("read noise floor %s: %w", path, err)
	}
	return f, nil
}

func decodeFloor(b []byte) (*Floor, error) {
	var f Floor
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, err
	}
	if f.Format != floorFormat || len(f.Rows) == 0 || f.Date.IsZero() {
		return nil, fmt.Errorf("not a floor of format %d with a date and rows: calibrate again", floorFormat)
	}
	for _, r := range f.Rows {
		if !(r.Floor >= 0) || math.IsInf(r.Floor, 0) {
			return nil, fmt.Errorf("%s %s has the floor %v: calibrate again", r.Benchmark, r.Unit, r.Floor)
		}
	}
	return &f, nil
}

// Encode returns the file's contents.
func (f *Floor) Encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	err := e.Encode(f)
	return b.Bytes(), err
}

// usable returns the floor, or nil and why it is set aside: what does not say of
// which machine it is and when it was made says nothing about this one. To raise
// θ by it would let anybody who can write a file switch the gate off.
func (f *Floor) usable(now time.Time) (*Floor, string) {
	switch {
	case f == nil:
		return nil, ""
	case f.Machine == "":
		return nil, "it does not say of which machine it is"
	case f.Date.After(now):
		return nil, fmt.Sprintf("its date, %s, is in the future", f.Date.UTC().Format(time.DateOnly))
	}
	return f, ""
}

// trouble says why the floor says nothing about results of this machine now.
// Results without a fingerprint are no mismatch.
func (f *Floor) trouble(machine string, now time.Time, age time.Duration) string {
	switch {
	case f == nil:
	case machine != "" && machine != f.Machine:
		return fmt.Sprintf("the noise floor is of another machine (%s, not %s): calibrate here", f.Machine, machine)
	case now.Sub(f.Date) > age:
		return fmt.Sprintf("the noise floor is stale, of %s: calibrate again", f.Date.UTC().Format(time.DateOnly))
	}
	return ""
}

func (f *Floor) of(r *Row) (float64, bool) { return f.row(r.Pkg, r.Benchmark, r.Unit) }

func (f *Floor) row(pkg, benchmark, unit string) (float64, bool) {
	for _, row := range f.Rows {
		if row.Benchmark == benchmark && row.Unit == unit && row.Pkg == pkg {
			return row.Floor, true
		}
	}
	return 0, false
}

// knows says whether the floor has any of the rows that are compared. One that is
// kept with the results is found by every comparison on that kind of machine; of
// other benchmarks than its own neither its age nor its machine says anything.
func (f *Floor) knows(list []*cell) bool {
	return f != nil && slices.ContainsFunc(list, func(c *cell) bool {
		_, ok := f.row(c.pkg, c.name.StringValues(), c.unit)
		return ok
	})
}

// Calibrate makes a floor of the two sides of an interleaved session in which
// both ran the same command. Every rounds rounds are one comparison.
func Calibrate(a, b Input, rounds int) (*Floor, error) {
	filter, err := benchproc.NewFilter("*")
	if err != nil {
		return nil, err
	}
	sides, _, err := read([]Input{a, b}, filter, false)
	if err != nil {
		return nil, err
	}
	if diff := machines(sides); diff != nil {
		return nil, fmt.Errorf("calibrate: more than one machine: %s", strings.Join(diff, "; "))
	}
	list, err := cells(sides, useKeys(sides, false).ignore)
	if err != nil {
		return nil, err
	}
	f := &Floor{Format: floorFormat, Machine: machineOf(sides), Rounds: rounds}
	for _, c := range list {
		p, _, _ := c.pair(-1, sides[0].marks.planned)
		if !p.paired {
			return nil, errors.New("calibrate: the results are not of one interleaved session")
		}
		floor, n := 0.0, 0
		for i := 0; i+rounds <= len(p.x); i += rounds {
			center, _, _ := pair{x: p.x[i : i+rounds], y: p.y[i : i+rounds], paired: true}.effect(DefaultAlpha)
			if math.IsNaN(center) || math.IsInf(center, 0) {
				n = 0
				break // zeros, or worse: no ratio, and so no floor
			}
			floor = max(floor, math.Expm1(math.Abs(math.Log(center))))
			n++
		}
		if n > 0 {
			f.Rows = append(f.Rows, FloorRow{Pkg: c.pkg, Benchmark: c.name.StringValues(), Unit: c.unit, Floor: math.Round(floor*1e6) / 1e6})
			f.Comparisons = max(f.Comparisons, n)
		}
	}
	if len(f.Rows) == 0 {
		return nil, fmt.Errorf("calibrate: no unit has %d rounds of positive values", rounds)
	}
	return f, nil
}
