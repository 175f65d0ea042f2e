package engine_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
)

// run has the load's targets call until it is stopped.
func (l load) run(t *testing.T, e *engine.Engine) (stop func()) {
	t.Helper()
	c := startTarget(t, l.targets, endless)
	if l.cpu >= 0 {
		c.pinned(t, l.cpu)
	}
	s := mustAdd(t, e, c)
	c.release()
	return func() {
		c.enough()
		c.results()
		<-s.Done()
	}
}

// A load is so many targets, kept to a CPU unless that is -1.
type load struct{ targets, cpu int }

// plans are those of an engine's receivers.
func plans(e *engine.Engine) (all []string) {
	for _, r := range e.Debug().Receivers {
		all = append(all, r.Plan)
	}
	return all
}

// Plans that do not come are not waited for for long; one that may not come shall come within it.
const patience, impatience = time.Minute, 150 * time.Millisecond

// planned waits until a plan of e holds the words, under a load, and says whether one did.
func planned(t *testing.T, e *engine.Engine, l load, words string, within time.Duration) bool {
	t.Helper()
	stop := l.run(t, e)
	defer stop()
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if slices.ContainsFunc(plans(e), func(p string) bool { return strings.Contains(p, words) }) {
			return true
		}
	}
	t.Logf("%v", e.Debug())
	return false
}

// home is the receive thread's own CPU.
func home(t *testing.T, e *engine.Engine) int {
	t.Helper()
	return e.Debug().Receivers[0].Home
}

// elsewhere is a CPU that is not the receive thread's own.
func elsewhere(t *testing.T, e *engine.Engine) int {
	t.Helper()
	for _, c := range severalCPUs(t) {
		if c != home(t, e) {
			return c
		}
	}
	t.Fatal("no other CPU")
	return -1
}

// comesTo waits until the receive thread may run on these CPUs only.
func comesTo(t *testing.T, e *engine.Engine, cpus ...int) {
	t.Helper()
	var at []int
	for end := time.Now().Add(testDeadline); time.Now().Before(end); time.Sleep(time.Millisecond) {
		at, _ = osthread.AllowedTo(e.Debug().Receivers[0].TID)
		if slices.Equal(at, cpus) {
			return
		}
	}
	t.Fatalf("the receive thread may run on CPUs %v, want %v: %v", at, cpus, e.Debug())
}

func returnsOne(r engine.Request) { _ = r.Return(1) }

// TestReceiveThreadGoesToItsTargets: where targets may not run on its CPU the receive thread
// goes to theirs, and a lone worker with it; not where they may come to it, or where it was told to
// be. It comes back when they are gone.
func TestReceiveThreadGoesToItsTargets(t *testing.T) {
	cpus := severalCPUs(t)
	for _, c := range []struct {
		name  string
		cfg   engine.Config
		apart bool
		goes  bool
	}{
		{"inline", engine.Config{Inline: true}, true, true},
		{"queue", engine.Config{Workers: 2}, true, true},
		{"together", engine.Config{Inline: true}, false, false},
		{"a CPU of its own", engine.Config{Inline: true, CPU: engine.OnCPU(cpus[0])}, true, false},
		{"workers anywhere", engine.Config{Workers: 2, Placement: engine.Anywhere}, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.Queue, c.cfg.Handler = 64, engine.HandlerFunc(returnsOne)
			e, stop := start(t, c.cfg)
			own := home(t, e)
			l := load{2, own}
			if c.apart {
				l.cpu = elsewhere(t, e)
			}
			within := patience
			if !c.goes {
				within = impatience
			}
			if goes := planned(t, e, l, "colocated", within); goes != c.goes {
				t.Errorf("it goes there: %t, want %t", goes, c.goes)
			}
			comesTo(t, e, own)
			checkBalance(t, e)
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestPlanFollowsTheLoad: which plan comes under which load; that each transition is right is for package placement.
func TestPlanFollowsTheLoad(t *testing.T) {
	severalCPUs(t)
	for _, c := range []struct {
		name string
		cfg  engine.Config
		l    load
		want string
		no   string
	}{
		{"few", engine.Config{Workers: 2}, load{2, -1}, "near", "pair"},
		{"many", engine.Config{Workers: 2}, load{32, -1}, "pair", ""},
		{"many, one worker", engine.Config{Workers: 1}, load{32, -1}, "near", "pair"},
		{"many, inline", engine.Config{Inline: true}, load{32, -1}, "apart trying", ""},
		{"many, inline, a mode of their own", engine.Config{Inline: true, WakeUp: engine.Sync}, load{32, -1}, "fixed", "trying"},
		{"few, inline", engine.Config{Inline: true}, load{2, -1}, "fixed", "trying"},
		{"goroutines", engine.Config{Workers: 2, Kind: engine.GoroutineWorkers}, load{32, -1}, "fixed", "near"},
		{"workers near", engine.Config{Workers: 2, Placement: engine.Near}, load{32, -1}, "fixed", "pair"},
		{"asynchronous", engine.Config{Workers: 2, WakeUp: engine.Async}, load{32, -1}, "near", "pair"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := notify.FeatureSyncWakeUp.Probe(); err != nil && c.cfg.WakeUp == engine.Sync {
				t.Skip(err)
			}
			if raceBuild && (c.want == "pair" || c.want == "apart trying") {
				t.Skip("calls never come quickly enough under the race detector")
			}
			c.cfg.Queue, c.cfg.Handler = 64, engine.HandlerFunc(returnsOne)
			e, stop := start(t, c.cfg)
			own := home(t, e)
			if !planned(t, e, c.l, c.want, patience) {
				if rate := float64(e.Counters().Received) / patience.Seconds(); (c.want == "pair" || c.want == "apart trying") && rate < 100_000 {
					t.Skipf("%.0f calls/s: not busy enough for %q", rate, c.want)
				}
				t.Errorf("never %q", c.want)
			}
			if c.no != "" && planned(t, e, c.l, c.no, impatience) {
				t.Errorf("%q came", c.no)
			}
			// Nobody calls any more: it is where it was.
			comesTo(t, e, own)
			checkBalance(t, e)
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDebugShows: what a thread has used, how it works and how listeners are woken, also once it is over.
func TestDebugShows(t *testing.T) {
	for _, mode := range []engine.WakeUp{engine.AutoWakeUp, engine.Async} {
		e, stop := start(t, engine.Config{Inline: true, Handler: engine.HandlerFunc(returnsOne), WakeUp: mode, CPU: engine.AnyCPU})
		c := startTarget(t, 1, 2000)
		mustAdd(t, e, c)
		c.release()
		c.results()
		for e.Debug().Receivers[0].State == "" {
			time.Sleep(time.Millisecond)
		}
		d := e.Debug()
		want := engine.Sync
		if mode == engine.Async || notify.FeatureSyncWakeUp.Probe() != nil {
			want = engine.Async
		}
		if r := d.Receivers[0]; d.WakeUp != want || r.CPUTime <= 0 || !strings.HasPrefix(r.Plan, r.State+" ") {
			t.Errorf("wake-up %v, want %v: %+v", d.WakeUp, want, r)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if after := e.Debug().Receivers[0].CPUTime; after < d.Receivers[0].CPUTime {
			t.Errorf("%v of CPU at the end, %v before", after, d.Receivers[0].CPUTime)
		}
	}
}

// TestAMaskFromOutsideStays: a receive thread that somebody else has put elsewhere is not moved any more.
func TestAMaskFromOutsideStays(t *testing.T) {
	cpus := severalCPUs(t)
	e, stop := start(t, engine.Config{Inline: true, Handler: engine.HandlerFunc(returnsOne)})
	defer stop()
	for e.Debug().Receivers[0].Plan == "" {
		time.Sleep(time.Millisecond)
	}
	if err := osthread.Allow(e.Debug().Receivers[0].TID, cpus...); err != nil {
		t.Fatal(err)
	}
	if !planned(t, e, load{2, elsewhere(t, e)}, "colocated", testDeadline) {
		t.Fatal("no plan to move it")
	}
	comesTo(t, e, cpus...)
}

// TestReleasedListenerServesOn: a listener that was another engine's loses no call on the way.
func TestReleasedListenerServesOn(t *testing.T) {
	for _, mode := range []engine.WakeUp{engine.AutoWakeUp, engine.Async} {
		first, stopFirst := start(t, engine.Config{Inline: true, Handler: engine.HandlerFunc(returnsOne), WakeUp: mode})
		second, stopSecond := start(t, engine.Config{Handler: engine.HandlerFunc(returnsOne), WakeUp: engine.Async})
		target := startTarget(t, 2, endless)
		s := mustAdd(t, first, target)
		target.release()
		await(t, func() bool { return first.Counters().Received >= 1000 })
		l, err := first.Release(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := second.Add(l); err != nil {
			t.Fatal(err)
		}
		await(t, func() bool { return second.Counters().Received >= 1000 })
		target.enough()
		r := target.results()
		for _, stop := range []func() error{stopFirst, stopSecond} {
			if err := stop(); err != nil {
				t.Error(err)
			}
		}
		if a, b := checkBalance(t, first), checkBalance(t, second); uint64(r.OK) != a.Answered+b.Answered || len(r.Errnos) != 0 {
			t.Errorf("target saw %+v, the engines answered %d and %d", r, a.Answered, b.Answered)
		}
	}
}
