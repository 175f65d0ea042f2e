package record

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/bench/trace"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	storm.Main()
	os.Exit(m.Run())
}

// recorded storms an engine in this process and records it until so many calls
// were made.
func recorded(t *testing.T, s bench.Spec, calls int) *Recording {
	t.Helper()
	if err := trace.Probe(); err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sup, err := bench.New(s)
	if err != nil {
		t.Fatal(err)
	}
	st, err := storm.Start(ctx, storm.Config{Targets: s.Targets})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if err := sup.Serve(st.Listener()); err != nil {
		t.Fatal(err)
	}
	if err := st.Go(); err != nil {
		t.Fatal(err)
	}
	r, err := Record(ctx, Config{PID: os.Getpid(), MaxCalls: calls})
	if err != nil {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Fatalf("%d calls in a minute", len(r.Calls))
	}
	if _, err := st.Halt(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- sup.Stop(ctx) }()
	for {
		select {
		case err := <-stopped:
			if err != nil {
				t.Fatal(err)
			}
			return r
		case <-time.After(time.Millisecond):
			_ = st.Ring() // wakes a receiver that blocks in RECV
		}
	}
}

func checkRecorded(t *testing.T, r *Recording, s bench.Spec, calls int) {
	t.Helper()
	if len(r.Calls) != calls || r.Threads != s.Targets || len(r.Syscalls) != 1 || r.Syscalls[0] != (Syscall{notify.NativeArch, unix.SYS_GETPPID}) {
		t.Errorf("%d calls of %d threads, %v", len(r.Calls), r.Threads, r.Syscalls)
	}
	// Each thread was in a call when it began, and one more may be seen before its switch.
	if n := r.Trapped(); n < calls-2*s.Targets-calls/10 {
		t.Errorf("the trap of %d of %d calls was seen", n, calls)
	}
	if r.Lost.Overrun > 0 || r.Lost.Missed > 0 {
		t.Errorf("lost %+v", r.Lost)
	}
	last := make([]int64, r.Threads)
	for i := range r.Calls {
		c := &r.Calls[i]
		if c.Trapped && c.Arrival < last[c.Thread] {
			t.Fatalf("call %d: thread %d trapped at %d, and was answered at %d", i, c.Thread, c.Arrival, last[c.Thread])
		}
		last[c.Thread] = c.Arrival + c.Response()
	}
	if f := r.InFlight(); f.Max > s.Targets {
		t.Errorf("%d calls of %d threads in flight", f.Max, s.Targets)
	}
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d calls in %v, %d bytes each", len(r.Calls), r.Elapsed, len(b)/len(r.Calls))
}

func TestRecordOfAQueue(t *testing.T) {
	const work = 100 * time.Microsecond
	s := bench.Spec{Engine: "unknot", Path: bench.PathQueue, Targets: 8, Workers: 2, Queue: 64, CheckAfter: engine.AlwaysCheck}
	s.Work, _ = bench.ParseWork("spin:100us")
	r := recorded(t, s, 2000)
	checkRecorded(t, r, s, 2000)
	v := r.Service()
	if v.Dispatch != Checked || v.Known < v.Served-s.Targets {
		t.Fatalf("service known of %d of %d calls", v.Known, v.Served)
	}
	if p := v.Times.Quantile(.01); p < .96*float64(work) {
		t.Errorf("1%% of the services are shorter than %v, handlers took %v", p, work)
	}
	if f := r.Feedback(); f.Loop == OpenLoop {
		t.Errorf("threads that wait for each answer are taken for an open loop: %+v", f)
	}
}

func TestRecordOfDrops(t *testing.T) {
	s := bench.Spec{Engine: "seed", Path: bench.PathQueue, Targets: 16, Workers: 1, Queue: 2}
	s.Work, _ = bench.ParseWork("sleep:1ms")
	r := recorded(t, s, 2000)
	checkRecorded(t, r, s, 2000)
	if r.Count(Dropped) == 0 || r.Count(Served) == 0 {
		t.Errorf("%d served, %d dropped", r.Count(Served), r.Count(Dropped))
	}
	if v := r.Service(); v.Blocked < .9 {
		t.Errorf("%v of the time of handlers that sleep was spent asleep", v.Blocked)
	}
}

func TestRecordOfAnInlineSupervisor(t *testing.T) {
	s := bench.Spec{Engine: "unknot", Path: bench.PathInline, Targets: 2}
	s.Work, _ = bench.ParseWork("spin:50us")
	r := recorded(t, s, 1000)
	checkRecorded(t, r, s, 1000)
	if v := r.Service(); v.Dispatch != Inline || v.Times.Quantile(.01) < 48e3 {
		t.Errorf("%+v", v)
	}
}

func TestRecordOfNobody(t *testing.T) {
	if err := trace.Probe(); err != nil {
		t.Skip(err)
	}
	if r, err := Record(t.Context(), Config{PID: os.Getpid(), Duration: time.Millisecond}); !errors.Is(err, ErrEmpty) {
		t.Errorf("no calls: %v, %v", r, err)
	}
	for _, c := range []Config{{PID: 0}, {PID: -1}, {PID: 1 << 30}, {PID: 1, MaxCalls: -1}, {PID: 1, MaxCalls: MaxCalls + 1}, {PID: 1, Duration: -1}} {
		if _, err := Record(t.Context(), c); err == nil {
			t.Errorf("%+v: no error", c)
		}
	}
}
