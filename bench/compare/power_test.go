package compare

import (
	"flag"
	"math"
	"math/rand/v2"
	"testing"
)

// A machine makes noise like that of a small virtual machine, seen from outside:
// each run has an offset of its own; the CPU changes between two speeds, 18%
// apart, every few seconds; everything drifts; now and then some seconds are 40%
// slower; tails are heavy (Student's t with 3 degrees of freedom).
type machine struct {
	rnd   *rand.Rand
	noise float64 // scales all of it; 1 is a bad day
	t     float64 // s
	slow  bool
	stall float64 // until when
	drift float64
}

func newMachine(rnd *rand.Rand, noise float64) *machine {
	return &machine{rnd: rnd, noise: noise, slow: rnd.IntN(3) == 0, drift: .2 * rnd.NormFloat64()}
}

// run takes d seconds and returns the cost of a call, about 1.
func (m *machine) run(d float64) float64 {
	m.t += d
	leave := d / 4
	if m.slow {
		leave = d / 2
	}
	if m.rnd.Float64() < leave {
		m.slow = !m.slow
	}
	if m.rnd.Float64() < d/20 {
		m.stall = m.t + 5*m.rnd.ExpFloat64()
	}
	v := .03*m.rnd.NormFloat64() + .025*m.student() + m.drift*m.t/60
	if m.slow {
		v += .17
	}
	if m.t < m.stall {
		v += .34
	}
	return math.Exp(v * m.noise)
}

func (m *machine) student() float64 {
	a, b, c := m.rnd.NormFloat64(), m.rnd.NormFloat64(), m.rnd.NormFloat64()
	return m.rnd.NormFloat64() / math.Sqrt((a*a+b*b+c*c)/3)
}

// interleaved is one comparison of some rounds, each command once a round; new
// costs effect times as much.
func (m *machine) interleaved(rounds int, effect float64) pair {
	p := pair{x: make([]float64, rounds), y: make([]float64, rounds), paired: true}
	orders := newOrder(m.rnd.Uint64())
	for i := range rounds {
		for _, side := range orders.next() {
			if side == 0 {
				p.x[i] = m.run(.33)
			} else {
				p.y[i] = effect * m.run(.33)
			}
		}
	}
	return p
}

func (m *machine) oneAfterTheOther(rounds int, effect float64) pair {
	p := pair{x: make([]float64, rounds), y: make([]float64, rounds)}
	for i := range p.x {
		p.x[i] = m.run(.33)
	}
	for i := range p.y {
		p.y[i] = effect * m.run(.33)
	}
	return p
}

func unpaired(p pair) pair { p.paired = false; return p }

// A figure is the part of comparisons that end in each verdict.
type figure struct{ pass, regressed, inconclusive float64 }

// simulate runs n comparisons as compare does, the confirmation included.
func simulate(seed uint64, n int, noise, effect float64, rounds int, confirm bool, design func(*machine, int, float64) pair) (f figure) {
	const theta = DefaultThreshold
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range n {
		m := newMachine(rnd, noise)
		p := design(m, rounds, 1+effect)
		switch {
		case p.exceeds(1+theta) <= DefaultAlpha:
			if confirm {
				fresh := design(m, rounds, 1+effect)
				center, _, _ := fresh.effect(DefaultAlpha)
				if !(center > 1+theta) || fresh.exceeds(1) > DefaultAlpha {
					f.inconclusive++
					continue
				}
			}
			f.regressed++
		case p.below(1+theta) <= DefaultAlpha:
			f.pass++
		default:
			f.inconclusive++
		}
	}
	f.pass, f.regressed, f.inconclusive = f.pass/float64(n), f.regressed/float64(n), f.inconclusive/float64(n)
	return f
}

var long = flag.Bool("long", false, "simulate as many comparisons as the documentation's figures are of")

// TestPowerAndFalseAlarms is where the figures in the package documentation
// come from (-long -v prints them). It is deterministic.
func TestPowerAndFalseAlarms(t *testing.T) {
	if testing.Short() {
		t.Skip("simulates for seconds")
	}
	t.Parallel()
	n, effects := 100, []float64{0, .05, .10}
	if *long {
		n, effects = 400, []float64{0, .02, .05, .08, .10}
	}
	const rounds = 50
	ranks := func(m *machine, rounds int, effect float64) pair { return m.interleaved(rounds, effect) }
	u := func(m *machine, rounds int, effect float64) pair { return unpaired(m.interleaved(rounds, effect)) }
	got := map[string]map[float64]figure{}
	for _, d := range []struct {
		name    string
		noise   float64
		rounds  int
		confirm bool
		design  func(*machine, int, float64) pair
	}{
		{"signed ranks, confirmed", 1, rounds, true, ranks},
		{"signed ranks", 1, rounds, false, ranks},
		{"U on the same runs", 1, rounds, false, u},
		{"U, A then B", 1, rounds, false, (*machine).oneAfterTheOther},
		{"a calm machine, 10 rounds", .25, 10, true, ranks},
		{"4 times the noise", 4, rounds, true, ranks},
	} {
		got[d.name] = map[float64]figure{}
		for _, effect := range effects {
			f := simulate(uint64(100*effect), n, d.noise, effect, d.rounds, d.confirm, d.design)
			got[d.name][effect] = f
			t.Logf("%-26s true effect %3.0f%%: pass %5.1f%%  regressed %5.1f%%  inconclusive %5.1f%%", d.name, 100*effect, 100*f.pass, 100*f.regressed, 100*f.inconclusive)
		}
	}
	g := got["signed ranks, confirmed"]
	if f := g[0]; f.pass < .9 || f.regressed > 0 {
		t.Errorf("A/A: %+v", f)
	}
	if f := g[.10]; f.regressed < .95 || f.pass > 0 {
		t.Errorf("10%% more: %+v", f)
	}
	// At the threshold itself both errors keep their level: 5%, and what chance
	// adds to it in n comparisons.
	slack := 2 * math.Sqrt(.05*.95/float64(n))
	for _, name := range []string{"signed ranks, confirmed", "signed ranks", "a calm machine, 10 rounds", "4 times the noise"} {
		if f := got[name][.05]; f.regressed > .05+slack || f.pass > .05+slack {
			t.Errorf("%s, at the threshold: %+v", name, f)
		}
	}
	// Noise that hides 10% is no pass.
	if f := got["4 times the noise"][.10]; f.pass > .02 {
		t.Errorf("10%% more under much noise: %+v", f)
	}
	if f := got["4 times the noise"][0]; f.inconclusive < .5 || f.regressed > .05 {
		t.Errorf("A/A under much noise: %+v", f)
	}
	// Why rounds: without them the same runs show less, and one side after the
	// other is wrong more often than any level.
	if a, b := g[.10].regressed, got["U on the same runs"][.10].regressed; b > a-.1 {
		t.Errorf("pairing gains nothing: %v, unpaired %v", a, b)
	}
	if f := got["U, A then B"][0]; f.regressed < .1 {
		t.Errorf("A then B has few false alarms: %+v", f)
	}
}

// TestNoiseIsThatOfTheMachine: what one round's ratio varies by, for the
// documentation to hold beside measured figures.
func TestNoiseIsThatOfTheMachine(t *testing.T) {
	rnd := rand.New(rand.NewPCG(11, 0))
	sum, squares, n := 0.0, 0.0, 0.0
	for range 200 {
		p := newMachine(rnd, 1).interleaved(50, 1)
		for i := range p.x {
			d := math.Log(p.y[i] / p.x[i])
			sum, squares, n = sum+d, squares+d*d, n+1
		}
	}
	sd := math.Sqrt(squares/n - sum*sum/n/n)
	t.Logf("standard deviation of ln(new/old) of a round: %.3f", sd)
	if sd < .08 || sd > .16 {
		t.Errorf("standard deviation %v", sd)
	}
}
