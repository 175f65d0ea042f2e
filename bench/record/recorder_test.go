package record

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/bench/trace"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	storm.Main()
	if step := os.Getenv(execEnv); step != "" {
		if err := beExec(step); err != nil {
			fmt.Fprintln(os.Stderr, "exec:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// testDeadline is for what must happen, on a machine where a thread may stand still for seconds.
const testDeadline = 3 * time.Minute

// A supervisor is a bench.Supervisor as far as it is needed here.
type supervisor interface {
	Serve(...*notify.Listener) error
	Stop(context.Context) error
}

// storming has do happen while a supervisor in this process is under a storm.
func storming(t testing.TB, sup supervisor, s bench.Spec, do func(*storm.Storm)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testDeadline)
	defer cancel()
	load, err := s.Load.Config(s.Targets, 0, time.Minute, 1) // of an open loop, whose start may be late
	if err != nil {
		t.Fatal(err)
	}
	st, err := storm.Start(ctx, load)
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
	do(st)
	if _, err := st.Halt(testDeadline); err != nil {
		t.Fatal(err)
	}
	if err := st.RingUntil(func() error { return sup.Stop(ctx) }); err != nil {
		t.Fatal(err)
	}
}

// recorded storms an engine in this process and records it until so many calls
// were made.
func recorded(t *testing.T, s bench.Spec, calls int) *Recording {
	t.Helper()
	return recordedOfLoad(t, func() (supervisor, error) { return bench.New(s) }, s, calls)
}

func recordedOf(t *testing.T, sup func() supervisor, targets, calls int) *Recording {
	t.Helper()
	return recordedOfLoad(t, func() (supervisor, error) { return sup(), nil }, bench.Spec{Targets: targets}, calls)
}

// recordedOfLoad records again, a storm of its own, where the recorder stood still and therefore lost some.
func recordedOfLoad(t *testing.T, start func() (supervisor, error), s bench.Spec, calls int) (r *Recording) {
	t.Helper()
	if err := trace.Probe(); err != nil {
		t.Skip(err)
	}
	for end := time.Now().Add(testDeadline); r == nil || r.Lost.Overrun+r.Lost.Missed > 0 && time.Now().Before(end); {
		sup, err := start()
		if err != nil {
			t.Fatal(err)
		}
		storming(t, sup, s, func(*storm.Storm) {
			ctx, cancel := context.WithTimeout(t.Context(), testDeadline)
			defer cancel()
			var err error
			if r, err = Record(ctx, Config{PID: os.Getpid(), MaxCalls: calls}); err != nil {
				t.Fatal(err)
			}
			if ctx.Err() != nil {
				t.Fatalf("%d calls in %v", len(r.Calls), testDeadline)
			}
		})
	}
	return r
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
	if f := r.Feedback(); f.Loop == openLoop {
		t.Errorf("threads that wait for each answer are taken for an open loop: %+v", f)
	}
}

func TestRecordOfDrops(t *testing.T) {
	s := bench.Spec{Engine: "unknot", Path: bench.PathQueue, Targets: 16, Workers: 1, Queue: 2, CheckAfter: engine.AlwaysCheck}
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

// A supervisor that is a zombie, because nobody waits for it, has ended.
func TestRecordOfAZombie(t *testing.T) {
	if err := trace.Probe(); err != nil {
		t.Skip(err)
	}
	sup := exec.Command("true")
	if err := sup.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sup.Wait() }()
	ctx, cancel := context.WithTimeout(t.Context(), testDeadline)
	defer cancel()
	if r, err := Record(ctx, Config{PID: sup.Process.Pid}); !errors.Is(err, ErrEmpty) || ctx.Err() != nil {
		t.Errorf("%v, %v; %v", r, err, ctx.Err())
	}
}

// silent never asks ID_VALID: one thread receives, another answers.
type silent struct {
	stop atomic.Bool
	done chan error
}

func (s *silent) Serve(ls ...*notify.Listener) error {
	l := ls[0]
	s.done = make(chan error, 1)
	calls := make(chan uint64, 64)
	osthread.Start(func() {
		defer close(calls)
		for n := (notify.Notif{}); !s.stop.Load(); {
			if l.Recv(&n) == nil {
				calls <- n.ID
			}
		}
	})
	osthread.Start(func() {
		for id := range calls {
			time.Sleep(50 * time.Microsecond)
			_ = l.Send(&notify.Resp{ID: id})
		}
		s.done <- l.Close()
	})
	return nil
}

func (s *silent) Stop(ctx context.Context) error {
	s.stop.Store(true)
	select {
	case err := <-s.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestServiceOfWhoeverNeverAsksIsUnknown(t *testing.T) {
	r := recordedOf(t, func() supervisor { return &silent{} }, 4, 1000)
	checkRecorded(t, r, bench.Spec{Targets: 4}, 1000)
	if v := r.Service(); v.Times != nil || v.Known != 0 || v.Served < 990 {
		t.Errorf("%d of %d services are known", v.Known, v.Served)
	}
}

// The engine's default is to ask for a sample of the calls.
func TestServiceOfASample(t *testing.T) {
	s := bench.Spec{Engine: "unknot", Path: bench.PathQueue, Targets: 4, Workers: 2, Queue: 16}
	s.Work, _ = bench.ParseWork("spin:100us")
	r := recorded(t, s, 4000)
	checkRecorded(t, r, s, 4000)
	v := r.Service()
	if v.Dispatch != Checked || v.Known < v.Served/100 {
		t.Fatalf("service known of %d of %d calls", v.Known, v.Served)
	}
	if p := v.Times.Quantile(.01); p < 96e3 {
		t.Errorf("1%% of the services are shorter than %v, handlers took 100µs", time.Duration(p))
	}
}
