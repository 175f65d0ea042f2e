package storm

import (
	"math"
	"math/rand/v2"

	"github.com/unknot/unknot/internal/mono"
	"golang.org/x/sys/unix"
)

// But for targets that shall be stopped (script.yields), nothing in the loops of this
// file may be a point of preemption: after 10 ms
// without one the scheduler asks each goroutine to yield, and for a thread-locked
// goroutine that is a hand-over through several futexes. With 256 threads it
// halved the storm: all callees are nosplit, and asynchronous preemption is off
// (see Start).

// prepared is a system call whose arguments are there.
type prepared struct {
	nr   uintptr
	args [5]uintptr
}

func prepare() (ps [numCalls]prepared) {
	for c := getppid; c < numCalls; c++ {
		ps[c] = prepared{callInfo[c].nr, callInfo[c].args()}
	}
	return ps
}

//go:nosplit
func (p *prepared) call(tag uintptr) (uintptr, unix.Errno) {
	v, _, e := unix.RawSyscall6(p.nr, p.args[0], p.args[1], p.args[2], p.args[3], p.args[4], Mark<<32|tag)
	return v, e
}

// enter is call as most of a Go program's calls are made: the scheduler knows. Where
// it does not, the collector waits for the call, and interrupts it each 100 µs until
// it ends. With handlers slower than that it hardly ever does: such a storm served 12
// calls in a second, and would not halt.
func (p *prepared) enter(tag uintptr) (uintptr, unix.Errno) {
	v, _, e := unix.Syscall6(p.nr, p.args[0], p.args[1], p.args[2], p.args[3], p.args[4], Mark<<32|tag)
	return v, e
}

// count counts an outcome and, of a trip of at least 0 ns, its time.
//
//go:nosplit
func (t *thread) count(e unix.Errno, trip int64) {
	switch e {
	case 0:
		if trip >= 0 {
			t.roundTrip.RecordAlone(trip)
		}
		t.ok.add()
	default:
		if trip >= 0 {
			t.failTrip.RecordAlone(trip)
		}
		t.errnos[index(e)].add()
	}
}

// A script is what a thread of the closed loop does, in turn and over again.
type script struct {
	calls  []prepared
	thinks []int64 // ns
	sleep  bool
	// Of 1,024 threads in turn none finds its system stack in the cache, on which Go reads the kernel's clock: with the
	// counter they made 1.15 times the calls, and 64 of them, on a bare supervisor, 1.07 times. Processes that
	// are replaced, which live too short to draw a line, have the kernel's clock.
	clock  *mono.Line
	limit  int // calls; 0: as many as it can
	yields bool

	numbered bool
	seed     uint64
	index    int // of the thread
}

//go:nosplit
func (s *script) call(p *prepared, tag uintptr) (uintptr, unix.Errno) {
	if s.yields {
		return p.enter(tag)
	}
	return p.call(tag)
}

// numbered makes a call that has a number, and counts it, and a value that another call should have had.
//
//go:nosplit
func (t *thread) numbered(s *script, p *prepared) unix.Errno {
	tag := uint64(s.index)<<serialBits | t.made.Load()%(1<<serialBits)
	t.made.add()
	v, e := s.call(p, uintptr(tag))
	if e == 0 && int64(v) != Answer(s.seed, tag) {
		t.strayed.add()
	}
	return e
}

// serialBits of a number are of the thread's calls, those above of the thread.
const serialBits = 18

// Answer is the value that a supervisor has to return to a call of a [Config.Numbered] storm with that
// seed, by the call's sixth argument.
//
//go:nosplit
func Answer(seed, arg uint64) int64 { return int64(seed<<34>>2 | arg&math.MaxUint32) }

// Number is the thread that made a call with that sixth argument, and which of its calls that is, modulo 1<<18.
func Number(arg uint64) (thread, serial uint32) {
	return uint32(arg) >> serialBits, uint32(arg) % (1 << serialBits)
}

func newScript(c *Config, index int, clock *mono.Line, r *rand.Rand) script {
	ps := prepare()
	s := script{clock: clock, numbered: c.Numbered, seed: c.Seed, index: index}
	deck := c.Mix.deck(1 << 10)
	r.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
	if len(c.Mix.calls()) == 1 {
		deck = deck[:1]
	}
	for _, k := range deck {
		s.calls = append(s.calls, ps[k])
	}
	s.thinks = c.thinks(func() float64 { return c.Think.Draw(r) })
	s.sleep = c.Think.Sleep
	return s
}

// closed makes a call, thinks, makes the next.
func (t *thread) closed(h *header, s *script) {
	var call, think int
	last := s.clock.Now()
	t.begin(last)
	defer func() { t.end(last) }() // by the last clock reading: what comes after it is no call
	for n := 1; h.stopAt.Load() == 0; n++ {
		var e unix.Errno
		if s.numbered {
			e = t.numbered(s, &s.calls[call])
		} else {
			_, e = s.call(&s.calls[call], 0)
		}
		end := s.clock.Now()
		t.count(e, end-last)
		last = end
		if e == unix.ENOSYS || n == s.limit { // ENOSYS: the supervisor is gone for good
			return
		}
		if s.yields {
			yield(n)
		}
		if call++; call == len(s.calls) {
			call = 0
		}
		if d := s.thinks[think]; d > 0 {
			if think++; think == len(s.thinks) {
				think = 0
			}
			if s.sleep {
				h.sleepUntil(mono.Now() + d)
			}
			for last-end < d && h.stopAt.Load() == 0 {
				last = s.clock.Now()
			}
			t.idle.Add(last - end)
		}
	}
}

// yield looks at its stack's limit, as nearly every function of an ordinary program
// does: there the runtime can stop it.
//
//go:noinline
func yield(n int) byte {
	var frame [256]byte // small ones go without
	frame[n&0xff] = byte(n)
	return frame[n>>8&0xff]
}

// untimed is closed without clocks and thoughts.
func (t *thread) untimed(h *header, s *script) {
	t.begin(mono.Now())
	defer func() { t.end(mono.Now()) }()
	for h.stopAt.Load() == 0 {
		_, e := s.calls[0].call(0)
		t.count(e, -1)
		if e == unix.ENOSYS {
			return
		}
	}
}

// open takes the next call of the schedule, waits for its time and makes it.
//
// Whoever takes a call after its time, was busy at that time and sees nobody rest says
// so: calls are taken in order, so no thread had nothing to do at that time, and this
// call started late because there are too few.
func (t *thread) open(h *header, calls []entry, ps *[numCalls]prepared) {
	last := mono.Now()
	t.begin(last)
	defer func() { t.end(last) }()
	for {
		h.permit()
		k := h.next.Add(1) - 1
		if k >= uint64(len(calls)) {
			return
		}
		c := &calls[k]
		at := h.origin.Load() + c.at
		now := mono.Now()
		late := now > at && last > at && h.resting.Load() == 0
		for now < at {
			if h.stopAt.Load() != 0 {
				return
			}
			h.sleepUntil(at)
			now = mono.Now()
		}
		// What was due before the stop is made, unless the parent gave up on it.
		if stop := h.stopAt.Load(); stop != 0 && (at > stop || h.abandon.Load() != 0) {
			return
		}
		h.pass()
		start := mono.Now()
		t.idle.Add(start - last)
		_, e := ps[c.call].call(uintptr(c.tag))
		last = mono.Now()
		t.count(e, last-start)
		c.late.Store(b2i(late))
		c.errno.Store(uint32(e))
		c.started.Store(start)
		c.ended.Store(last)
		if e == unix.ENOSYS {
			return
		}
	}
}

//go:nosplit
func b2i(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// begin and end enclose a thread's time in its loop.
func (t *thread) begin(now int64) {
	t.begun.Store(now)
	t.tid.Store(int32(unix.Gettid()))
	t.state.Store(inLoop)
	t.lives.Add(1)
}

func (t *thread) end(now int64) {
	t.ended.Store(now)
	t.state.Store(ended)
}

// ring makes one call. Nobody to answer it is what it may be there to find.
func (t *thread) ring() {
	switch _, _, e := unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0); e {
	case unix.ENOSYS:
	default:
		t.count(e, -1)
	}
}
