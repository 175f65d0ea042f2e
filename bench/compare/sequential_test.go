package compare

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// TestBoundariesSpendAlpha holds the numerical integration against chance: until each
// look as many paths have crossed as were to, whenever the looks come.
func TestBoundariesSpendAlpha(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 0))
	looks := []look{{10, .1}, {20, .2}, {25, .3}, {60, .55}, {70, .8}, {110, 1}}
	const n = 200_000
	for _, alpha := range []float64{.05, .01} {
		var levels []float64
		b := &boundary{alpha: alpha}
		for _, l := range looks {
			b = b.look(l.rounds, l.spent, func() float64 { return 0 })
			levels = append(levels, b.level)
		}
		rejected := make([]float64, len(looks))
		for range n {
			sum, at := 0.0, 0
			for i, l := range looks {
				sum += rnd.NormFloat64() * math.Sqrt(float64(l.rounds-at))
				at = l.rounds
				if upper(sum/math.Sqrt(float64(at))) <= levels[i] {
					rejected[i]++
					break
				}
			}
		}
		sum := 0.0
		for i, l := range looks {
			sum += rejected[i] / n
			want := spending(alpha, l.spent)
			if slack := 4 * math.Sqrt(want/n); math.Abs(sum-want) > slack {
				t.Errorf("alpha %v: %.5f rejected until look %d, want %.5f ± %.5f; levels %v", alpha, sum, i+1, want, slack, levels)
			}
		}
	}
}

// A budgeted is one simulated comparison: how its rows ended, and when.
type budgeted struct {
	pass, regressed, improved, inconclusive int
	took                                    float64 // part of the budget
}

// simulateBudget is a session with a budget of so many seconds: each open row gets a
// pair in turn, in the noise of one machine, and every twentieth of the budget all are
// looked at. Each row costs effect times as much in new.
func simulateBudget(rnd *rand.Rand, root map[float64]*boundary, rows int, noise, effect, budget float64) (b budgeted) {
	const run = .13 // s: 100 ms of a benchmark, and the start of a process
	m := newMachine(rnd, noise)
	all := make([]*sequence, rows)
	for i := range all {
		all[i] = &sequence{pair: pair{paired: true}, theta: DefaultThreshold}
	}
	f := newFamily(DefaultAlpha, all)
	f.root = root // comparisons that look at the same times have the same boundaries
	o := newOrder(rnd.Uint64())
	t := 0.0
	for next := 1; ; {
		open := 0
		for _, s := range all {
			if s.verdict != "" {
				continue
			}
			open++
			var v [2]float64
			for _, side := range o.next() {
				v[side] = m.run(run) * []float64{1, 1 + effect}[side]
			}
			s.x, s.y = append(s.x, v[0]), append(s.y, v[1])
			t += 2 * run
		}
		spent := min(1, t/budget)
		if open == 0 || spent >= 1 && next > looksOfBudget {
			break
		}
		if due := int(spent * looksOfBudget); due >= next {
			next = due + 1
			f.look(func(s *sequence) int { return len(s.x) }, spent)
		}
	}
	for _, s := range all {
		switch s.verdict {
		case Pass:
			b.pass++
		case Regressed:
			b.regressed++
		case Improved:
			b.improved++
		default:
			b.inconclusive++
		}
	}
	b.took = min(1, t/budget)
	return b
}

var updateDocs = flag.Bool("update", false, "write the table of error rates into docs/gate.md")

// TestErrorRatesWithABudget holds the levels of the table in docs/gate.md, and with -long, which simulates for a
// minute, the table. It is deterministic.
func TestErrorRatesWithABudget(t *testing.T) {
	if testing.Short() {
		t.Skip("simulates for seconds")
	}
	t.Parallel()
	few, sigmas := 20, 4. // chance is larger in fewer
	if *long || *updateDocs {
		few, sigmas = 1, 2
	}
	const theta = DefaultThreshold
	type setting struct {
		rows   int
		noise  float64
		budget float64 // s
		n      int     // comparisons
	}
	settings := []setting{{1, 1, 300, 1000}, {10, 1, 300, 100}, {40, 1, 300, 40}, {40, .25, 300, 40}, {8, 1.32, 120, 100}}
	effects := []float64{0, .5, 1, 1.5, 2}
	type result struct {
		rows, comparisons, pass, regressed, inconclusive, alarmed float64
		took                                                      float64
	}
	results := make([][]result, len(settings))
	var wg sync.WaitGroup
	for i, c := range settings {
		results[i] = make([]result, len(effects))
		for k, e := range effects {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(c.rows*1000+k), uint64(100*c.noise)))
				r, root := &results[i][k], map[float64]*boundary{}
				for range c.n / few {
					b := simulateBudget(rnd, root, c.rows, c.noise, e*theta, c.budget)
					r.rows += float64(c.rows)
					r.comparisons++
					r.pass += float64(b.pass + b.improved)
					r.regressed += float64(b.regressed)
					r.inconclusive += float64(b.inconclusive)
					r.alarmed += float64(min(1, b.regressed))
					r.took += b.took
				}
			})
		}
	}
	wg.Wait()
	var table strings.Builder
	table.WriteString("| rows | noise of a pair | budget | true change | pass | inconclusive | regressed | comparisons with a regressed row | part of the budget used |\n|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for i, c := range settings {
		for k, e := range effects {
			r := results[i][k]
			fmt.Fprintf(&table, "| %d | %.1f%% | %.0fm | %g θ | %.1f%% | %.1f%% | %.1f%% | %.1f%% | %.0f%% |\n", c.rows, 10.6*c.noise, c.budget/60, e,
				100*r.pass/r.rows, 100*r.inconclusive/r.rows, 100*r.regressed/r.rows, 100*r.alarmed/r.comparisons, 100*r.took/r.comparisons)
			slack := sigmas * math.Sqrt(.05*.95/r.comparisons)
			if e <= 1 && r.alarmed/r.comparisons > .05+slack {
				t.Errorf("%+v, %g θ: %.3f of comparisons have a false regression", c, e, r.alarmed/r.comparisons)
			}
			if e >= 1 && r.pass/r.rows > .05+slack {
				t.Errorf("%+v, %g θ: %.3f of rows pass", c, e, r.pass/r.rows)
			}
		}
	}
	t.Logf("\n%s", table.String())
	if few != 1 {
		return
	}
	const path, begin, end = "../../docs/gate.md", "<!-- made by go test ./bench/compare -run ErrorRates -update -->\n", "<!-- end -->\n"
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(doc), begin)
	now, after, ok2 := strings.Cut(rest, end)
	switch {
	case !ok || !ok2:
		t.Fatalf("%s has no place for the table", path)
	case *updateDocs:
		if err := os.WriteFile(path, []byte(before+begin+table.String()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	case runtime.GOARCH != "amd64": // whose products and sums are rounded otherwise
	case now != table.String():
		t.Errorf("%s has another table (-update writes it anew):\n%s", path, now)
	}
}
