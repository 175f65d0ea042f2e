package record

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/bench/storm"
)

// A Replay is a recording as the arrivals of a storm: an open loop of its calls at
// the times at which they came, over and over if the storm lasts longer. Dropped
// calls are made too. Each call's tag is how long its handler computed, or took if it
// slept (bench.TagWork); where that is not known, it is drawn from the calls of the same
// system call for which it is, or else from all: how long a call is served does not
// depend on how long it waited.
type Replay struct {
	rec   *Recording
	known [][]int32 // by system call: calls whose service is known
	all   []int32
	sleep []bool // by system call: its handlers sleep, mostly
}

// ErrServiceUnknown is that of a recording without service times.
var ErrServiceUnknown = errors.New("the recording has no service times: its supervisor never asked ID_VALID, and so nobody saw when handlers began")

// Replay returns r as arrivals. It fails with [ErrServiceUnknown]; a storm whose
// handlers do not work by the tags can do without.
func (r *Recording) Replay() (*Replay, error) {
	p := &Replay{rec: r, known: make([][]int32, len(r.Syscalls)), sleep: make([]bool, len(r.Syscalls))}
	how := r.Service().Dispatch
	// A thread that a runtime takes the right to run from looks asleep as well: most
	// of the time decides, not one call.
	balance := make([]int64, len(r.Syscalls))
	for i := range r.Calls {
		c := &r.Calls[i]
		if how == Unseen || c.Outcome != Served || c.Dispatch != how {
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

// String names the replay by the rate of its calls.
func (p *Replay) String() string { return fmt.Sprintf("recorded:%.0f", p.rec.Rate()) }

// Schedule implements [storm.Arrivals]. The seed is of the services that are drawn.
func (p *Replay) Schedule(d time.Duration, seed uint64) ([]storm.Arrival, error) {
	if n := p.rec.Rate() * d.Seconds(); n > storm.MaxArrivals {
		return nil, fmt.Errorf("the recording's %.0f calls in %v: a schedule holds %d: shorten the storm", n, d, storm.MaxArrivals)
	}
	calls := make([]storm.Call, len(p.rec.Syscalls))
	for i, s := range p.rec.Syscalls {
		calls[i] = storm.CallOf(s.Arch, s.NR)
	}
	rng := rand.New(rand.NewPCG(seed, 0x7265706c6179))
	var as []storm.Arrival
	for start := time.Duration(0); start < d; start += p.rec.Elapsed {
		for i := range p.rec.Calls {
			c := &p.rec.Calls[i]
			at := start + time.Duration(c.Arrival)
			if at >= d {
				break
			}
			as = append(as, storm.Arrival{At: at, Call: calls[c.Syscall], Tag: p.tag(int32(i), rng)})
		}
	}
	return as, nil
}

// tag is call i's work.
func (p *Replay) tag(i int32, rng *rand.Rand) uint32 {
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
	if p.sleep[c.Syscall] {
		return bench.TagWork(time.Duration(c.Service), true)
	}
	return bench.TagWork(time.Duration(c.Service-c.Away), false)
}
