package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"

	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/bench/trace"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/testgrowth"
	"github.com/unknot/unknot/internal/testlisteners"
	"golang.org/x/sys/unix"
)

var soakFor = flag.Duration("soak", 0, "how long TestSoak goes on; 0: one short round")

const (
	soakRound    = 5 * time.Second  // of storms
	soakHang     = 60 * time.Second // a target that does not come back for so long has lost its call
	soakLate     = 5 * time.Millisecond
	soakVisitors = 50 // listeners that come for a few calls, in each round
)

// soakLimits are of this process between two rounds, when there are no storms. What Go's runtime keeps of memory and threads
// depends on the last storms; the others are exact.
var soakLimits = []testgrowth.Limit{
	{Figure: "descriptors", Least: 1, Always: true}, {Figure: "goroutines", Least: 2, Always: true}, {Figure: "threads", Least: 4},
	{Figure: "heap, KiB", Least: 512, Share: 0.1}, {Figure: "RSS, KiB", Least: 4096, Share: 0.05},
}

// TestSoak has one engine under hostile storms that come and go. What becomes of a call is told by three who do not know of
// each other, and who must agree: the engine's counters, the kernel's tracepoints by ioctl and result, and the threads that called.
func TestSoak(t *testing.T) {
	s := newSoak(t)
	for round := 0; round == 0 || time.Since(s.begun) < *soakFor; round++ {
		s.round()
		s.agree()
		s.point()
		if t.Failed() {
			return
		}
	}
	c := s.e.Counters()
	if c.Dropped == 0 {
		t.Error("no call was dropped: the soak shows too little")
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	testgrowth.Flat(t, s.points, soakLimits, *soakFor > 0)
	t.Logf("%d notifications in %v, of %d listeners, %d receivers: answered %d, dropped %d, stale %d, failed %d; gone before RECV %d; handlers panicked %d, late %d, without an answer %d, with two %d",
		c.Received, time.Since(s.begun).Round(time.Second), c.Added, s.receivers, c.Answered, c.Dropped, c.Stale, c.Failed, c.Gone, c.Panicked, c.Late, c.Unanswered, c.DuplicateAnswers)
	t.Logf("%d numbered calls, notified %d times: %d returned, each with its own answer; %d were killed, of which %d had been received; %d notifications were followed by another one of the same call",
		s.made, s.received, s.returned, s.made-s.returned, s.distinct-s.returned, s.received-s.distinct)
}

// A soak is the engine with what it is under.
type soak struct {
	t         *testing.T
	e         *engine.Engine
	handler   *soakHandler
	stop      func() error
	tracer    *trace.Tracer // nil: not allowed
	begun     time.Time
	rand      *rand.Rand
	points    []testgrowth.Point
	receivers int

	// Of numbered calls. Those that were made and did not return were killed with their threads.
	made, returned, received, distinct uint64
}

func newSoak(t *testing.T) *soak {
	s := &soak{t: t, begun: time.Now(), rand: rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))}
	tracer, err := trace.Start(trace.Config{TGID: os.Getpid(), Results: true})
	var missing *trace.UnavailableError
	switch {
	case errors.As(err, &missing):
		t.Logf("without the kernel's tracepoints: %v", err)
	case err != nil:
		t.Fatal(err)
	default:
		s.tracer = tracer
		t.Cleanup(func() { _ = tracer.Close() })
	}
	limits, err := engine.NewLimits(soakLate, 0)
	if err != nil {
		t.Fatal(err)
	}
	s.handler = &soakHandler{limits: limits}
	s.e, err = engine.New(engine.Config{
		Handler: s.handler, Workers: 4, Queue: 16, DefaultErrno: unix.EAGAIN, StopTimeout: soakHang,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.e.Run(ctx) }()
	s.stop = func() error {
		cancel()
		return <-done
	}
	return s
}

// round has storms of several kinds at once, and visitors: one of processes that come and go, two of such that stay.
func (s *soak) round() {
	kinds := []storm.Hostile{storm.Friendly, storm.Signalled, storm.SignalledKillable, storm.Preempted}
	s.rand.Shuffle(len(kinds), func(i, k int) { kinds[i], kinds[k] = kinds[k], kinds[i] })
	kinds = append(kinds[:2], []storm.Hostile{storm.Killed, storm.Forked}[s.rand.IntN(2)])
	ctx, cancel := context.WithTimeout(s.t.Context(), soakRound+2*soakHang)
	defer cancel()
	var all []*soaked
	for _, kind := range kinds {
		storm, err := s.storm(ctx, kind)
		if errors.Is(err, errors.ErrUnsupported) {
			continue
		}
		if err != nil {
			s.t.Fatal(err)
		}
		all = append(all, storm)
	}
	for _, d := range all {
		if err := d.Go(); err != nil {
			s.t.Fatal(err)
		}
	}
	s.visit()
	if *soakFor > 0 {
		time.Sleep(soakRound)
	}
	s.receivers = max(s.receivers, len(s.e.Debug().Receivers))
	for _, d := range all {
		// On a busy machine a storm may be over before it has begun.
		if err := d.Rages(ctx, soakHang); err != nil {
			s.t.Fatal(err)
		}
		s.end(d)
	}
}

// A soaked is a storm, and what the engine received of it.
type soaked struct {
	*storm.Storm
	kind   storm.Hostile
	seed   uint64
	inline bool
	slow   bool // handlers are, so that calls are dropped
	source *engine.Source

	threads []soakThread // written on the receive thread
}

type soakThread struct {
	last               uint32 // number of the call that was received last, plus 1
	received, distinct uint64 // notifications, and how many calls they were of
}

func (d *soaked) note(arg uint64) {
	thread, serial := storm.Number(arg)
	t := &d.threads[thread]
	t.received++
	if t.last != serial+1 {
		t.last = serial + 1
		t.distinct++
	}
}

func (s *soak) storm(ctx context.Context, kind storm.Hostile) (*soaked, error) {
	mix, err := storm.ParseMix("getppid:2,gettid,openat")
	if err != nil {
		return nil, err
	}
	d := &soaked{kind: kind, seed: s.rand.Uint64(), inline: s.rand.IntN(2) == 0, slow: s.rand.IntN(4) == 0}
	c := storm.Config{Targets: 8 << s.rand.IntN(4), Mix: mix, Seed: d.seed, Hostile: kind, Numbered: true}
	if kind == storm.Killed || kind == storm.Forked {
		c.Targets = 4 // a process, whose starts are most of its work
	} else if *soakFor == 0 { // there shall be drops
		c.Targets, d.inline, d.slow = 64, false, true
	}
	d.threads = make([]soakThread, c.Targets)
	if d.Storm, err = storm.Start(ctx, c); err != nil {
		return nil, err
	}
	if d.source, err = s.e.AddWith(d.Listener(), engine.SourceOptions{Tag: d, Inline: d.inline}); err != nil {
		return nil, errors.Join(err, d.Listener().Close())
	}
	return d, nil
}

// end ends a storm and accounts for each of its calls.
func (s *soak) end(d *soaked) {
	r, err := d.Halt(soakHang)
	if err != nil {
		s.t.Fatal(err)
	}
	if r.Lost > 0 {
		s.t.Errorf("%v: %d threads have no answer to their call: %+v", d.kind, r.Lost, s.e.Counters())
		return
	}
	d.Close()
	select {
	case <-d.source.Done():
	case <-time.After(soakHang):
		s.t.Fatalf("%v: its listener is still the engine's: %+v", d.kind, d.source.Counters())
	}
	if odd := r.Except(unix.EINTR, unix.EAGAIN, unix.EPERM); odd != (storm.Counts{}) {
		s.t.Errorf("%v: its calls returned what nobody answers: %v", d.kind, odd)
	}
	kills := d.kind == storm.Killed || d.kind == storm.Forked
	var received, returned uint64
	for i, th := range r.Threads {
		got := d.threads[i]
		if th.Strayed > 0 || th.Returned > got.distinct || got.distinct > th.Made || th.Made != th.Returned && !kills {
			s.t.Errorf("%v, thread %d: %+v, but the engine received %+v", d.kind, i, th, got)
		}
		s.made += th.Made
		s.distinct += got.distinct
		received += got.received
		returned += th.Returned
	}
	s.received += received
	s.returned += returned
	c := d.source.Counters()
	if c.Received != received || c.Balance() != 0 || c.Failed+c.Queued+c.Held+c.InHandlers+c.Detached != 0 || c.Answered+c.Dropped < returned {
		s.t.Errorf("%v: %d notifications, %d calls returned, but the listener counts %+v", d.kind, received, returned, c)
	}
	if c.Received == 0 {
		s.t.Errorf("%v: it made no call", d.kind)
	}
}

// visit has listeners come, each for a few calls that go on, and go.
func (s *soak) visit() {
	n := soakVisitors
	if *soakFor == 0 {
		n /= 5
	}
	visitors, err := testlisteners.Start(testlisteners.Plan{N: n, AtOnce: 8, Calls: 20}, soakHang)
	if err != nil {
		s.t.Fatal(err)
	}
	for l, err := range visitors.Listeners() {
		if err == nil {
			_, err = s.e.Add(l)
		}
		if err != nil {
			s.t.Errorf("visitors: %v", err)
			break
		}
	}
	if err := visitors.Close(); err != nil {
		s.t.Errorf("visitors: %v", err)
	}
}

// agree holds the engine's counters against the tracepoints. There are no targets.
func (s *soak) agree() {
	for end := time.Now().Add(soakHang); len(s.e.Sources()) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("listeners without targets are still the engine's: %+v", s.e.Debug())
		}
	}
	c := s.e.Counters()
	if c.Balance() != 0 || c.Failed+c.Refused+c.RecvFailed+c.Spent+c.Queued+c.Held+c.InHandlers+c.Detached != 0 {
		s.t.Errorf("the engine counts %+v", c)
	}
	if odd := s.handler.odd.Load(); odd != nil {
		s.t.Error(*odd)
	}
	if s.tracer == nil {
		return
	}
	r, err := s.tracer.Report()
	if err != nil {
		s.t.Fatal(err)
	}
	// Each listener is asked for an id that cannot be pending when it is taken.
	stale := r.Send.Gone + r.IDValid.Gone - c.Added
	odd := r.Send.Twice + r.Recv.Odd + r.Send.Odd + r.IDValid.Odd + r.AddFD.Odd + r.Unmatched + r.Overflow + r.Missed
	if r.Recv.Done != c.Received || r.Recv.Gone != c.Gone || r.Send.Done != c.Answered+c.Dropped || stale != c.Stale || r.Stale != c.Stale || odd != 0 {
		s.t.Errorf("the tracepoints count RECV %+v, SEND %+v, ID_VALID %+v, ADDFD %+v, unmatched %d, overflow %d, missed %d, stale %d; the engine %+v",
			r.Recv, r.Send, r.IDValid, r.AddFD, r.Unmatched, r.Overflow, r.Missed, r.Stale, c)
	}
	s.t.Logf("%v: %d notifications; RECV %+v, SEND %+v, ID_VALID %+v", time.Since(s.begun).Round(time.Second), c.Received, r.Recv, r.Send, r.IDValid)
}

// point notes what this process has. What ended may take a moment to be gone.
func (s *soak) point() {
	p := testgrowth.Point{At: time.Since(s.begun)}
	for i := range 60 {
		debug.FreeOSMemory()
		has, err := testgrowth.Process(os.Getpid())
		if err != nil {
			s.t.Fatal(err)
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		has["heap, KiB"], has["goroutines"] = float64(m.HeapAlloc)/1024, float64(runtime.NumGoroutine())
		for figure, v := range p.Figures {
			has[figure] = min(has[figure], v)
		}
		p.Figures = has
		if n := len(s.points); n == 0 && i > 10 || n > 0 && has["descriptors"] <= s.points[n-1].Figures["descriptors"] && has["goroutines"] <= s.points[n-1].Figures["goroutines"] {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.points = append(s.points, p)
}

// A soakHandler answers numbered calls with their answer, now and then as handlers should not, and lets others go on.
type soakHandler struct {
	limits *engine.Limits
	odd    atomic.Pointer[string] // what must not be
}

// soakedBy is the storm that has made a numbered call, or nil.
func soakedBy(src *engine.Source, d *notify.Data) *soaked {
	if s, ok := src.Tag().(*soaked); ok && d.Args[5]>>32 == storm.Mark {
		return s
	}
	return nil
}

// Inlines counts a call that was received. It wants none.
func (h *soakHandler) Inlines(src *engine.Source, d *notify.Data) bool {
	if s := soakedBy(src, d); s != nil && !s.inline {
		s.note(d.Args[5])
	}
	return false
}

func (h *soakHandler) Handle(r engine.Request) {
	d := r.Data()
	s := soakedBy(r.Source(), &d)
	if s == nil {
		_ = r.Continue()
		return
	}
	if s.inline {
		s.note(d.Args[5])
	}
	value := storm.Answer(s.seed, d.Args[5])
	thread, serial := storm.Number(d.Args[5])
	switch mood := (serial*31 + thread) % 8009; {
	case mood == 0:
		panic("soak")
	case mood == 1: // without an answer
	case mood == 2:
		_ = r.Return(value)
		if err := r.Fail(unix.EPERM); !errors.Is(err, engine.ErrAnswered) && !errors.Is(err, engine.ErrGone) {
			odd := fmt.Sprintf("a second answer: %v", err)
			h.odd.Store(&odd)
		}
	case mood == 3:
		p := r.Detach()
		go p.Return(value)
	case mood == 4 && !s.inline:
		r.Limit(h.limits)
		time.Sleep(4 * soakLate)
		_ = r.Return(value)
	case mood == 5 && !s.inline:
		runtime.Goexit()
	case mood < 100:
		_ = r.Fail(unix.EPERM)
	case s.slow && !s.inline:
		time.Sleep(200 * time.Microsecond)
		_ = r.Return(value)
	default:
		_ = r.Return(value)
	}
}
