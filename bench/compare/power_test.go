package compare

import (
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

// share runs many comparisons and returns which part ends in pass and regressed.
func share(seed uint64, noise float64, effect, theta float64, rounds int, design func(*machine, int, float64) pair) (pass, regressed float64) {
	const n = 400
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range n {
		p := design(newMachine(rnd, noise), rounds, effect)
		switch {
		case p.exceeds(1+theta) <= DefaultAlpha:
			regressed++
		case p.below(1+theta) <= DefaultAlpha:
			pass++
		}
	}
	return pass / n, regressed / n
}

// TestPowerAndFalseAlarms is where the figures in the package documentation
// come from (-v prints them). It is deterministic.
func TestPowerAndFalseAlarms(t *testing.T) {
	const theta, rounds = .05, 50
	signed := func(m *machine, rounds int, effect float64) pair { return m.interleaved(rounds, effect) }
	u := func(m *machine, rounds int, effect float64) pair { return unpaired(m.interleaved(rounds, effect)) }
	blocks := (*machine).oneAfterTheOther
	type figures struct{ pass, regressed float64 }
	got := map[string]map[float64]figures{}
	for _, d := range []struct {
		name   string
		design func(*machine, int, float64) pair
	}{{"signed ranks", signed}, {"U, interleaved", u}, {"U, A then B", blocks}} {
		got[d.name] = map[float64]figures{}
		for _, effect := range []float64{0, .02, .05, .08, .10} {
			pass, regressed := share(uint64(100*effect), 1, 1+effect, theta, rounds, d.design)
			got[d.name][effect] = figures{pass, regressed}
			t.Logf("%-15s true effect %3.0f%%: pass %5.1f%%  regressed %5.1f%%  inconclusive %5.1f%%", d.name, 100*effect, 100*pass, 100*regressed, 100*(1-pass-regressed))
		}
	}
}
