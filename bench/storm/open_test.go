package storm

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/mono"
	"golang.org/x/sys/unix"
)

func TestProcessesKeepTheirRate(t *testing.T) {
	const rate, d = 5000, 20 * time.Second
	for _, name := range []string{"constant", "poisson", "onoff:10ms:30ms"} {
		p, err := ParseProcess(name, rate)
		if err != nil {
			t.Fatal(err)
		}
		as, err := p.Schedule(d, 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkSchedule(as); err != nil || as[len(as)-1].At >= d {
			t.Errorf("%s: %v, the last at %v", name, err, as[len(as)-1].At)
		}
		// A burst's calls come together: the standard deviation of the count is
		// that of about 500 bursts.
		if got := float64(len(as)) / d.Seconds(); math.Abs(got-rate) > 0.15*rate {
			t.Errorf("%s: %.0f calls/s", name, got)
		}
		// The gaps' coefficient of variation tells the processes apart.
		var sum, squares float64
		for i := range as[1:] {
			g := float64(as[i+1].At - as[i].At)
			sum += g
			squares += g * g
		}
		n := float64(len(as) - 1)
		cv := math.Sqrt(squares/n-sum/n*sum/n) / (sum / n)
		want := map[string][2]float64{"constant": {0, .01}, "poisson": {.97, 1.03}, "onoff:10ms:30ms": {3, 15}}[name]
		if cv < want[0] || cv > want[1] {
			t.Errorf("%s: the gaps' coefficient of variation is %.3f, want %v", name, cv, want)
		}
		again, _ := p.Schedule(d, 1)
		other, _ := p.Schedule(d, 2)
		if !slices.Equal(as, again) || p.Kind != Constant && slices.Equal(as, other) {
			t.Errorf("%s: the seed does not decide", name)
		}
	}
}

func TestBadLoads(t *testing.T) {
	for _, s := range []string{"", "uniform", "onoff", "onoff:10ms", "onoff:0s:1ms", "onoff:1ms:-1ms", "constant:5"} {
		if p, err := ParseProcess(s, 1); err == nil {
			t.Errorf("arrivals %q are %v", s, p)
		}
	}
	for _, r := range []float64{0, -1, math.Inf(1), math.NaN()} {
		if p, err := ParseProcess("poisson", r); err == nil {
			t.Errorf("rate %v is %v", r, p)
		}
	}
	if _, err := (Process{Rate: 1e9}).Schedule(time.Minute, 1); err == nil {
		t.Error("a schedule without end")
	}
	for _, s := range []string{"", "fork", "getppid:0", "getppid:x", "getppid,getppid", "getppid:1001", ","} {
		if m, err := ParseMix(s); err == nil {
			t.Errorf("calls %q are %v", s, m)
		}
	}
	for in, out := range map[string]string{"getppid:7": "getppid", "openat:3,getppid": "getppid,openat:3"} {
		if m, err := ParseMix(in); err != nil || m.String() != out {
			t.Errorf("calls %q: %v, %v; want %s", in, m, err, out)
		}
	}
	for _, s := range []string{"", "-1us", "sleep", "1us~-1"} {
		if th, err := ParseThink(s); err == nil {
			t.Errorf("think %q is %v", s, th)
		}
	}
	for _, as := range [][]Arrival{{{At: 2}, {At: 1}}, {{At: -1}}, {{Call: numCalls}}} {
		if s, err := Start(t.Context(), Config{Targets: 1, Open: true, Schedule: as}); err == nil {
			t.Errorf("schedule %v was accepted", as)
			s.Close()
		}
	}
}

// receive returns the next notification.
func receive(t *testing.T, l *notify.Listener) *notify.Notif {
	t.Helper()
	n := new(notify.Notif)
	for {
		switch err := l.Recv(n); notify.OutcomeOf(err) {
		case notify.Done:
			return n
		case notify.Retry, notify.Stale:
		default:
			t.Fatal(err)
		}
	}
}

func answer(t *testing.T, l *notify.Listener, n *notify.Notif) {
	t.Helper()
	if err := l.Send(&notify.Resp{ID: n.ID, Val: 1}); err != nil {
		t.Fatal(err)
	}
}

// TestTheScheduleIsMade: each call of a schedule reaches the supervisor once, with
// its number and its tag, and none before its time.
func TestTheScheduleIsMade(t *testing.T) {
	var as []Arrival
	for i := range 200 {
		as = append(as, Arrival{At: time.Duration(i) * 200 * time.Microsecond, Call: anyCall, Tag: uint32(i)})
	}
	as[7].Call = mkdirat // which the mix has not
	mix, _ := ParseMix("openat:3,connect,getppid")
	s := begin(t, Config{Targets: 8, Open: true, Schedule: as, Mix: mix, Seed: 3})
	defer func() { _ = s.Listener().Close() }()
	if err := s.Go(); err != nil {
		t.Fatal(err)
	}
	seen := map[uint32]int32{}
	for range as {
		n := receive(t, s.Listener())
		now := mono.Now()
		if n.Data.Args[5]>>32 != Mark {
			t.Fatalf("an unmarked call %d", n.Data.NR)
		}
		tag := uint32(n.Data.Args[5])
		if _, twice := seen[tag]; twice {
			t.Errorf("call %d was made twice", tag)
		}
		seen[tag] = n.Data.NR
		if at := s.shm.head.origin.Load() + int64(as[tag].At); now < at {
			t.Errorf("call %d came %v early", tag, time.Duration(at-now))
		}
		if addr, size, ok := memory(&n.Data); ok {
			b := make([]byte, size)
			local, remote := []unix.Iovec{{Base: &b[0]}}, []unix.RemoteIovec{{Base: addr, Len: size}}
			local[0].SetLen(size)
			if _, err := unix.ProcessVMReadv(int(n.PID), local, remote, 0); err != nil {
				t.Fatal(err)
			}
			if n.Data.NR == unix.SYS_OPENAT && string(b) != string(path[:]) {
				t.Errorf("the path is %q", b)
			}
		} else if n.Data.NR != unix.SYS_GETPPID {
			t.Errorf("call %d has no memory", n.Data.NR)
		}
		answer(t, s.Listener(), n)
	}
	r, err := s.Stop(testDeadline)
	if err != nil {
		t.Fatal(err)
	}
	byNR := map[int32]int{}
	for _, nr := range seen {
		byNR[nr]++
	}
	if seen[7] != unix.SYS_MKDIRAT || byNR[unix.SYS_MKDIRAT] != 1 || len(byNR) != 4 || byNR[unix.SYS_OPENAT] < 80 || byNR[unix.SYS_OPENAT] > 160 {
		t.Errorf("calls by number: %v", byNR)
	}
	if r.OK != 200 || r.Calls() != 200 || r.Lost != 0 || r.RoundTrip.Count != 200 {
		t.Errorf("%v, lost %d", r.Counts, r.Lost)
	}
	var inFlight int64
	for i, c := range r.Open.calls {
		if c.Intended != r.Open.Origin()+int64(as[i].At) || c.Started < c.Intended || c.Ended <= c.Started || c.Errno != 0 {
			t.Errorf("call %d: %+v", i, c)
		}
		inFlight += c.Ended - c.Started
	}
	if got := int64(r.InFlight); got != inFlight || r.RoundTrip.Sum != inFlight {
		t.Errorf("in flight for %d ns by the idle time, %d ns by the calls, %d ns by the histogram", got, inFlight, r.RoundTrip.Sum)
	}
}

// TestCallsThatFindNoIdleTargetAreLate: one target is held, and the calls that are
// due meanwhile are made late, and say so.
func TestCallsThatFindNoIdleTargetAreLate(t *testing.T) {
	as := []Arrival{{At: 0}, {At: time.Millisecond}, {At: 2 * time.Millisecond}}
	s := begin(t, Config{Targets: 1, Open: true, Schedule: as})
	defer func() { _ = s.Listener().Close() }()
	if err := s.Go(); err != nil {
		t.Fatal(err)
	}
	n := receive(t, s.Listener())
	const held = 10 * time.Millisecond
	time.Sleep(held)
	answer(t, s.Listener(), n)
	for range 2 {
		answer(t, s.Listener(), receive(t, s.Listener()))
	}
	r, err := s.Stop(testDeadline)
	if err != nil {
		t.Fatal(err)
	}
	calls := r.Open.calls
	if !calls[1].Late || !calls[2].Late {
		t.Errorf("%+v", calls)
	}
	w := r.Open.Window(r.Open.Origin(), math.MaxInt64, 0, 0)
	if !w.Void() || w.Late < 2 || w.Intended != 3 || w.Corrected.Count != 3 {
		t.Errorf("%+v", w)
	}
	// The last was due 8 ms before it could be made.
	if got := time.Duration(calls[2].Ended - calls[2].Intended); got < held-2*time.Millisecond {
		t.Errorf("the corrected latency is %v", got)
	}
}

// TestWhatWasDueIsMadeAfterHalt: a call that was due before the halt is not lost
// to it.
func TestWhatWasDueIsMadeAfterHalt(t *testing.T) {
	s := begin(t, Config{Targets: 1, Open: true, Schedule: []Arrival{{}, {}, {}, {At: time.Hour}}})
	defer func() { _ = s.Listener().Close() }()
	if err := s.Go(); err != nil {
		t.Fatal(err)
	}
	n := receive(t, s.Listener()) // the other two are due, too
	head := s.shm.head
	reports := make(chan *Report)
	go func() {
		r, err := s.Stop(testDeadline)
		if err != nil {
			t.Error(err)
		}
		reports <- r
	}()
	for head.stopAt.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	answer(t, s.Listener(), n)
	for range 2 {
		answer(t, s.Listener(), receive(t, s.Listener()))
	}
	r := <-reports
	w := r.Open.Window(0, math.MaxInt64, 0, 0)
	if r.OK != 3 || r.Lost != 0 || w.Unmade != 1 || w.Intended != 4 {
		t.Errorf("%v, lost %d, %+v", r.Counts, r.Lost, w)
	}
}

func TestWindow(t *testing.T) {
	on := func(at int64) made { return made{Intended: at, Started: at, Ended: at + 1} }
	late := func(at int64) made { return made{Intended: at, Started: at + 50, Ended: at + 51, Late: true} }
	dropped := func(at int64) made { m := on(at); m.Errno = uint32(unix.EINTR); return m }
	r := OpenReport{calls: []made{late(1), on(10), late(20), on(30), late(40), late(50), late(60), on(70), late(80), dropped(90), {Intended: 95}, on(100)}}
	w := r.Window(10, 100, 0, 0)
	if w.Intended != 10 || w.Late != 6 || w.Excused != 0 || w.Unmade != 1 || w.Corrected.Count != 8 || w.RoundTrip.Max != 1 || w.Corrected.Max != 51 || w.Lag.Count != 4 || !w.Void() {
		t.Errorf("%+v", w)
	}
	// A stall from 35 to 55 excuses 40, 50 and 60, which follows without a break,
	// not 20 and 80.
	if w = r.Window(10, 90, 35, 55); w.Late != 5 || w.Excused != 3 || !w.Void() {
		t.Errorf("stalled: %+v", w)
	}
	if w = r.Window(30, 80, 35, 55); w.Late != 3 || w.Excused != 3 || w.Void() {
		t.Errorf("all excused: %+v", w)
	}
	if w = r.Window(200, 300, 0, 0); !w.Void() {
		t.Error("nothing was measured, and that is not void")
	}
}

// TestThinkTimes: the time in the loop is the time in calls and the time in
// thought, however a thread thinks.
func TestThinkTimes(t *testing.T) {
	for _, text := range []string{"100us", "100us~1", "sleep:100us", "sleep:100us~1"} {
		think, err := ParseThink(text)
		if err != nil || think.String() != "100µs" && text == "100us" {
			t.Fatal(think, err)
		}
		s := begin(t, Config{Targets: 2, Think: think})
		done := make(chan struct{})
		go func() {
			defer close(done)
			supervise(s.Listener(), nil)
		}()
		if err := s.Go(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(testDeadline); s.Counts().Calls() < 200 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		r, err := s.Halt(testDeadline)
		if err != nil {
			t.Fatal(err)
		}
		var idle time.Duration
		for i := range s.shm.hammers() {
			idle += time.Duration(s.shm.threads[i].idle.Load())
		}
		s.Close()
		<-done
		_ = s.Listener().Close()
		// Each thread draws 100 times, give or take its luck.
		if least := time.Duration(r.Calls()) * 50 * time.Microsecond; idle < least {
			t.Errorf("think %s: %v in %d calls", text, idle, r.Calls())
		}
		if trips := time.Duration(r.RoundTrip.Sum + r.FailTrip.Sum); r.InFlight != trips {
			t.Errorf("think %s: in flight for %v by the idle time, %v by the histograms", text, r.InFlight, trips)
		}
	}
}

// Threads beyond the holders rest, come when calls pile up, and end with the storm, also
// those that sleep for a call that is far off.
func TestMoreThreadsThanHolders(t *testing.T) {
	const targets = 3 * holders
	as := make([]Arrival, targets, targets+1)
	for i := range as {
		as[i].At = time.Duration(i) * 10 * time.Microsecond
	}
	as = append(as, Arrival{At: time.Hour})
	s := begin(t, Config{Targets: targets, Open: true, Schedule: as})
	defer func() { _ = s.Listener().Close() }()
	if err := s.Go(); err != nil {
		t.Fatal(err)
	}
	var held []*notify.Notif
	for range targets { // all of them in flight at once
		held = append(held, receive(t, s.Listener()))
	}
	for _, n := range held {
		answer(t, s.Listener(), n)
	}
	r, err := s.Halt(testDeadline)
	if err != nil || r.Lost > 0 {
		t.Fatalf("%d threads did not end, %v", r.Lost, err)
	}
	if r.Counts.OK != targets {
		t.Errorf("%v, want %d calls", r.Counts, targets)
	}
}
