package engine_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"golang.org/x/sys/unix"
)

// TestProcsFollowHandlers: GOMAXPROCS grows while handlers block, and is what it was once the
// engine is over.
func TestProcsFollowHandlers(t *testing.T) {
	// One more than the threads that are always needed: see spareProcs.
	had := runtime.GOMAXPROCS(0)
	spare, inline := max(0, 3-had), max(0, 2-had)
	blocks := func() {
		ts := unix.NsecToTimespec(100_000)
		_ = unix.Nanosleep(&ts, nil)
	}
	for _, c := range []struct {
		name string
		cfg  engine.Config
		work func()
		adds int // at some time, if not 0
		or   int // or now and then: a short handler that lost its CPU looks like one that blocks
	}{
		{"blocking", engine.Config{Workers: 3}, blocks, 4, 4},
		{"blocking, goroutines", engine.Config{Workers: 3, Kind: engine.GoroutineWorkers}, blocks, 4, 4},
		{"left alone", engine.Config{Workers: 3, KeepProcs: true}, blocks, 0, 0},
		{"short", engine.Config{Workers: 3}, func() {}, spare, 4},
		{"inline", engine.Config{Inline: true}, blocks, inline, inline},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.Queue = 64
			c.cfg.Handler = engine.HandlerFunc(func(r engine.Request) {
				c.work()
				_ = r.Return(1)
			})
			e, stop := start(t, c.cfg)
			target := startTarget(t, 16, endless)
			mustAdd(t, e, target)
			target.release()
			most := 0
			// As long as there is something to wait for, and for some windows of what is observed.
			for end := time.Now().Add(testDeadline); (most != c.adds && most != c.or || e.Counters().Answered < 3000) && time.Now().Before(end); time.Sleep(time.Millisecond) {
				most = max(most, int(e.Counters().Procs))
			}
			target.enough()
			target.results()
			if most != c.adds && most != c.or {
				t.Errorf("%d Ps were added, want %d or %d", most, c.adds, c.or)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			if now := runtime.GOMAXPROCS(0); now != had {
				t.Errorf("GOMAXPROCS is %d after the engine, was %d", now, had)
			}
		})
	}
}

// TestProcsOfSomebodyElse: what others set meanwhile is left alone.
func TestProcsOfSomebodyElse(t *testing.T) {
	had := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(had)
	e, stop := start(t, engine.Config{Workers: 3, Handler: engine.HandlerFunc(func(r engine.Request) {
		time.Sleep(100 * time.Microsecond)
		_ = r.Return(1)
	})})
	target := startTarget(t, 16, endless)
	mustAdd(t, e, target)
	target.release()
	await(t, func() bool { return e.Counters().Procs != 0 })
	runtime.GOMAXPROCS(had + 7)
	seen := e.Counters().Answered
	await(t, func() bool { return e.Counters().Answered > seen+1000 })
	target.enough()
	target.results()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if now := runtime.GOMAXPROCS(0); now != had+7 {
		t.Errorf("GOMAXPROCS is %d, somebody set it to %d", now, had+7)
	}
}
