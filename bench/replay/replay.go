// Package replay makes a recording the load of a storm: its calls at the times at which they came.
package replay

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/bench/record"
	"github.com/unknot/unknot/bench/storm"
)

// Arrivals are a recording as the arrivals of a storm: an open loop of its calls at
// the times at which they came, over and over if the storm lasts longer. Dropped
// calls are made too. Each call's tag is how long its handler took (bench.TagWork), computing
// or asleep; where that is not known, it is drawn from the calls of the same
// system call for which it is, or else from all: how long a call is served does not
// depend on how long it waited.
type Arrivals struct {
	rec   *record.Recording
	known [][]int32 // by system call: calls whose service is known
	all   []int32
	sleep []bool // by system call: its handlers sleep, mostly

	speed    float64 // how many times as fast as it was recorded
	anywhere bool    // the seed chooses where it begins
}

// ErrServiceUnknown is that of a recording without service times.
var ErrServiceUnknown = errors.New("the recording has no service times: its supervisor never asked ID_VALID, and so nobody saw when handlers began")

// Of returns r as arrivals. It fails with [ErrServiceUnknown]; a storm whose
// handlers do not work by the tags can do without.
func Of(r *record.Recording) (*Arrivals, error) {
	p := &Arrivals{rec: r, speed: 1, known: make([][]int32, len(r.Syscalls)), sleep: make([]bool, len(r.Syscalls))}
	how := r.Service().Dispatch
	// A thread that a runtime takes the right to run from looks asleep as well: most
	// of the time decides, not one call.
	balance := make([]int64, len(r.Syscalls))
	for i := range r.Calls {
		c := &r.Calls[i]
		if how == record.Unseen || c.Outcome != record.Served || c.Dispatch != how {
			continue
		}
		p.known[c.Syscall] = append(p.known[c.Syscall], int32(i))
		p.all = append(p.all, int32(i))
		if c.Blocked {
			balance[c.Syscall] += c.Service
		} else {
			balance[c.Syscall] -= c.Service
		}
	}
	if p.all == nil {
		return p, ErrServiceUnknown
	}
	for i, b := range balance {
		p.sleep[i] = b > 0
	}
	return p, nil
}

// Faster is p with calls x times as often; handlers take as long as before.
func (p *Arrivals) Faster(x float64) *Arrivals {
	q := *p
	q.speed *= x
	return &q
}

// Anywhere is p with each schedule beginning where its seed chooses, and not with the
// recording: what differs from storm to storm is then the arrivals too.
func (p *Arrivals) Anywhere() *Arrivals {
	q := *p
	q.anywhere = true
	return &q
}

// Rate is how many calls are made per second.
func (p *Arrivals) Rate() float64 { return p.rec.Rate() * p.speed }

// Gaps are the times between calls in ns, from the recording's first; it is a turn of the
// replay long, the last call being followed by what is left of the recording.
func (p *Arrivals) Gaps() []int64 {
	gaps := p.rec.Gaps()
	gaps[0] += int64(p.rec.Elapsed) - p.rec.Calls[len(p.rec.Calls)-1].Arrival
	for i, g := range gaps {
		gaps[i] = int64(float64(g) / p.speed)
	}
	return gaps
}

// String names the replay by the rate of its calls.
func (p *Arrivals) String() string { return fmt.Sprintf("recorded:%.0f", p.Rate()) }

// Schedule implements [storm.Arrivals]. The seed is of the services that are drawn.
func (p *Arrivals) Schedule(d time.Duration, seed uint64) ([]storm.Arrival, error) {
	if n := p.Rate() * d.Seconds(); n > storm.MaxArrivals {
		return nil, fmt.Errorf("the recording's %.0f calls in %v: a schedule holds %d: shorten the storm", n, d, storm.MaxArrivals)
	}
	calls := make([]storm.Call, len(p.rec.Syscalls))
	for i, s := range p.rec.Syscalls {
		calls[i] = storm.CallOf(s.Arch, s.NR)
	}
	rng := rand.New(rand.NewPCG(seed, 0x7265706c6179))
	var skip time.Duration // of the recording
	if p.anywhere {
		skip = time.Duration(rng.Int64N(int64(p.rec.Elapsed)))
	}
	var as []storm.Arrival
	for turn := -skip; p.shrunk(turn) < d; turn += p.rec.Elapsed {
		for i := range p.rec.Calls {
			c := &p.rec.Calls[i]
			at := turn + time.Duration(c.Arrival)
			if at < 0 {
				continue
			}
			if at = p.shrunk(at); at >= d {
				break
			}
			as = append(as, storm.Arrival{At: at, Call: calls[c.Syscall], Tag: p.tag(int32(i), rng)})
		}
	}
	return as, nil
}

// shrunk is when what was recorded at t comes.
func (p *Arrivals) shrunk(t time.Duration) time.Duration {
	return time.Duration(float64(t) / p.speed)
}

// tag is call i's work.
func (p *Arrivals) tag(i int32, rng *rand.Rand) uint32 {
	if len(p.all) == 0 {
		return 0
	}
	c := &p.rec.Calls[i]
	of := p.known[c.Syscall]
	if len(of) == 0 {
		of = p.all
	}
	if _, ok := slices.BinarySearch(of, i); !ok {
		c = &p.rec.Calls[of[rng.IntN(len(of))]]
	}
	return bench.TagWork(time.Duration(c.Service), p.sleep[c.Syscall])
}
