package storm

import (
	"math/rand/v2"
	"os"
	"sync/atomic"
	"time"

	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/internal/mono"
)

// childConfig is what the target process is told.
type childConfig struct {
	Config
	Calls int    // of the schedule
	Traps []Call // by the filter
}

// thread is one target's block in shared memory, written by it alone.
type thread struct {
	state               atomic.Uint32
	lives               atomic.Uint32 // how often a loop was begun
	tid                 atomic.Int32
	_                   [52]byte
	ok                  tally
	errnos              [errnos]tally
	begun, ended, idle  atomic.Int64 // ns: when the loop began and ended; in it, without a call
	made, strayed       tally        // of numbered calls: begun, and those with another's answer
	roundTrip, failTrip hist.Hist
	_                   [64]byte
}

// inFlight is the time of a thread, now at rest, that it was not idle.
func (t *thread) inFlight(now int64) time.Duration {
	begun, end := t.begun.Load(), t.ended.Load()
	if begun == 0 {
		return 0
	}
	if end == 0 {
		end = now
	}
	return time.Duration(end - begun - t.idle.Load())
}

// header is the start of the shared memory.
type header struct {
	stopAt  atomic.Int64  // ns, when the storm was halted; 0: not yet
	started atomic.Uint32 // a futex
	halted  atomic.Uint32 // a futex: 1 once stopAt is set
	waiting atomic.Uint32 // threads that wait, or have waited, for start
	rung    atomic.Uint32 // calls that Ring asked for and that were answered
	abandon atomic.Uint32 // what is due need not be made any more
	origin  atomic.Int64  // ns, of the schedule's times
	// disturbed is how many calls may have ended without their answer.
	disturbed atomic.Uint64
	_         [72]byte
	permits   atomic.Int32  // a futex: how many threads may yet take a call of the schedule
	resting   atomic.Int32  // threads that wait for a permit
	next      atomic.Uint64 // the first call of the schedule that no thread has taken
	_         [56]byte
}

// Of an open loop no more than holders threads wait for the times of the next calls. The
// others rest, until reserve of these places are free: a thread that was away for long
// comes back with cold caches, and with 500 that took turns a call cost the targets
// three times the CPU time that it does with 64.
const (
	holders = 64
	reserve = 16
)

// entry is one call of a schedule. ended is written last; the times are absolute.
type entry struct {
	at             int64 // ns after the origin
	started, ended atomic.Int64
	call, tag      uint32
	errno, late    atomic.Uint32
}

// shared has a block for each target and a last one for Ring's calls.
type shared struct {
	head    *header
	threads []thread
	calls   []entry
	file    *os.File   // of the memory, in a target process
	clock   *mono.Line // of its closed loops
}

func (s *shared) hammers() []thread { return s.threads[:max(1, len(s.threads))-1] }

// plan writes the schedule down, each call drawn.
func (s *shared) plan(c *Config) {
	r := rand.New(rand.NewPCG(c.Seed, 0x63616c6c73))
	for i, a := range c.Schedule {
		if a.Call == anyCall {
			a.Call = c.Mix.draw(r)
		}
		s.calls[i].at, s.calls[i].call, s.calls[i].tag = int64(a.At), uint32(a.Call), a.Tag
	}
}

// log is what became of the schedule.
func (s *shared) log() []made {
	origin, log := s.head.origin.Load(), make([]made, len(s.calls))
	for i := range s.calls {
		e := &s.calls[i]
		m := made{Intended: origin + e.at}
		if end := e.ended.Load(); end != 0 {
			m.Started, m.Ended = e.started.Load(), end
			m.Errno, m.Late = e.errno.Load(), e.late.Load() != 0
		}
		log[i] = m
	}
	return log
}
