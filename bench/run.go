package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/bench/trace"
	"github.com/unknot/unknot/engine/hist"
	"golang.org/x/sys/unix"
)

// A Result is one repetition of one Spec.
type Result struct {
	Spec
	Round     int
	Elapsed   time.Duration
	Stats     Stats
	Targets   storm.Counts
	RoundTrip *hist.Snapshot // ns, of served calls, by the targets' clocks
	Wait      *hist.Snapshot // ns, receive → dispatch; by Clock
	Clock     string         // ClockEngine, ClockTracepoints
	OwnWait   *hist.Snapshot // the engine's own clock in the run that Wait is of
	Lost      int            // targets that hung
	CPU       time.Duration  // the supervisor's, user and system
	Allocs    uint64         // the supervisor's heap allocations
}

// The clocks that a wait can come from.
const (
	ClockEngine      = "engine"
	ClockTracepoints = "tracepoints"
)

// Limits of one repetition.
const warmUp = 100 * time.Millisecond

// hangDeadline is when a target that does not come back counts as lost. Tests
// that want it to hang shorten it.
var hangDeadline = 10 * time.Second

// Once runs one repetition: a storm of the given duration against a fresh
// supervisor, after a warm-up that does not count. Whatever hangs is killed and
// reported as lost. Measure in an otherwise idle process: CPU and allocations
// are the process's.
//
// Traced, a second storm follows for the wait alone, because tracing costs
// speed. The inline path has no dispatch to trace: its wait is the engine's own.
func Once(ctx context.Context, s Spec, d time.Duration, traced bool) (*Result, error) {
	r, err := once(ctx, s, d, false)
	if err != nil || !traced || s.Path == PathInline {
		return r, err
	}
	tr, err := trace.Start(trace.Config{TGID: os.Getpid()})
	if err != nil {
		return nil, err
	}
	defer tr.Close()
	t, err := once(ctx, s, d, true)
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
	r.Lost += t.Lost
	return r, nil
}

// once runs one storm. With whole, the waits are those of all of it, the
// warm-up included, so that they are of the same events as a tracer's: cutting
// two clocks' windows at one instant is not possible.
func once(ctx context.Context, s Spec, d time.Duration, whole bool) (*Result, error) {
	sup, err := New(s)
	if err != nil {
		return nil, err
	}
	// A bound on everything: no repetition takes longer, whatever goes wrong.
	ctx, cancel := context.WithTimeout(ctx, d+warmUp+3*hangDeadline)
	defer cancel()
	st, err := storm.Start(ctx, storm.Config{Targets: s.Targets, CPU: s.TargetCPU})
	if err != nil {
		return nil, err
	}
	if err := sup.Serve(st.Listener()); err != nil {
		_ = st.Listener().Close()
		_, _ = st.Stop(0)
		return nil, err
	}
	if err := st.Go(); err != nil {
		_, _ = st.Stop(0)
		_, _ = sup.Stop(ctx)
		return nil, err
	}
	interrupted := sleep(ctx, warmUp)
	var before, after measure
	if interrupted == nil {
		interrupted = st.Rages(ctx, hangDeadline)
	}
	before.begin(st, sup)
	if interrupted == nil {
		interrupted = sleep(ctx, d)
	}
	after.end(st, sup)
	rep, err := st.Stop(hangDeadline)
	stop, cancelStop := context.WithTimeout(context.Background(), hangDeadline)
	defer cancelStop()
	stats, serr := sup.Stop(stop)
	if rep != nil && rep.Lost > 0 {
		// The finding itself: an engine that loses calls may not stop either.
		serr = nil
		_ = st.Listener().Close()
	}
	if err := errors.Join(interrupted, err, serr); err != nil {
		return nil, fmt.Errorf("engine %s, path %s, %d targets: %w", s.Engine, s.Path, s.Targets, err)
	}
	after.roundTrip.Sub(before.roundTrip)
	if whole {
		after.waits = sup.Waits()
	} else {
		if after.waits != nil {
			after.waits.Sub(before.waits)
		}
	}
	r := &Result{Spec: s, Stats: stats, Lost: rep.Lost, Clock: ClockEngine, Wait: after.waits, OwnWait: after.waits,
		Elapsed: after.at.Sub(before.at), CPU: after.cpu - before.cpu, Allocs: after.allocs - before.allocs}
	r.RoundTrip = after.roundTrip
	r.Targets = storm.Counts{OK: after.counts.OK - before.counts.OK, EINTR: after.counts.EINTR - before.counts.EINTR,
		ENOSYS: after.counts.ENOSYS - before.counts.ENOSYS, Other: after.counts.Other - before.counts.Other}
	return r, nil
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

// measure is what is read at both ends of a repetition.
type measure struct {
	at        time.Time
	counts    storm.Counts
	roundTrip *hist.Snapshot
	waits     *hist.Snapshot
	cpu       time.Duration
	allocs    uint64
}

// begin reads what a repetition starts from. What the process itself spends is
// read last here and first in end, so that our own reading does not count.
func (m *measure) begin(st *storm.Storm, sup Supervisor) {
	m.storm(st, sup)
	m.process()
}

func (m *measure) end(st *storm.Storm, sup Supervisor) {
	m.process()
	m.storm(st, sup)
}

func (m *measure) storm(st *storm.Storm, sup Supervisor) {
	m.counts, m.roundTrip, m.waits, m.at = st.Counts(), st.RoundTrip(), sup.Waits(), time.Now()
}

func (m *measure) process() {
	var ru unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &ru) == nil {
		m.cpu = time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	}
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	m.allocs = ms.Mallocs
}
