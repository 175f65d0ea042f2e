package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"time"

	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/bench/trace"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/hist"
	"golang.org/x/sys/unix"
)

// A Result is one repetition of one Spec. All but Lost and Whole is of one
// window of time, Elapsed, that leaves out the start and the end of the storm.
type Result struct {
	Spec
	Round     int
	Elapsed   time.Duration
	Stats     Stats          // the supervisor's own counts
	Targets   storm.Counts   // what the targets saw
	RoundTrip *hist.Snapshot // ns, of served calls, by the targets' clocks, from when they were made
	// Corrected is RoundTrip from when the calls should have been made, in an open
	// loop. A closed loop has no such time: there it is RoundTrip.
	Corrected *hist.Snapshot
	// Open is what an open loop's calls with an intended start in the window did, or nil.
	Open   *storm.Window
	little little // of the whole storm
	// listeners are the parts of each, where [Spec.Listeners] asks for them; else nil.
	listeners []listenerResult
	Wait      *hist.Snapshot // ns, receive → dispatch; by Clock
	Clock     string         // ClockEngine, ClockTracepoints
	OwnWait   *hist.Snapshot // the engine's own clock in the run that Wait is of
	Service   *hist.Snapshot // ns, dispatch → answered, SEND included, by the engine's own clock; nil if it has none
	Lost      int            // targets that hung
	CPU       time.Duration  // the supervisor's, user and system
	TargetCPU time.Duration  // the targets'
	Allocs    uint64         // the supervisor's heap allocations

	// Wait and OwnWait by receiver, of a traced run with several listeners.
	ReceiverWaits, OwnReceiverWaits []*hist.Snapshot

	// Parts are the steady times between the steps of a Work with a Script, each in the same terms, with waits by the
	// engine's own clock. Part is the number of such a one, from 1.
	Parts []*Result
	Part  int
	late  bool // the part has some of the next one

	// Disturbed is the storm's, see storm.Report.
	Disturbed uint64

	// Whole is of the whole storm, in which every call was answered.
	Whole struct {
		Stats   Stats
		Targets storm.Counts
	}
}

// A listenerResult is one listener's part of a Result.
type listenerResult struct {
	Targets   storm.Counts
	RoundTrip *hist.Snapshot
}

// Slowest is the least that a listener was served, in calls per second; NaN where they
// are not told apart.
func (r *Result) Slowest() float64 {
	least := math.NaN()
	for _, l := range r.listeners {
		if v := float64(l.Targets.OK) / r.Elapsed.Seconds(); !(v >= least) {
			least = v
		}
	}
	return least
}

// WorstTrip is the largest of the listeners' quantiles q of the round trip, in ns; NaN where one of them
// has too few calls for it.
func (r *Result) WorstTrip(q float64) float64 {
	worst := math.NaN()
	for _, l := range r.listeners {
		v := Percentile(l.RoundTrip, q)
		if math.IsNaN(v) {
			return v
		}
		if !(v <= worst) {
			worst = v
		}
	}
	return worst
}

// Void is nil, or says why a result is of no value. In an open loop: there were too few
// targets, and so the calls that the supervisor saw are not those of the schedule.
func (r *Result) Void() error {
	if r.late {
		return errors.New("the machine was so busy that the part's end was read after the next step")
	}
	if r.Open == nil || !r.Open.Void() {
		return nil
	}
	return fmt.Errorf("limited by the generator: no target was idle at the intended start of %d of %d calls: more targets or a lower rate are needed",
		r.Open.Late-r.Open.Excused, r.Open.Intended)
}

// Check holds the engine's counts of the whole storm against its targets', errno
// by errno: each side counts by the results of its own calls. After a loss
// (Lost) there is nothing to compare.
func (r *Result) Check() error {
	t, s := r.Whole.Targets, r.Whole.Stats
	if odd := t.Except(unix.EINTR); odd != (storm.Counts{}) {
		return fmt.Errorf("its targets saw answers that it does not give: %v", odd)
	}
	if r.Lost > 0 {
		return nil
	}
	if r.Load.Hostile != storm.Friendly {
		return r.checkHostile()
	}
	if t.OK != s.Served || t.Failed(unix.EINTR) != s.Dropped {
		return fmt.Errorf("the engine counts %d served and %d dropped, its targets %v", s.Served, s.Dropped, t)
	}
	return r.little.Check()
}

// checkHostile holds the counts against each other where targets may die or be
// interrupted just when they are answered: what the engine sent and they did not
// see, and what it found gone, each has a disturbance for it.
func (r *Result) checkHostile() error {
	t, s := r.Whole.Targets, r.Whole.Stats
	seen, sent := t.OK+t.Failed(unix.EINTR), s.Served+s.Dropped
	if t.OK > s.Served || t.Failed(unix.EINTR) > s.Dropped || sent-seen > r.Disturbed {
		return fmt.Errorf("the engine counts %d served and %d dropped, its targets, disturbed %d times, %v", s.Served, s.Dropped, r.Disturbed, t)
	}
	if s.Stale > r.Disturbed {
		return fmt.Errorf("the engine counts %d calls that were gone, its targets were disturbed %d times", s.Stale, r.Disturbed)
	}
	return nil
}

// The clocks that a wait can come from.
const (
	ClockEngine      = "engine"
	ClockTracepoints = "tracepoints"
)

// WarmUp is how long each storm rages before it counts.
const WarmUp = 100 * time.Millisecond

// hangDeadline is when a target that does not come back counts as lost: longer than
// machines stall (docs/decisions/23-serve.md). Tests that want it to hang shorten it.
var hangDeadline = 30 * time.Second

// Once runs one repetition: a storm of the given duration against a fresh
// supervisor, after a warm-up that does not count. Whatever hangs is killed and
// reported as lost. Measure in an otherwise idle process: CPU and allocations
// are the process's.
//
// Traced, a second storm follows for the wait alone, because tracing costs
// speed. The inline path has no dispatch to trace: its wait is the engine's own, as is
// that of hostile targets, whose calls go where a tracer does not see it.
func Once(ctx context.Context, s Spec, d time.Duration, traced bool) (*Result, error) {
	r, err := once(ctx, s, d, nil)
	if err != nil || !traced || s.Path == PathInline || s.Load.Hostile != storm.Friendly {
		return r, err
	}
	tr, err := trace.Start(trace.Config{TGID: os.Getpid()})
	if err != nil {
		return nil, err
	}
	defer tr.Close()
	s.CheckAfter = engine.AlwaysCheck
	t, err := once(ctx, s, d, tr)
	if err != nil {
		return nil, err
	}
	rep, err := tr.Report()
	if err != nil {
		return nil, err
	}
	if rep.Overflow+rep.Missed > 0 {
		return r, nil // the tracer lost some: the engine's own clock stays
	}
	r.Wait, r.OwnWait, r.Clock = rep.Wait, t.OwnWait, ClockTracepoints
	r.ReceiverWaits, r.OwnReceiverWaits = rep.Receivers, t.OwnReceiverWaits
	r.Lost += t.Lost
	return r, nil
}

// once runs one storm. With a tracer, the waits are those of all of it, the
// warm-up included, so that they are of the same events as the tracer's: cutting
// two clocks' windows at one instant is not possible.
func once(ctx context.Context, s Spec, d time.Duration, tr *trace.Tracer) (*Result, error) {
	run := s
	if s.Stall > 0 {
		run.stall = &stall{length: s.Stall}
	}
	var parts []part
	if sc := s.Work.Script; sc != nil {
		if d <= sc.Last() {
			return nil, fmt.Errorf("work %v: its last step is at %v, and the storm is over at %v", s.Work, sc.Last(), d)
		}
		run.clock, parts = &clockwork{Script: sc}, sc.parts(d)
	}
	sup, err := New(run)
	if err != nil {
		return nil, err
	}
	// A bound on everything: no repetition takes longer, whatever goes wrong. An
	// interrupt ends the storm in order, not by killing it under its supervisor.
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), d+WarmUp+s.Stall+max(5*hangDeadline, time.Minute))
	defer cancel()
	st, err := startStorms(bound, s, d)
	if err != nil {
		return nil, err
	}
	defer st.close()
	if err := sup.Serve(st.listeners()...); err != nil {
		for _, l := range st.listeners() {
			_ = l.Close()
		}
		return nil, err
	}
	apart, _ := sup.(receivers)
	if tr == nil || s.Listeners < 2 {
		apart = nil
	}
	if apart != nil {
		tids, err := apart.receiverThreads(bound)
		if err == nil {
			err = tr.Receivers(tids...)
		}
		if err != nil {
			return nil, errors.Join(err, st.start(), stopServing(st, sup.Stop))
		}
	}
	if err := st.start(); err != nil {
		return nil, errors.Join(err, stopServing(st, sup.Stop))
	}
	var interrupted error
	if s.Load.Arrivals != nil { // the schedule does not wait
		interrupted = sleep(ctx, storm.Lead()+WarmUp)
	} else if interrupted = sleep(ctx, WarmUp); interrupted == nil {
		interrupted = st.rages(ctx, hangDeadline)
	}
	if run.stall != nil {
		run.stall.at.Store(now() + int64(d)/4)
	}
	var before, after measure
	before.begin(st, sup)
	var cuts [][2]measure
	var late []bool // that its end was read
	if interrupted == nil && run.clock != nil {
		begun := now()
		run.clock.from.Store(begun)
		until := func(t time.Duration) error { return sleep(ctx, max(t-time.Duration(now()-begun), 0)) }
		for _, p := range parts {
			var cut [2]measure
			if interrupted = until(p.from); interrupted != nil {
				break
			}
			cut[0].begin(st, sup)
			interrupted = until(p.to)
			cut[1].end(st, sup)
			cuts, late = append(cuts, cut), append(late, time.Duration(now()-begun) > p.next && p.next < d)
		}
	} else if interrupted == nil {
		interrupted = sleep(ctx, d)
	}
	after.end(st, sup)
	rep, err := st.halt(hangDeadline)
	serr := stopServing(st, sup.Stop)
	if rep != nil && rep.Lost > 0 {
		serr = nil // the finding itself: an engine that loses calls may not stop either
	}
	if err := errors.Join(interrupted, err, serr); err != nil {
		return nil, fmt.Errorf("engine %s, path %s, %d targets: %w", s.Engine, s.Path, s.Targets, err)
	}
	st.close()
	r := &Result{Spec: s, Lost: rep.Lost, Disturbed: rep.Disturbed, Clock: ClockEngine,
		Elapsed: after.at.Sub(before.at), CPU: after.cpu - before.cpu, TargetCPU: after.targetCPU - before.targetCPU, Allocs: after.allocs - before.allocs}
	r.Whole.Stats, r.Whole.Targets = sup.Stats(), sumCounts(st.counts())
	r.Stats, r.Wait = after.stats, after.waits
	r.Stats.sub(before.stats)
	for i := range st {
		after.counts[i].Sub(before.counts[i])
		after.roundTrip[i].Sub(before.roundTrip[i])
		if s.Listeners > 0 {
			r.listeners = append(r.listeners, listenerResult{after.counts[i], after.roundTrip[i]})
		}
	}
	r.Targets, r.RoundTrip = sumCounts(after.counts), sumTrips(after.roundTrip)
	switch {
	case tr != nil:
		r.Wait = sup.Waits()
		if apart != nil {
			r.OwnReceiverWaits = apart.receiverWaits()
		}
	case r.Wait != nil:
		r.Wait.Sub(before.waits)
	}
	r.OwnWait = r.Wait
	r.Corrected, r.little = r.RoundTrip, newLittle(r.Whole.Stats, st.rung(), rep)
	if rep.Open != nil {
		from := rep.Open.Origin() + int64(WarmUp)
		var begun, end int64
		if run.stall != nil {
			begun, end = run.stall.begun.Load(), run.stall.end.Load()
		}
		r.Open = rep.Open.Window(from, from+int64(d), begun, end)
		r.RoundTrip, r.Corrected = r.Open.RoundTrip, r.Open.Corrected
	}
	if r.Service = after.services; r.Service != nil {
		r.Service.Sub(before.services)
	}
	for i := range cuts {
		p := cuts[i][1].since(&cuts[i][0], s, parts[i].work, i+1)
		p.late = late[i]
		r.Parts = append(r.Parts, p)
	}
	return r, nil
}

// stopServing stops a supervisor whose targets are silent.
func stopServing(st storms, stop func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), hangDeadline)
	defer cancel()
	return st.ringUntil(func() error { return stop(ctx) })
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// since is what part n of a storm was, between two measures.
func (m *measure) since(before *measure, s Spec, w Work, n int) *Result {
	s.Work = w
	r := &Result{Spec: s, Part: n, Clock: ClockEngine, Elapsed: m.at.Sub(before.at), CPU: m.cpu - before.cpu,
		TargetCPU: m.targetCPU - before.targetCPU, Allocs: m.allocs - before.allocs, Stats: m.stats, Wait: m.waits, Service: m.services}
	r.Stats.sub(before.stats)
	for i := range m.counts {
		m.counts[i].Sub(before.counts[i])
		m.roundTrip[i].Sub(before.roundTrip[i])
	}
	r.Targets, r.RoundTrip = sumCounts(m.counts), sumTrips(m.roundTrip)
	r.Corrected = r.RoundTrip
	if r.Wait != nil {
		r.Wait.Sub(before.waits)
	}
	if r.Service != nil {
		r.Service.Sub(before.services)
	}
	r.OwnWait = r.Wait
	return r
}

// measure is what is read at both ends of a repetition.
type measure struct {
	at        time.Time
	counts    []storm.Counts // of each storm
	stats     Stats
	roundTrip []*hist.Snapshot
	waits     *hist.Snapshot
	services  *hist.Snapshot
	cpu       time.Duration
	targetCPU time.Duration
	allocs    uint64
}

// begin and end read what is divided by another (calls, time, CPU, drops) in one
// go, so that all of it is of one window. What takes long or allocates, the
// histograms and the memory statistics (which stop the world), is read outside
// of it: quantiles do not mind, and our own reading does not count.
func (m *measure) begin(st storms, sup Supervisor) {
	m.histograms(st, sup)
	m.memory()
	m.window(st, sup)
}

func (m *measure) end(st storms, sup Supervisor) {
	m.window(st, sup)
	m.memory()
	m.histograms(st, sup)
}

func (m *measure) window(st storms, sup Supervisor) {
	var ru unix.Rusage
	m.counts, m.at, m.stats = st.counts(), time.Now(), sup.Stats()
	if unix.Getrusage(unix.RUSAGE_SELF, &ru) == nil {
		m.cpu = time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	}
	m.targetCPU = st.cpu()
}

func (m *measure) memory() {
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	m.allocs = ms.Mallocs
}

func (m *measure) histograms(st storms, sup Supervisor) {
	m.roundTrip, m.waits = st.roundTrips(), sup.Waits()
	if s, ok := sup.(interface{ Services() *hist.Snapshot }); ok {
		m.services = s.Services()
	}
}
