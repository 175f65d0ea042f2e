// Package model is a small model checker for concurrent Go code: it runs
// the code itself, not a description of it, under every schedule.
//
// The code's atomics and locks are replaced, behind a build tag, by the types
// of this package. Each access is a step: the goroutine stops before it, and the
// checker chooses who goes next. The search is depth first over all choices,
// stateless in that it reaches a state by running the code again from the start
// along a recorded schedule (as CHESS and loom do), and stateful in that it does
// not go on from a state that it has seen before. Steps are sequentially
// consistent, as sync/atomic is, so the search is exact for code that shares
// nothing but the types of this package and plain fields guarded by its locks.
// One operation is weaker, [Word.StoreBuffered]: as on a processor with total store
// order, it takes effect some time later, in order, at the latest when the thread
// does anything else than load.
//
// The one reduction is a classic: a step that no other thread's step can meet
// before it is done, such as letting go of a lock, is taken at once.
//
// # What makes up a state
//
// The values of all variables, what the Program's Plain and Extra return, and for each thread a
// digest of what it has observed since its present operation began. A thread is
// deterministic, so equal observations mean equal local variables. Plain
// shared fields that a thread reads under a lock are observed by way of Plain, whose
// value is folded into the digest of whoever takes the lock.
//
// Digests are 64 bits wide: among n states a collision, which would cut off
// a branch, has probability below n²/2⁶⁵ (3·10⁻⁶ for ten million).
package model

import (
	"fmt"
	"iter"
	"strings"
)

// A Program is what the checker runs, again and again. Setup and all threads must be
// deterministic.
type Program struct {
	// Threads start with the first step of each. Their code may call Op.
	Threads []func(*Thread)
	// Plain digests the plain fields that threads share.
	Plain func() uint64
	// Extra digests whatever else Step and End remember.
	Extra func() uint64
	// Step is called after each step, with all threads stopped, and
	// reports what is wrong with the state, if anything.
	Step func() error
	// End is called when no thread can go on.
	End func() error
}

// A Result says how far a search went.
type Result struct {
	States, Steps, Runs, Depth int
}

// An Error is a schedule that leads to a failure.
type Error struct {
	Err   error
	Trace []string
}

func (e *Error) Error() string {
	return fmt.Sprintf("%v, after %d steps:\n\t%s", e.Err, len(e.Trace), strings.Join(e.Trace, "\n\t"))
}
func (e *Error) Unwrap() error { return e.Err }

// run is the search under way; the seam's functions have no other way to find it.
// Searches therefore exclude each other within a process.
var run *search

type search struct {
	setup   func() *Program
	limit   int
	prog    *Program
	threads []*Thread
	cur     *Thread
	vars    []*uint64
	err     error
	frames  []frame
	seen    map[uint64]struct{}
	res     Result
	tracing bool
	trace   []string
}

// maxDepth is more steps than any schedule of a program that ends needs.
const maxDepth = 1000

type frame struct {
	chosen int    // a thread, or len(threads) and up: the store buffer of one
	rest   uint64 // bit set of threads still to be tried
}

type wait uint8

const (
	ready    wait = iota
	forValue      // until *on is 0, 1 or whatever want says
	forWake       // until a waker has cleared asleep
)

// A Thread is one goroutine of the program.
type Thread struct {
	ID     int
	s      *search
	next   func() (struct{}, bool)
	stop   func()
	yield  func(struct{}) bool
	hist   uint64
	wait   wait
	on     *uint64
	want   uint64
	asleep bool
	done   bool
	eager  bool // the next step cannot be affected by any other thread
	buffer []buffered
	Blocks string // what the thread waits for, if it does
}

// A buffered store has been done and has not taken effect.
type buffered struct {
	w *Word
	v uint64
}

type killed struct{}

func mix(h, x uint64) uint64 {
	h ^= x + 0x9e3779b97f4a7c15
	h *= 0xbf58476d1ce4e5b9
	h ^= h >> 29
	h *= 0x94d049bb133111eb
	return h ^ h>>32
}

// Mix folds x into digest h.
func Mix(h, x uint64) uint64 { return mix(h, x) }

// Check searches all schedules of the program that setup makes, and returns
// an *Error for the first that fails. It gives up with an error beyond limit states.
func Check(setup func() *Program, limit int) (Result, error) {
	if run != nil {
		panic("model: searches cannot nest")
	}
	s := &search{setup: setup, limit: limit, seen: make(map[uint64]struct{})}
	run = s
	defer func() { run = nil }()
	for {
		more, err := s.execute()
		if err != nil {
			// Run it again, to tell how it went.
			s.tracing = true
			s.trace = nil
			for i := range s.frames {
				s.frames[i].rest = 0
			}
			_, err = s.execute()
			return s.res, &Error{Err: err, Trace: s.trace}
		}
		if !more {
			return s.res, nil
		}
		if len(s.seen) > limit {
			return s.res, fmt.Errorf("model: more than %d states", limit)
		}
	}
}

// execute runs the program once: along the recorded schedule, then depth
// first into new states until there is none. It leaves the schedule of the next run
// and reports whether there is one.
func (s *search) execute() (more bool, err error) {
	s.res.Runs++
	s.vars = s.vars[:0]
	s.err = nil
	s.cur = nil
	s.threads = s.threads[:0]
	s.prog = s.setup()
	for i, f := range s.prog.Threads {
		t := &Thread{ID: i, s: s}
		t.next, t.stop = iter.Pull(func(yield func(struct{}) bool) {
			t.yield = yield
			defer func() {
				if r := recover(); r != nil {
					if _, ok := r.(killed); !ok && s.err == nil {
						s.err = fmt.Errorf("thread %d panics: %v", i, r)
					}
				}
				t.done = true
			}()
			f(t)
		})
		s.threads = append(s.threads, t)
	}
	defer func() {
		for _, t := range s.threads {
			s.cur = t
			t.stop()
		}
		s.cur = nil
	}()
	// Bring each thread to its first step.
	for _, t := range s.threads {
		s.resume(t)
	}
	if s.err != nil {
		return false, s.err
	}
	depth := 0
	for ; depth < len(s.frames); depth++ {
		s.step(s.frames[depth].chosen)
		if s.err == nil && s.prog.Step != nil {
			s.err = s.prog.Step()
		}
		if s.err != nil {
			return false, s.err
		}
	}
	for {
		able := s.able()
		key := s.state()
		if _, old := s.seen[key]; old && !s.tracing {
			break
		}
		s.seen[key] = struct{}{}
		s.res.States = len(s.seen)
		if able == 0 {
			if err := s.prog.End(); err != nil {
				return false, err
			}
			break
		}
		if len(s.frames) == maxDepth {
			return false, fmt.Errorf("no end after %d steps", maxDepth)
		}
		t := lowest(able)
		s.frames = append(s.frames, frame{chosen: t, rest: able &^ (1 << t)})
		s.res.Depth = max(s.res.Depth, len(s.frames))
		s.step(t)
		if s.err == nil && s.prog.Step != nil {
			s.err = s.prog.Step()
		}
		if s.err != nil {
			return false, s.err
		}
	}
	for len(s.frames) > 0 {
		f := &s.frames[len(s.frames)-1]
		if f.rest != 0 {
			f.chosen = lowest(f.rest)
			f.rest &^= 1 << f.chosen
			return true, nil
		}
		s.frames = s.frames[:len(s.frames)-1]
	}
	return false, nil
}

func lowest(set uint64) int {
	for i := 0; ; i++ {
		if set&(1<<i) != 0 {
			return i
		}
	}
}

func (s *search) resume(t *Thread) {
	s.res.Steps++
	s.cur = t
	t.next()
	s.cur = nil
}

// step lets a thread go on, or its oldest buffered store take effect.
func (s *search) step(chosen int) {
	if n := len(s.threads); chosen >= n {
		s.res.Steps++
		s.threads[chosen-n].drain(1)
		return
	}
	s.resume(s.threads[chosen])
}

// drain lets the n oldest buffered stores of t take effect.
func (t *Thread) drain(n int) {
	running := t.s.cur
	t.s.cur = t
	for _, b := range t.buffer[:n] {
		t.note("%s = %d takes effect", b.w.Name, b.v)
		b.w.set(b.v)
	}
	t.buffer = t.buffer[n:]
	t.s.cur = running
}

// able is the set of threads, and of store buffers, that can take a step.
func (s *search) able() uint64 {
	var set uint64
	for i, t := range s.threads {
		switch {
		case t.done,
			t.wait == forValue && *t.on != t.want,
			t.wait == forWake && t.asleep:
		case t.eager:
			// Letting go of a lock, or giving a token: whatever else
			// meets it cannot happen before it, so every other
			// order leads to a state that this one leads to as well.
			return 1 << i
		default:
			set |= 1 << i
		}
	}
	for i, t := range s.threads {
		if len(t.buffer) > 0 {
			set |= 1 << (len(s.threads) + i)
		}
	}
	return set
}

func (s *search) state() uint64 {
	h := mix(s.prog.Plain(), s.prog.Extra())
	for _, v := range s.vars {
		h = mix(h, *v)
	}
	for _, t := range s.threads {
		x := t.hist
		if t.done {
			x = 1
		}
		if t.asleep {
			x = ^x
		}
		h = mix(h, x)
		for _, b := range t.buffer {
			h = mix(mix(h, b.v), b.w.id)
		}
	}
	return h
}

// Current is the running thread, nil during setup.
func Current() *Thread {
	if run == nil {
		return nil
	}
	return run.cur
}

// Op begins an operation: what the thread observed before no longer matters. The
// digest of its private state goes into private.
func (t *Thread) Op(n int, private uint64) {
	t.hist = mix(mix(uint64(t.ID)+2, uint64(n)), private)
}

// Done reports whether the thread has ended.
func (t *Thread) Done() bool { return t.done }

// Fail makes the present schedule a failure.
func (t *Thread) Fail(format string, args ...any) {
	if t.s.err == nil {
		t.s.err = fmt.Errorf("thread %d: %s", t.ID, fmt.Sprintf(format, args...))
	}
}

// pause stops before a step until the checker chooses the thread.
func (t *Thread) pause() {
	if !t.yield(struct{}{}) {
		panic(killed{})
	}
	t.wait = ready
	t.eager = false
	t.Blocks = ""
}

func (t *Thread) observe(tag, v uint64) { t.hist = mix(t.hist, mix(tag, v)) }

func (t *Thread) note(format string, args ...any) {
	if t.s.tracing {
		t.s.trace = append(t.s.trace, fmt.Sprintf("%d: ", t.ID)+fmt.Sprintf(format, args...))
	}
}

// A Word is an atomic variable. Register it before use.
type Word struct {
	v     uint64
	Name  string
	Write func(old, new uint64) // called as part of each step that writes
	known bool
	id    uint64
}

// Register makes w part of the state.
func (w *Word) Register(name string) {
	w.Name, w.known, w.id = name, true, uint64(len(run.vars))
	run.vars = append(run.vars, &w.v)
}

// Peek reads w without a step.
func (w *Word) Peek() uint64 { return w.v }

// fenced is begin for an access that also drains the thread's store buffer.
func (w *Word) fenced() *Thread {
	t := w.begin()
	if t != nil {
		t.drain(len(t.buffer))
	}
	return t
}

// begin stops the running thread before an access. It returns nil during
// setup, when accesses are not steps.
func (w *Word) begin() *Thread {
	t := Current()
	if t == nil {
		return nil
	}
	if !w.known {
		panic("model: a variable is not registered")
	}
	t.pause()
	return t
}

func (w *Word) set(x uint64) {
	old := w.v
	w.v = x
	if w.Write != nil {
		w.Write(old, x)
	}
}

// Load reads w.
func (w *Word) Load() uint64 {
	t := w.begin()
	if t == nil {
		return w.v
	}
	v := w.v
	for _, b := range t.buffer {
		if b.w == w {
			v = b.v // a thread sees its own stores
		}
	}
	t.observe(1, v)
	t.note("%s is %d", w.Name, v)
	return v
}

// StoreBuffered writes w, some time later: see the package's documentation.
func (w *Word) StoreBuffered(x uint64) {
	t := w.begin()
	if t == nil {
		w.v = x
		return
	}
	t.observe(12, 0)
	t.note("%s = %d, buffered", w.Name, x)
	t.buffer = append(t.buffer, buffered{w, x})
}

// HeavyFence lets the buffered stores of all threads take effect, as membarrier(2) does.
func HeavyFence() {
	t := Current()
	t.pause()
	t.observe(13, 0)
	t.note("heavy fence")
	for _, o := range t.s.threads {
		o.drain(len(o.buffer))
	}
}

// Store writes w.
func (w *Word) Store(x uint64) {
	t := w.fenced()
	if t == nil {
		w.v = x
		return
	}
	t.observe(2, 0)
	t.note("%s = %d", w.Name, x)
	w.set(x)
}

// Swap writes w and returns what it was.
func (w *Word) Swap(x uint64) uint64 {
	old := w.v
	if t := w.fenced(); t != nil {
		old = w.v
		t.observe(3, old)
		t.note("%s = %d, was %d", w.Name, x, old)
	}
	w.set(x)
	return old
}

// CompareAndSwap writes w if it is old.
func (w *Word) CompareAndSwap(old, new uint64) bool {
	t := w.fenced()
	ok := w.v == old
	if t != nil {
		var o uint64
		if ok {
			o = 1
		}
		t.observe(4, o)
		t.note("%s: %d -> %d %t", w.Name, old, new, ok)
	}
	if ok {
		w.set(new)
	}
	return ok
}

// A Mutex is a lock.
type Mutex struct {
	held  uint64
	Name  string
	known bool
}

// Register makes m part of the state.
func (m *Mutex) Register(name string) {
	m.Name, m.known = name, true
	run.vars = append(run.vars, &m.held)
}

// Held reports whether somebody holds m.
func (m *Mutex) Held() bool { return m.held != 0 }

// Lock waits until nobody holds m, and holds it.
func (m *Mutex) Lock() {
	t := Current()
	if t == nil {
		return
	}
	if !m.known {
		panic("model: a mutex is not registered")
	}
	t.wait, t.on, t.want, t.Blocks = forValue, &m.held, 0, m.Name
	t.pause()
	t.drain(len(t.buffer))
	m.held = 1
	t.observe(5, t.s.prog.Plain())
	t.note("lock %s", m.Name)
}

// Unlock lets m go.
func (m *Mutex) Unlock() {
	t := Current()
	if t == nil {
		return
	}
	t.eager = len(t.buffer) == 0
	t.pause()
	t.drain(len(t.buffer))
	if m.held == 0 {
		t.Fail("unlock of unlocked %s", m.Name)
	}
	m.held = 0
	t.observe(6, 0)
	t.note("unlock %s", m.Name)
}

// A Token is a semaphore that holds at most one.
type Token struct {
	n     uint64
	Name  string
	known bool
}

// Register makes k part of the state.
func (k *Token) Register(name string) {
	k.Name, k.known = name, true
	run.vars = append(run.vars, &k.n)
}

// Acquire waits for a token.
func (k *Token) Acquire() {
	t := Current()
	t.wait, t.on, t.want, t.Blocks = forValue, &k.n, 1, "sleep"
	t.pause()
	t.drain(len(t.buffer))
	k.n = 0
	t.observe(7, 0)
	t.note("wakes up from %s", k.Name)
}

// Release gives a token. One too many is a failure.
func (k *Token) Release() {
	t := Current()
	if !k.known {
		panic("model: a token is not registered")
	}
	t.eager = k.n == 0 && len(t.buffer) == 0
	t.pause()
	t.drain(len(t.buffer))
	if k.n != 0 {
		t.Fail("second token for %s", k.Name)
	}
	k.n = 1
	t.observe(8, 0)
	t.note("wakes %s", k.Name)
}

// FutexWait sleeps if w is old, until FutexWake.
func FutexWait(w *Word, old uint64) {
	t := w.fenced()
	if w.v != old {
		t.observe(9, 1)
		t.note("does not sleep: %s is %d", w.Name, w.v)
		return
	}
	t.observe(9, 0)
	t.note("sleeps on %s", w.Name)
	t.wait, t.on, t.asleep, t.Blocks = forWake, &w.v, true, "sleep"
	t.pause()
	t.observe(10, 0)
	t.note("wakes up from %s", w.Name)
}

// FutexWake wakes one thread that sleeps on w.
func FutexWake(w *Word) {
	t := w.fenced()
	t.observe(11, 0)
	t.note("wakes %s", w.Name)
	for _, o := range t.s.threads {
		if o.asleep && o.on == &w.v {
			o.asleep = false
			return
		}
	}
}

// Mark returns what the thread has observed so far; Rewind makes it forget
// what it has observed since. A loop whose failed attempt leaves nothing behind
// may say so, and thereby come back to a state that is known.
func Mark() uint64 {
	if t := Current(); t != nil {
		return t.hist
	}
	return 0
}

// Rewind is the counterpart of [Mark].
func Rewind(m uint64) {
	if t := Current(); t != nil {
		t.hist = m
	}
}
