package engine_test

import (
	"slices"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/osthread"
)

// severalCPUs are those that this process may use; with one there is nothing to be tested.
func severalCPUs(t *testing.T) []int {
	t.Helper()
	cpus := osthread.Allowed()
	if len(cpus) < 2 {
		t.Skip("with one CPU everybody is on it")
	}
	return cpus
}

// pinned binds all threads of the child, and those that they will start, to one CPU.
func (c *child) pinned(t *testing.T, cpu int) {
	t.Helper()
	for _, tid := range tasks(t, c.cmd.Process.Pid) {
		if err := osthread.Allow(tid, cpu); err != nil {
			t.Fatal(err)
		}
	}
}

// load has that many targets make so many calls together, once before has seen their
// process, and returns the calls/s.
func load(t *testing.T, e *engine.Engine, targets, calls int, before func(*child)) float64 {
	t.Helper()
	target := startTarget(t, targets, calls/targets)
	mustAdd(t, e, target)
	before(target)
	from := time.Now()
	target.release()
	<-target.out
	return float64(calls) / time.Since(from).Seconds()
}

// receiverComesTo waits until the receive thread may run on that CPU only.
func receiverComesTo(t *testing.T, cpu int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		at := []int{}
		for _, tid := range threads(t, "unknot-receive") {
			if mine, err := osthread.AllowedTo(tid); err == nil {
				at = append(at, mine...)
			}
		}
		if slices.Equal(at, []int{cpu}) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the receive thread may run on CPUs %v, not on %d only", at, cpu)
		}
	}
}

// A response is something that an engine shall do under a load, or shall not.
type response struct {
	counter func(engine.Counters) uint64 // how often it has done it
	want    bool
	loads   int     // at most so many, in turn, where it is wanted
	calls   int     // of each load
	enough  float64 // calls/s of all loads together from which on it has to
}

// check puts e under loads of so many targets until it responds. Each load begins once before has
// seen its process.
func (r response) check(t *testing.T, e *engine.Engine, targets int, before func(*child)) {
	t.Helper()
	loads, made, took := 3, 0.0, 0.0 // calls, s
	if r.want {
		loads = r.loads
	}
	for i := 0; i < loads && r.counter(e.Counters()) == 0; i++ {
		made += float64(r.calls)
		took += float64(r.calls) / load(t, e, targets, r.calls, before)
	}
	did := r.counter(e.Counters())
	rate := made / took
	t.Logf("%.0f calls/s", rate)
	switch {
	case !r.want && did != 0:
		t.Errorf("it responded %d times", did)
	case r.want && did == 0 && rate < r.enough:
		t.Skipf("%.0f calls/s: too few for a response", rate)
	case r.want && did == 0:
		t.Errorf("no response at %.0f calls/s", rate)
	}
}
