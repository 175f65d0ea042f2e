package trace

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

var variants = []variant{btfVariant, rawVariant}

// compareCounts reports every count in which the tracer differs from the supervisor.
func compareCounts(r *Report, s *supervisor) error {
	var errs []error
	for _, c := range []struct {
		name      string
		got, want uint64
	}{
		{"received", r.Received, s.received.Load()},
		{"dispatched", r.Dispatched, s.dispatched.Load()},
		{"answered", r.Answered, s.answered.Load()},
		{"dropped", r.Dropped, s.dropped.Load()},
		{"stale", r.Stale, s.stale.Load()},
		{"waits", r.Wait.Count, s.dispatched.Load()},
		{"answers", r.Answer.Count, s.answered.Load()},
		{"drops", r.Drop.Count, s.dropped.Load()},
		{"unmatched", r.Unmatched, 0},
		{"overflow", r.Overflow, 0},
		{"received, by where they went", r.Answered + r.Dropped + r.Stale, r.Received},
	} {
		if c.got != c.want {
			errs = append(errs, fmt.Errorf("%s: %d, the supervisor says %d", c.name, c.got, c.want))
		}
	}
	return errors.Join(errs...)
}

func TestCountsEqualTheSupervisors(t *testing.T) {
	needTracing(t)
	for _, v := range variants {
		for _, c := range []struct {
			name  string
			s     *supervisor
			quiet bool
			drops bool
		}{
			{"inline", &supervisor{}, true, false},
			{"queue", &supervisor{workers: 2, queue: 64}, true, false},
			{"overload", &supervisor{workers: 2, queue: 2, work: untilDrop}, true, true},
			{"signals", &supervisor{workers: 2, queue: 2, work: func(s *supervisor) { untilDrop(s); time.Sleep(time.Millisecond) }}, false, true},
		} {
			t.Run(v.name+"/"+c.name, func(t *testing.T) {
				g := newTargets(t, 12, 300, c.quiet)
				tr := newTracer(t, Config{TGID: os.Getpid()}, v)
				s := c.s
				supervise(t, g, s)
				r := report(t, tr)
				if err := compareCounts(r, s); err != nil {
					t.Error(err)
				}
				if s.received.Load() < 12*300 {
					t.Errorf("received %d of %d calls", s.received.Load(), 12*300)
				}
				if c.drops != (s.dropped.Load() > 0) {
					t.Errorf("%d drops: this test shows nothing", s.dropped.Load())
				}
				// Each of the supervisor's intervals lies within the tracer's.
				for _, h := range []struct {
					name   string
					got    *hist.Snapshot
					within *hist.Hist
				}{{"wait", r.Wait, &s.wait}, {"answer", r.Answer, &s.answer}, {"drop", r.Drop, &s.drop}} {
					own := h.within.Snapshot()
					if h.got.Sum < own.Sum || h.got.Max < own.Max {
						t.Errorf("%s: sum %d max %d, less than the supervisor's own %d and %d", h.name, h.got.Sum, h.got.Max, own.Sum, own.Max)
					}
				}
				t.Logf("received %d dispatched %d answered %d dropped %d stale %d retried %d", r.Received, r.Dispatched, r.Answered, r.Dropped, r.Stale, r.Retried)
			})
		}
	}
}

// The two clocks look at the same events from the two sides of a system call, so
// their medians differ by its cost; one attempt must be free of disturbance.
func TestClocksAgree(t *testing.T) {
	needTracing(t)
	for _, work := range []time.Duration{0, 50 * time.Microsecond} {
		t.Run(work.String(), func(t *testing.T) {
			for end := time.Now().Add(deadline); ; {
				g := newTargets(t, 16, 200, true)
				tr := newTracer(t, Config{TGID: os.Getpid()}, btfVariant)
				s := &supervisor{workers: 2, queue: 64, work: spin(work)}
				supervise(t, g, s)
				r := report(t, tr)
				if err := compareCounts(r, s); err != nil {
					t.Fatal(err)
				}
				traced, own := r.Wait.Quantile(0.5), s.wait.Snapshot().Quantile(0.5)
				t.Logf("p50 wait: %.1f µs traced, %.1f µs by the supervisor's clock", traced/1e3, own/1e3)
				if math.Abs(traced-own) <= 5e3 || math.Abs(float64(hist.Index(int64(traced))-hist.Index(int64(own)))) <= 1 {
					return
				}
				if time.Now().After(end) {
					t.Fatal("the clocks disagree by more than 5 µs and one bucket")
				}
			}
		})
	}
}

func TestBucketsEqualHist(t *testing.T) {
	needTracing(t)
	spec, err := loadIndex()
	if err != nil {
		t.Fatal(err)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer coll.Close()
	prog := coll.Programs["index_of"]
	values := []int64{math.MinInt64, -1 << 32, -1, math.MaxInt64 - 1, math.MaxInt64}
	for i := range hist.Buckets {
		lo, hi := hist.Bounds(i)
		values = append(values, lo, lo+1, (lo+hi)/2, hi-1, hi)
	}
	for e := range 63 {
		values = append(values, 1<<e-1, 1<<e, 1<<e+1)
	}
	for _, v := range values {
		in := struct {
			Value int64
			Index uint64
		}{Value: v}
		out := in
		if _, err := prog.Run(&ebpf.RunOptions{Context: in, ContextOut: &out}); err != nil {
			t.Fatal(err)
		}
		if int(out.Index) != hist.Index(v) {
			t.Fatalf("bucket of %d: %d in the kernel, %d in hist", v, out.Index, hist.Index(v))
		}
	}
	var row kernelHist
	if len(row.Counts) != hist.Buckets {
		t.Errorf("%d buckets in the kernel, %d in hist", len(row.Counts), hist.Buckets)
	}
}

// hold receives n notifications and answers none.
func hold(t *testing.T, l *notify.Listener, n int) []uint64 {
	t.Helper()
	ids := make([]uint64, n)
	p := []unix.PollFd{{Fd: int32(l.FD()), Events: unix.POLLIN}}
	for i := range ids {
		var no notify.Notif
		if _, err := unix.Poll(p, int(deadline/time.Millisecond)); err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
		if err := l.Recv(&no); err != nil {
			t.Fatal(err)
		}
		ids[i] = no.ID
	}
	return ids
}

func TestFullTableIsCounted(t *testing.T) {
	needTracing(t)
	const inFlight, slots = 64, 8 + 8 // near and far
	g := newTargets(t, inFlight, 1, true)
	tr := newTracer(t, Config{TGID: os.Getpid(), MaxInFlight: slots / 4}, btfVariant)
	if err := g.release(); err != nil {
		t.Fatal(err)
	}
	ids := hold(t, g.l, inFlight)
	for _, id := range ids {
		if err := g.l.IDValid(id); err != nil {
			t.Error(err)
		}
		if err := g.l.Send(&notify.Resp{ID: id}); err != nil {
			t.Error(err)
		}
	}
	r := report(t, tr)
	if r.Received != inFlight || r.Overflow != inFlight-slots || r.Unmatched != inFlight-slots || r.Dispatched != slots || r.Answered != slots {
		t.Errorf("received %d, overflow %d, unmatched %d, dispatched %d, answered %d; the table has %d places",
			r.Received, r.Overflow, r.Unmatched, r.Dispatched, r.Answered, slots)
	}
}

// The promise of MaxInFlight: that many, from several listeners, lose nothing.
func TestMaxInFlightFits(t *testing.T) {
	needTracing(t)
	const listeners, each = 4, 60
	tr := newTracer(t, Config{TGID: os.Getpid(), MaxInFlight: listeners * each}, btfVariant)
	for range listeners {
		g := newTargets(t, each, 1, true)
		if err := g.release(); err != nil {
			t.Fatal(err)
		}
		defer func(ids []uint64) {
			for _, id := range ids {
				_ = g.l.Send(&notify.Resp{ID: id})
			}
		}(hold(t, g.l, each))
	}
	if r := report(t, tr); r.Received != listeners*each || r.Overflow != 0 {
		t.Errorf("received %d, overflow %d", r.Received, r.Overflow)
	}
}

func TestEveryKindOfAnswer(t *testing.T) {
	needTracing(t)
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			g := newTargets(t, 9, 1, true)
			tr := newTracer(t, Config{TGID: os.Getpid(), Results: true}, v)
			if err := g.release(); err != nil {
				t.Fatal(err)
			}
			ids := hold(t, g.l, 9)
			null, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			defer null.Close()
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Error(err)
				}
			}
			eintr := -int32(unix.EINTR)
			must(g.l.Send(&notify.Resp{ID: ids[0]}))               // inline
			must(g.l.Send(&notify.Resp{ID: ids[1], Error: eintr})) // drop
			must(g.l.IDValid(ids[2]))
			must(g.l.Send(&notify.Resp{ID: ids[2], Error: eintr})) // a handler's own EINTR
			must(g.l.IDValid(ids[3]))
			must(g.l.IDValid(ids[3])) // asks again: one dispatch
			_, err = g.l.AddFD(&notify.AddFD{ID: ids[3], SrcFD: uint32(null.Fd())})
			must(err) // no answer yet
			if n, err := tr.InFlight(); n != 6 || err != nil {
				t.Errorf("%d of 9 in flight after 3 answers and a descriptor without one (%v)", n, err)
			}
			must(g.l.Send(&notify.Resp{ID: ids[3], Flags: notify.RespContinue}))
			_, err = g.l.AddFD(&notify.AddFD{ID: ids[4], SrcFD: uint32(null.Fd()), Flags: notify.AddFDSend})
			must(err) // descriptor and answer in one
			if err := g.l.Send(&notify.Resp{ID: ids[4] + 1000}); notify.OutcomeOf(err) != notify.Stale {
				t.Errorf("answer to nobody: %v", err) // never received: not counted
			}
			g.kill()
			<-g.over
			for _, id := range ids[5:7] {
				if err := g.l.IDValid(id); notify.OutcomeOf(err) != notify.Stale {
					t.Errorf("dead target: %v", err)
				}
				_ = g.l.Send(&notify.Resp{ID: id}) // counts once
			}
			for _, id := range ids[7:] {
				if err := g.l.Send(&notify.Resp{ID: id, Error: eintr}); notify.OutcomeOf(err) != notify.Stale {
					t.Errorf("dead target: %v", err)
				}
			}
			r := report(t, tr)
			got := [...]uint64{r.Received, r.Dispatched, r.Answered, r.Dropped, r.Stale, r.Retried, r.Unmatched, r.Overflow}
			want := [...]uint64{9, 4, 4, 1, 4, 0, 0, 0}
			if got != want {
				t.Errorf("received, dispatched, answered, dropped, stale, retried, unmatched, overflow:\n got %d\nwant %d", got, want)
			}
			counts := [...]Returned{r.Recv, r.Send, r.IDValid, r.AddFD}
			if want := [...]Returned{{Done: 9}, {Done: 4, Gone: 5}, {Gone: 2}, {Done: 2}}; counts != want {
				t.Errorf("RECV, SEND, ID_VALID, ADDFD returned %+v, want %+v", counts, want)
			}
		})
	}
}

func TestDropErrno(t *testing.T) {
	needTracing(t)
	g := newTargets(t, 2, 1, true)
	tr := newTracer(t, Config{TGID: os.Getpid(), DropErrno: unix.EAGAIN}, btfVariant)
	if err := g.release(); err != nil {
		t.Fatal(err)
	}
	for i, id := range hold(t, g.l, 2) {
		if err := g.l.Send(&notify.Resp{ID: id, Error: -int32([]unix.Errno{unix.EINTR, unix.EAGAIN}[i])}); err != nil {
			t.Error(err)
		}
	}
	if r := report(t, tr); r.Dropped != 1 || r.Answered != 1 {
		t.Errorf("dropped %d, answered %d", r.Dropped, r.Answered)
	}
}

func TestSupervisorOlderThanTracer(t *testing.T) {
	needTracing(t)
	g := newTargets(t, 3, 1, true)
	if err := g.release(); err != nil {
		t.Fatal(err)
	}
	ids := hold(t, g.l, 3)
	tr := newTracer(t, Config{TGID: os.Getpid()}, btfVariant)
	for _, id := range ids {
		_ = g.l.IDValid(id)
		if err := g.l.Send(&notify.Resp{ID: id}); err != nil {
			t.Error(err)
		}
	}
	if r := report(t, tr); r.Unmatched != 3 || r.Received != 0 || r.Answered != 0 || r.Dispatched != 0 {
		t.Errorf("unmatched %d, received %d, dispatched %d, answered %d", r.Unmatched, r.Received, r.Dispatched, r.Answered)
	}
}

func TestOtherProcessesAndSecondTracer(t *testing.T) {
	needTracing(t)
	idle := exec.Command("sleep", "600")
	if err := idle.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = idle.Process.Kill(); _ = idle.Wait() }()
	g := newTargets(t, 4, 100, true)
	other := newTracer(t, Config{TGID: idle.Process.Pid}, btfVariant)
	ours := newTracer(t, Config{TGID: os.Getpid()}, btfVariant)
	raw := newTracer(t, Config{TGID: os.Getpid()}, rawVariant)
	all := newTracer(t, Config{}, btfVariant)
	s := &supervisor{workers: 1, queue: 16}
	supervise(t, g, s)
	if r := report(t, other); r.Received+r.Dispatched+r.Answered+r.Unmatched != 0 {
		t.Errorf("another process's calls were counted: %+v", *r)
	}
	for _, tr := range []*Tracer{ours, raw} {
		if err := compareCounts(report(t, tr), s); err != nil {
			t.Error(err)
		}
	}
	// Other supervisors may be at work on this machine.
	if r := report(t, all); r.Received < s.received.Load() {
		t.Errorf("every process: received %d, fewer than ours (%d)", r.Received, s.received.Load())
	}
}

func TestResetForgets(t *testing.T) {
	needTracing(t)
	tr := newTracer(t, Config{TGID: os.Getpid()}, btfVariant)
	for round := range 3 { // both banks, and the first again
		time.Sleep(time.Duration(2-round) * 5 * time.Millisecond)
		s := &supervisor{workers: 1, queue: 16}
		start := time.Now()
		supervise(t, newTargets(t, 4, 50*(round+1), true), s)
		r := report(t, tr)
		if err := compareCounts(r, s); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		if r.Wait.Max == 0 || r.Wait.Max > time.Since(start).Nanoseconds() {
			t.Errorf("round %d: longest wait %d ns", round, r.Wait.Max)
		}
		reset := time.Now()
		if err := tr.Reset(); err != nil {
			t.Fatal(err)
		}
		if r := report(t, tr); r.Received+r.Wait.Count+r.Answer.Count != 0 || r.Wait.Sum+r.Wait.Max != 0 || r.Elapsed > time.Since(reset) {
			t.Errorf("after reset: %d received, %d waits, elapsed %v", r.Received, r.Wait.Count, r.Elapsed)
		}
	}
}

func TestCloseDetaches(t *testing.T) {
	needTracing(t)
	tr := newTracer(t, Config{TGID: os.Getpid()}, btfVariant)
	counts, err := tr.coll.Maps[kernelMapCounts].Clone()
	if err != nil {
		t.Fatal(err)
	}
	defer counts.Close()
	received := func() (n uint64) {
		var rows []kernelCounters
		if err := counts.Lookup(uint32(0), &rows); err != nil {
			t.Fatal(err)
		}
		for _, c := range rows {
			n += c.Received
		}
		return n
	}
	supervise(t, newTargets(t, 2, 20, true), &supervisor{})
	before := received()
	if before == 0 {
		t.Fatal("nothing was counted while it was attached")
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	supervise(t, newTargets(t, 2, 20, true), &supervisor{})
	if after := received(); after != before {
		t.Errorf("%d received after Close", after-before)
	}
	_, errReport := tr.Report()
	for _, err := range []error{tr.Close(), tr.Reset(), errReport} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

func TestBadConfig(t *testing.T) {
	for _, c := range []struct {
		c    Config
		want string
	}{
		{Config{TGID: -1}, "negative"},
		{Config{TGID: math.MaxInt32}, "no process"},
		{Config{MaxInFlight: -1}, "MaxInFlight"},
		{Config{DropErrno: 4096}, "DropErrno"},
		{Config{MaxInFlight: math.MaxInt}, "MaxInFlight"},
	} {
		tr, err := Start(c.c)
		if err == nil {
			_ = tr.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want something about %q", c.c, err, c.want)
		}
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range threads {
		var tid int
		if _, err := fmt.Sscan(d.Name(), &tid); err == nil && tid != os.Getpid() {
			if _, err := Start(Config{TGID: tid}); err == nil || !strings.Contains(err.Error(), "thread of process") {
				t.Errorf("a thread's id: %v", err)
			}
			break
		}
	}
}
