//go:build fakekernel

package engine_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/notify/notifytest"
	"github.com/unknot/unknot/engine/policy"
	"golang.org/x/sys/unix"
)

var (
	modelFor  = flag.Duration("model", 3*time.Second, "how long to run random schedules")
	modelSeed = flag.Uint64("seed", 0, "the first random schedule; 0: another one each time")
	modelLog  = flag.Bool("steps", false, "print each step of the schedule of -seed")
	modelOne  = flag.Bool("one", false, "only the schedule of -seed")
)

// A schedule is one run of the model: an engine, its targets, and what happens to them when. All of it is in its text, so
// that one which failed can be shrunk and kept.
type schedule struct {
	seed    uint64 // of handlers, faults and preemptions
	profile int    // of notifytest.Profiles
	fault   int    // one ioctl in so many is interrupted; 0: none
	flags   notify.InstallFlags

	inline, inliner, threads, several bool
	queue, workers, receivers         int
	policy                            policy.Kind
	deadline, age                     time.Duration
	dropContinue, check               bool

	listeners, targets, calls int
	think                     time.Duration
	quick                     bool // handlers answer at once, and threads seldom lose their CPU
	events                    []event
}

// An event is something that happens to a listener, or to a target of it.
type event struct {
	at       time.Duration
	what     string
	listener int
	target   int
}

func (s *schedule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d profile %d fault %d flags %d\n", s.seed, s.profile, s.fault, s.flags)
	fmt.Fprintf(&b, "inline %t inliner %t threads %t several %t queue %d workers %d receivers %d policy %d deadline %d age %d continue %t check %t\n",
		s.inline, s.inliner, s.threads, s.several, s.queue, s.workers, s.receivers, s.policy, s.deadline, s.age, s.dropContinue, s.check)
	fmt.Fprintf(&b, "listeners %d targets %d calls %d think %d quick %t\n", s.listeners, s.targets, s.calls, s.think, s.quick)
	for _, e := range s.events {
		fmt.Fprintf(&b, "at %d %s %d %d\n", e.at, e.what, e.listener, e.target)
	}
	return b.String()
}

func parseSchedule(text string) (*schedule, error) {
	s := new(schedule)
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for len(lines) > 0 && strings.HasPrefix(lines[0], "#") {
		lines = lines[1:]
	}
	if len(lines) < 3 {
		return nil, errors.New("less than three lines")
	}
	if _, err := fmt.Sscanf(lines[0], "seed %d profile %d fault %d flags %d", &s.seed, &s.profile, &s.fault, &s.flags); err != nil {
		return nil, err
	}
	if _, err := fmt.Sscanf(lines[1], "inline %t inliner %t threads %t several %t queue %d workers %d receivers %d policy %d deadline %d age %d continue %t check %t",
		&s.inline, &s.inliner, &s.threads, &s.several, &s.queue, &s.workers, &s.receivers, &s.policy, &s.deadline, &s.age, &s.dropContinue, &s.check); err != nil {
		return nil, err
	}
	if _, err := fmt.Sscanf(lines[2], "listeners %d targets %d calls %d think %d quick %t", &s.listeners, &s.targets, &s.calls, &s.think, &s.quick); err != nil {
		return nil, err
	}
	for _, l := range lines[3:] {
		var e event
		if _, err := fmt.Sscanf(l, "at %d %s %d %d", &e.at, &e.what, &e.listener, &e.target); err != nil {
			return nil, fmt.Errorf("%q: %w", l, err)
		}
		s.events = append(s.events, e)
	}
	return s, nil
}

// random draws a schedule.
func randomSchedule(seed uint64) *schedule {
	r := rand.New(rand.NewPCG(seed, 1))
	in := func(n int) bool { return r.IntN(n) == 0 }
	s := &schedule{seed: seed, profile: 1 + r.IntN(len(notifytest.Profiles())-1), inline: in(3), inliner: in(3), threads: in(2), several: in(2),
		queue: 1 + r.IntN(12), workers: 1 + r.IntN(3), receivers: r.IntN(3), policy: policy.Kind(r.IntN(3)), dropContinue: in(4), check: in(2),
		listeners: 1 + r.IntN(3), targets: 1 + r.IntN(8), calls: 1 + r.IntN(40)}
	if in(8) {
		s.targets, s.calls = 1+r.IntN(40), 1+r.IntN(200)
	}
	if in(8) { // until its workers are placed by what handlers take
		s.quick, s.threads, s.inline, s.calls, s.think = true, true, false, 200+r.IntN(600), 0
	}
	if !in(3) {
		s.fault = 2 + r.IntN(30)
	}
	if notifytest.Profiles()[s.profile].WaitKillable && in(2) {
		s.flags = notify.WaitKillableRecv
	}
	if in(3) {
		s.deadline = time.Duration(1+r.IntN(20)) * time.Millisecond
	}
	if in(4) {
		s.age = time.Duration(1+r.IntN(2000)) * time.Microsecond
	}
	if in(2) {
		s.think = time.Duration(r.IntN(1000)) * time.Microsecond
	}
	most := time.Duration(1) << (12 + r.IntN(18)) // 4 µs to 0.5 s
	for range r.IntN(12) {
		s.events = append(s.events, event{time.Duration(r.Int64N(int64(most))),
			[]string{"kill", "signal", "signal", "break", "break", "remove", "release", "move", "move", "add", "exit", "stop"}[r.IntN(12)], r.IntN(s.listeners + 1), r.IntN(s.targets)})
	}
	slices.SortStableFunc(s.events, func(a, b event) int { return int(a.at - b.at) })
	return s
}

// A model is a schedule being run.
type model struct {
	s *schedule
	k *notifytest.Kernel
	e *engine.Engine

	mu       sync.Mutex
	rng      *rand.Rand
	wrong    []string
	received map[uint64]int // by id: successful RECVs
	answered map[uint64]int // successful SENDs
	recvs    uint64
	sends    uint64
	gone     uint64 // ENOENT of SEND, ID_VALID before a handler, ADDFD with the answer
	steps    atomic.Int64

	sites   []*site
	sources []*engine.Source
	busy    map[*engine.Source]int // handlers, of rationed
	later   sync.WaitGroup         // handlers' own goroutines
}

// A site is a listener with its targets.
type site struct {
	f       *notifytest.Filter
	p       *notifytest.Process
	threads []*notifytest.Thread
	src     *engine.Source
	busy    bool // an event is at it
	closed  bool
}

func (m *model) fail(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.wrong) < 10 {
		m.wrong = append(m.wrong, fmt.Sprintf(format, args...))
	}
}

// draw is a number below n.
func (m *model) draw(n int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rng.IntN(n)
}

// sched is where a thread may lose its CPU: mostly not, at times for long.
func (m *model) sched() {
	m.steps.Add(1)
	n := m.draw(64)
	if m.s.quick {
		if n < 8 {
			time.Sleep(time.Duration(1 + n))
		}
		return
	}
	switch {
	case n == 0:
		time.Sleep(time.Duration(1 + m.draw(1_000_000)))
	case n < 24:
		time.Sleep(time.Duration(1 + m.draw(2000)))
	}
}

func (m *model) fault(notify.Op) unix.Errno {
	if m.s.fault > 0 && m.draw(m.s.fault) == 0 {
		return unix.EINTR
	}
	return 0
}

// result holds each ioctl against what must not be.
func (m *model) result(_ *notifytest.Filter, op notify.Op, id uint64, e unix.Errno) {
	m.mu.Lock()
	defer m.mu.Unlock()
	bad := func(format string, args ...any) { m.wrong = append(m.wrong, fmt.Sprintf(format, args...)) }
	if op == notify.OpRecv {
		if e == 0 {
			m.received[id]++
			m.recvs++
		}
		return
	}
	switch {
	case e == unix.EINTR, op == notify.OpIDValid && id == 0: // interrupted; notify.NewListener's look
		return
	case m.received[id] == 0:
		bad("%v of %d, which was not received: %v", op, id, e)
	case e == unix.EINPROGRESS, op != notify.OpIDValid && m.answered[id] > 0:
		bad("%v of %d, which had an answer: %v", op, id, e)
	}
	switch {
	case op != notify.OpIDValid && e == 0:
		m.answered[id]++
		m.sends++
	case op != notify.OpIDValid && e == unix.ENOENT:
		m.gone++
	}
}

// What handlers do with a call is in its number, and so is the answer.
const (
	answerBase = 1 << 40
	kinds      = 12
)

// rationed reports whether each listener may have one worker at a time, and it can be seen: late handlers, and those on the receive
// thread, have no part in it, nor has what a listener that moves to another receiver leaves with workers of the first.
func (m *model) rationed() bool {
	return m.s.several && m.s.receivers == 1 && !m.s.inline && !m.s.inliner && m.s.deadline == 0
}

// handle is the handler.
func (m *model) handle(r engine.Request) {
	n := r.Data().Args[0]
	val := int64(answerBase + n)
	if m.rationed() {
		src := r.Source()
		if m.mu.Lock(); m.busy[src] > 0 {
			m.wrong = append(m.wrong, fmt.Sprintf("call %d is with a worker beside another one of its listener, which may have one", n))
		}
		m.busy[src]++
		m.mu.Unlock()
		done := func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.busy[src]--
		}
		if n%kinds == 5 {
			done() // from Detach on it has no part in it
		} else {
			defer done()
		}
	}
	if m.s.quick && n%kinds != 0 && n%kinds != 1 {
		if n%kinds < 4 { // what the others do is in other schedules
			return
		}
		if n%kinds == 7 || n%kinds == 8 {
			_ = r.Return(3)
			return
		}
		_ = r.Return(val)
		return
	}
	if n%211 == 210 {
		time.Sleep(4 * stopTimeout) // a stop must do without it
	}
	if took := n / kinds % 8; took > 4 {
		time.Sleep(time.Duration(took*took) * 100 * time.Microsecond / time.Duration(1+n%7))
	}
	switch n % kinds {
	case 0:
		_ = r.Fail(syscall.Errno(1 + n%100))
	case 1:
		_ = r.Continue()
	case 2:
		panic("as it may")
	case 3: // no answer
	case 4:
		if r.Return(val) == nil {
			if err := r.Return(7); !errors.Is(err, engine.ErrAnswered) {
				m.fail("a second answer: %v", err)
			}
		}
	case 5:
		p := r.Detach()
		m.later.Go(func() {
			time.Sleep(time.Duration(n%5) * time.Millisecond)
			_ = p.Return(val)
		})
	case 6:
		m.later.Go(func() { // it keeps the request: it may be too late
			time.Sleep(time.Duration(n%3) * time.Millisecond)
			_ = r.Return(val)
		})
		time.Sleep(time.Duration(n%4) * time.Millisecond)
	case 7:
		_ = r.SendFD(3, true)
	case 8:
		_ = r.ReturnFD(3, false)
	case 9:
		if n/kinds%4 == 0 && !m.s.inline && !m.s.inliner { // it would end the receive thread, and with it the run
			runtime.Goexit()
		}
		_ = r.Return(val)
	case 10:
		_ = r.Alive()
		_ = r.Return(val)
	default:
		_ = r.Return(val)
	}
}

// allowed reports whether a call may have ended so.
func (m *model) allowed(n uint64, r notifytest.Result, closed bool) bool {
	switch {
	case r.Died, r.Interrupted:
		return true
	case r.Continued:
		return n%kinds == 1 || m.s.dropContinue
	case r.Errno == unix.EINTR && !m.s.dropContinue: // dropped
		return true
	case r.Errno == unix.ENOSYS: // by default, or the listener was closed
		return closed || n%kinds == 2 || n%kinds == 3 || n%kinds == 6 || n%kinds == 9 || m.s.deadline > 0 || n%kinds == 7 || n%kinds == 8 || n%kinds == 5
	case r.Errno != 0:
		return n%kinds == 0 && r.Errno == syscall.Errno(1+n%100)
	case n%kinds == 7, n%kinds == 8: // the descriptor's number
		return r.Val >= 3 && r.Val < answerBase
	}
	return r.Val == int64(answerBase+n) && n%kinds >= 4
}

// inlines has some calls handled on the receive thread.
type inlines struct{ *model }

func (h inlines) Handle(r engine.Request)                       { h.handle(r) }
func (h inlines) Inlines(_ *engine.Source, d *notify.Data) bool { return d.Args[0]%3 == 0 }

// runModel runs a schedule and returns what went wrong, and how many steps it took.
func runModel(t *testing.T, s *schedule) (wrong []string, steps int64) {
	m := &model{s: s, rng: rand.New(rand.NewPCG(s.seed, 2)), received: map[uint64]int{}, answered: map[uint64]int{}, busy: map[*engine.Source]int{}}
	defer func() {
		if p := recover(); p != nil {
			wrong = append(m.wrong, fmt.Sprint(p))
		}
		steps = m.steps.Load()
	}()
	synctest.Test(t, func(*testing.T) { m.run() })
	return m.wrong, 0
}

const stopTimeout = 500 * time.Millisecond

func (m *model) config() engine.Config {
	s := m.s
	c := engine.Config{Handler: engine.HandlerFunc(m.handle), Inline: s.inline, Queue: s.queue, Workers: s.workers, Receivers: s.receivers, Policy: s.policy,
		HandlerDeadline: s.deadline, MaxAge: s.age, StopTimeout: stopTimeout, KeepProcs: true}
	if s.inliner {
		c.Handler = inlines{m}
	}
	if !s.threads {
		c.Kind = engine.GoroutineWorkers
	}
	if s.dropContinue {
		c.DropErrno = engine.DropContinue
	}
	if s.check {
		c.CheckAfter = engine.AlwaysCheck
	}
	return c
}

func (m *model) options() (o engine.SourceOptions) {
	if m.s.several {
		o.MaxInHandlers = 1
	}
	return o
}

func (m *model) run() {
	m.k = notifytest.New(notifytest.Profiles()[m.s.profile])
	m.k.Sched, m.k.Fault, m.k.Result = m.sched, m.fault, m.result
	m.k.Spend = func(d time.Duration) { m.steps.Add(1); time.Sleep(d) }
	m.k.PollBits = func(events int16) int16 {
		if m.s.fault > 0 && m.draw(4*m.s.fault) == 0 {
			return unix.POLLERR
		}
		return events
	}
	if *modelLog {
		t0 := time.Now()
		m.k.Trace = func(e notifytest.Event) { fmt.Println(time.Since(t0), e) }
	}
	m.k.Use()
	e, err := engine.New(m.config())
	if err != nil {
		m.fail("%v", err)
		return
	}
	m.e = e
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var began, ended time.Time
	over := make(chan error, 1)
	go func() {
		err := e.Run(ctx)
		ended = time.Now()
		over <- err
	}()
	<-e.Ready()

	var targets, events sync.WaitGroup
	var number atomic.Uint64
	start := func() *site {
		f := m.k.Install(m.s.flags)
		st := &site{f: f, p: f.Process()}
		for range m.s.targets {
			st.threads = append(st.threads, st.p.Thread())
		}
		if st.src, err = e.AddWith(f.Listener(), m.options()); err != nil {
			m.fail("%v", err)
			return st
		}
		m.sources = append(m.sources, st.src)
		m.sites = append(m.sites, st)
		for _, th := range st.threads {
			targets.Go(func() {
				for range m.s.calls {
					if m.s.think > 0 {
						time.Sleep(time.Duration(m.draw(int(m.s.think) + 1)))
					}
					n := number.Add(1)
					r := th.Syscall(notify.Data{NR: unix.SYS_GETPPID, Arch: notify.NativeArch, Args: [6]uint64{n}})
					if m.mu.Lock(); r.Died || st.closed && r.Errno == unix.ENOSYS {
						m.mu.Unlock()
						return
					}
					closed := st.closed
					m.mu.Unlock()
					if !m.allowed(n, r, closed) {
						m.fail("call %d (%d) was told %v: %+v", n, n%kinds, r, r)
					}
				}
			})
		}
		return st
	}
	for range m.s.listeners {
		start()
	}
	setClosed := func(st *site) {
		m.mu.Lock()
		st.closed = true
		m.mu.Unlock()
	}
	t0, stopped := time.Now(), false
	for _, ev := range m.s.events {
		time.Sleep(ev.at - time.Since(t0))
		if *modelLog {
			fmt.Println(time.Since(t0), ev)
		}
		if stopped {
			break
		}
		if ev.what == "add" {
			if len(m.sites) < 8 {
				start()
			}
			continue
		}
		st := m.sites[ev.listener%len(m.sites)]
		th := st.threads[ev.target%len(st.threads)]
		m.mu.Lock()
		src, leaves := st.src, st.busy || st.closed
		if ev.what == "release" {
			st.busy = true
		}
		m.mu.Unlock()
		switch ev.what {
		case "kill", "exit":
			st.p.Kill()
		case "signal", "break":
			th.Signal(ev.what == "signal")
		case "remove":
			setClosed(st)
			events.Go(func() {
				if err := e.Remove(context.Background(), src); err != nil {
					m.fail("remove: %v", err)
				}
			})
		case "release":
			if leaves {
				continue
			}
			events.Go(func() {
				l, err := e.Release(context.Background(), src)
				if err != nil {
					return // it was on its way out, or the engine stops
				}
				time.Sleep(time.Duration(m.draw(1000)) * time.Microsecond)
				m.mu.Lock()
				gone := st.closed
				m.mu.Unlock()
				src, err := e.AddWith(l, m.options())
				if err != nil || gone {
					setClosed(st)
					if err != nil {
						_ = l.Close()
					}
				}
				if err == nil {
					m.mu.Lock()
					m.sources = append(m.sources, src)
					st.src, st.busy = src, false
					m.mu.Unlock()
				}
			})
		case "move":
			events.Go(func() {
				if n := len(e.Debug().Receivers); n > 1 {
					engine.Move(e, src, ev.target%n)
				}
			})
		case "stop":
			stopped = true
			for _, st := range m.sites {
				setClosed(st)
			}
		}
	}
	done := make(chan bool)
	go func() { targets.Wait(); close(done) }()
	if !stopped {
		select {
		case <-done:
		case <-time.After(5 * time.Minute):
			m.hung("while it runs")
			<-done
		}
	}
	for _, st := range m.sites {
		setClosed(st)
	}
	began = time.Now()
	cancel()
	select {
	case err = <-over:
	case <-time.After(time.Minute):
		m.fail("the engine does not stop: %+v", e.Counters())
		m.hung("at the stop")
		return
	}
	if took := ended.Sub(began); took > 3*stopTimeout {
		m.fail("the stop took %v", took)
	}
	if err != nil && !errors.Is(err, engine.ErrStopTimeout) {
		m.fail("run: %v", err)
	}
	if stopped {
		select {
		case <-done:
		case <-time.After(time.Minute):
			m.hung("after the stop")
			<-done
			return
		}
	}
	events.Wait()
	m.later.Wait()
	// A stop that gives up leaves a receive thread in its handler, with the calls that it holds and its descriptors.
	late := errors.Is(err, engine.ErrStopTimeout)
	if !late {
		m.balance(false)
	}
	time.Sleep(5 * stopTimeout)
	if late {
		m.balance(true)
	}
	m.leftovers()
}

// hung says who still waits, and has them end.
func (m *model) hung(when string) {
	for i, st := range m.sites {
		for _, th := range st.threads {
			if id, waits := th.Waiting(); waits {
				m.mu.Lock()
				n, a := m.received[id], m.answered[id]
				m.mu.Unlock()
				m.fail("%s a target of listener %d waits for ever: notification %d, received %d times, answered %d; source %+v", when, i, id, n, a, st.src.Counters())
			}
		}
		st.p.Kill()
	}
}

// balance holds the engine's counters, at rest, against the kernel's. What is answered late, the kernel may refuse.
func (m *model) balance(late bool) {
	c := m.e.Counters()
	m.mu.Lock()
	defer m.mu.Unlock()
	bad := func(format string, args ...any) {
		m.wrong = append(m.wrong, fmt.Sprintf(format, args...)+fmt.Sprintf(": %+v", c))
	}
	if c.Balance() != 0 || c.Queued+c.Held+c.InHandlers+c.Detached != 0 {
		bad("the equation: off by %d", c.Balance())
	}
	if c.Received != m.recvs {
		bad("%d were received", m.recvs)
	}
	if c.Answered+c.Dropped != m.sends {
		bad("%d were answered", m.sends)
	}
	if c.Failed != 0 && !late {
		bad("failed")
	}
	if c.Stale < m.gone {
		bad("%d answers found nobody", m.gone)
	}
	var sum engine.Counters
	for _, s := range m.sources {
		n := s.Counters()
		if n.Balance() != 0 || n.Queued+n.Held+n.InHandlers+n.Detached != 0 {
			bad("a source's equation: %+v", n)
		}
		sum.Received += n.Received
		sum.Answered += n.Answered
		sum.Dropped += n.Dropped
		sum.Stale += n.Stale
		sum.Expired += n.Expired
		sum.Overflowed += n.Overflowed
	}
	if sum.Received != c.Received || sum.Answered != c.Answered || sum.Dropped != c.Dropped || sum.Stale != c.Stale || sum.Expired != c.Expired || sum.Overflowed != c.Overflowed {
		bad("the sources' sum %+v", sum)
	}
}

// leftovers holds what the engine did with descriptors against what must not be.
func (m *model) leftovers() {
	if n := m.k.Strays(); n != 0 {
		m.fail("%d system calls on what is no descriptor", n)
	}
	if n := m.k.Open(); n != 0 {
		m.fail("%d descriptors are left open", n)
	}
}

// TestModel runs random schedules.
func TestModel(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // so that a schedule comes out the same again, nearly always
	seed := *modelSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	var steps int64
	runs := 0
	for began := time.Now(); time.Since(began) < *modelFor; seed++ {
		s := randomSchedule(seed)
		wrong, n := runModel(t, s)
		steps += n
		runs++
		if len(wrong) > 0 {
			t.Fatalf("seed %d:\n%s\nshrunk to\n%s", seed, strings.Join(wrong, "\n"), shrink(t, s))
		}
		if *modelOne {
			break
		}
	}
	t.Logf("%d schedules, %d steps", runs, steps)
}

// TestModelPast runs the schedules that failed once.
func TestModelPast(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	files, _ := filepath.Glob("testdata/model/*.txt")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		s, err := parseSchedule(string(b))
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		if wrong, _ := runModel(t, s); len(wrong) > 0 {
			t.Errorf("%s:\n%s", f, strings.Join(wrong, "\n"))
		}
	}
}

// shrink makes a schedule smaller for as long as it fails, in whatever way.
func shrink(t *testing.T, s *schedule) *schedule {
	fails := func(s *schedule) bool {
		for range 3 {
			if wrong, _ := runModel(t, s); len(wrong) > 0 {
				return true
			}
		}
		return false
	}
	budget := time.Now().Add(20 * time.Second)
	for again := true; again && time.Now().Before(budget); {
		again = false
		try := func(change func(*schedule)) {
			c := *s
			c.events = slices.Clone(s.events)
			if change(&c); c.String() != s.String() && time.Now().Before(budget) && fails(&c) {
				s, again = &c, true
			}
		}
		for i := len(s.events) - 1; i >= 0; i-- {
			try(func(c *schedule) {
				if i < len(c.events) {
					c.events = slices.Delete(c.events, i, i+1)
				}
			})
		}
		try(func(c *schedule) { c.calls = max(1, c.calls/2) })
		try(func(c *schedule) { c.calls = max(1, c.calls-1) })
		try(func(c *schedule) { c.targets = max(1, c.targets/2) })
		try(func(c *schedule) { c.targets = max(1, c.targets-1) })
		try(func(c *schedule) { c.listeners = max(1, c.listeners-1) })
		try(func(c *schedule) { c.workers = max(1, c.workers-1) })
		try(func(c *schedule) { c.receivers = 0 })
		try(func(c *schedule) { c.receivers = 1 })
		try(func(c *schedule) { c.fault = 0 })
		try(func(c *schedule) { c.deadline = 0 })
		try(func(c *schedule) { c.age = 0 })
		try(func(c *schedule) { c.think = 0 })
		try(func(c *schedule) { c.inliner = false })
		try(func(c *schedule) { c.several = false })
		try(func(c *schedule) { c.check = false })
		try(func(c *schedule) { c.dropContinue = false })
		try(func(c *schedule) { c.policy = policy.DropOldest })
	}
	return s
}
