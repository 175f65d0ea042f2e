package engine_test

import (
	"context"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/internal/testchild"
	"github.com/unknot/unknot/internal/testlisteners"
	"golang.org/x/sys/unix"
)

// howMany is n, or what the environment says for a longer test by hand.
func howMany(t *testing.T, n int) int {
	s := os.Getenv("UNKNOT_TEST_LISTENERS")
	if s == "" && testing.Short() {
		return n / 5
	}
	if s == "" {
		return n
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("UNKNOT_TEST_LISTENERS: %v", err)
	}
	return n
}

// What this process has of what a listener could cost it.
type costs struct{ descriptors, threads, goroutines, heap, rss int }

func costsNow(t *testing.T) (c costs) {
	t.Helper()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	c.goroutines, c.heap = runtime.NumGoroutine(), int(m.HeapAlloc)
	c.descriptors, c.threads = testchild.OpenFDs(t), len(tasks(t, unix.Getpid()))
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	c.rss = pages * os.Getpagesize()
	return c
}

// started returns a running engine whose calls all continue.
func started(t *testing.T, c engine.Config) *engine.Engine {
	t.Helper()
	c.Handler = engine.HandlerFunc(func(r engine.Request) { _ = r.Continue() })
	e, err := engine.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return e
}

// TestListenersLeaveNothing leaves nothing: 600 of them, or UNKNOT_TEST_LISTENERS.
func TestListenersLeaveNothing(t *testing.T) {
	const calls = 3
	n := howMany(t, 600)
	for _, inline := range []bool{true, false} {
		name := "queue"
		if inline {
			name = "inline"
		}
		t.Run(name, func(t *testing.T) {
			e := started(t, engine.Config{Inline: inline, Workers: 2, Receivers: 2})
			child, err := testlisteners.Start(testlisteners.Plan{N: n, AtOnce: 16, Calls: calls}, 10*time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			sources := make(chan *engine.Source, n)
			removed := func(n int) {
				for range n {
					select {
					case <-(<-sources).Done():
					case <-time.After(testDeadline):
						t.Fatalf("a source is left; %+v", e.Counters())
					}
				}
			}
			var before costs
			i := 0
			for l, err := range child.Listeners() {
				if err != nil {
					t.Fatal(err)
				}
				if i == n/2 { // what is made once has been made
					removed(i - 16)
					before = costsNow(t)
				}
				src, err := e.Add(l)
				if err != nil {
					t.Fatal(err)
				}
				sources <- src
				i++
			}
			removed(len(sources))
			after := costsNow(t)
			// Before, up to 16 listeners were there. What ends may end a little later.
			left := func() bool {
				return after.descriptors > before.descriptors || after.threads > before.threads+2 || after.goroutines > before.goroutines ||
					after.heap-before.heap > n/2*256
			}
			for end := time.Now().Add(testDeadline); left() && time.Now().Before(end); time.Sleep(time.Millisecond) {
				after = costsNow(t)
			}
			if err := child.Close(); err != nil {
				t.Errorf("the child: %v", err)
			}
			if c := e.Counters(); c.Received != uint64(n*calls) || c.Answered != c.Received {
				t.Errorf("%d listeners with %d calls each: %+v", n, calls, c)
			}
			t.Logf("with %d and after %d listeners: %+v, %+v", n/2, n, before, after)
			if left() {
				t.Errorf("after %d listeners there is %+v, after %d there was %+v", n, after, n/2, before)
			}
		})
	}
}

// TestListenersCostLittle: no thread, no goroutine, and at most 64 KiB each with the
// default queue. 300 of them, or UNKNOT_TEST_LISTENERS.
func TestListenersCostLittle(t *testing.T) {
	n := howMany(t, 300)
	e := started(t, engine.Config{Workers: 2})
	plan := testlisteners.Plan{N: n, Calls: 1, Stay: true}
	child, err := testlisteners.Start(plan, 10*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	var before costs
	const first = 8 // with which all receivers have begun
	i := 0
	for l, err := range child.Listeners() {
		if err != nil {
			t.Fatal(err)
		}
		if i == first {
			before = costsNow(t)
		}
		if _, err := e.Add(l); err != nil {
			t.Fatal(err)
		}
		i++
	}
	after := costsNow(t)
	t.Logf("with %d and %d listeners: %+v, %+v", first, n, before, after)
	more := n - first
	if after.descriptors > before.descriptors+more || after.threads > before.threads+2 || after.goroutines > before.goroutines {
		t.Errorf("with %d listeners there is %+v, with %d there was %+v", n, after, first, before)
	}
	if each := (after.heap - before.heap) / more; each > 64<<10 {
		t.Errorf("a listener takes %d bytes of the heap", each)
	}
	if err := child.Close(); err != nil {
		t.Errorf("the child: %v", err)
	}
}
