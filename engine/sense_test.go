package engine

import (
	"testing"
	"time"

	"github.com/unknot/unknot/engine/internal/placement"
)

// TestSense: what a receive thread concludes from who calls, and how fast.
func TestSense(t *testing.T) {
	for _, c := range []struct {
		callers int
		gap     time.Duration
		want    placement.Concurrency
		busy    bool
	}{
		{1, 5 * time.Microsecond, placement.Low, true},
		{4, 5 * time.Microsecond, placement.Low, true},
		{8, 5 * time.Microsecond, placement.Low, true},
		{16, 5 * time.Microsecond, placement.Medium, true},
		{16, 40 * time.Microsecond, placement.Medium, false},
		{64, 15 * time.Microsecond, placement.Medium, true},
		{90, 5 * time.Microsecond, placement.Medium, true},
		{256, 5 * time.Microsecond, placement.High, true},
		{1024, 5 * time.Microsecond, placement.High, true},
	} {
		// Whatever it was before, it turns over after windows that agree, and not after one.
		for _, before := range []int{1, 32, 2048} {
			var s sense
			at := int64(0)
			run := func(callers, windows int, gap time.Duration) {
				for i := range windows * senseWindow {
					at += int64(gap)
					s.count(uint32(1000+i%callers), at)
				}
			}
			run(before, 10, time.Microsecond)
			was := s.bands
			run(c.callers, agreeing-1, c.gap)
			if s.bands != was {
				t.Errorf("%+v after %d: turned over after %d windows", c, before, agreeing-1)
			}
			run(c.callers, 2*agreeing, c.gap)
			var o observed
			o.bands.Store(s.bands)
			if got := o.observation(); got.Concurrency != c.want || got.Busy != c.busy {
				t.Errorf("%+v after %d callers: %+v", c, before, got)
			}
		}
	}
}

func TestDurationNeedsWindowsThatAgree(t *testing.T) {
	var d duration
	for i, c := range []struct {
		typical time.Duration
		want    placement.Length
	}{
		{0, placement.UnknownLength},
		{time.Microsecond, placement.Short},
		{50 * time.Microsecond, placement.Short}, // it may have lost its CPU
		{50 * time.Microsecond, placement.Short},
		{15 * time.Microsecond, placement.Middling},
		{50 * time.Microsecond, placement.Middling},
		{50 * time.Microsecond, placement.Middling},
		{50 * time.Microsecond, placement.Middling},
		{50 * time.Microsecond, placement.Long},
		{time.Microsecond, placement.Short},
		{time.Millisecond, placement.Long}, // surely
	} {
		if got := d.look(c.typical); got != c.want {
			t.Errorf("window %d, %v: %v, want %v", i, c.typical, got, c.want)
		}
	}
}

// TestOrders: what workers are told comes through its word, and those beyond the active ones wait.
func TestOrders(t *testing.T) {
	for _, o := range []order{{placement.All, placement.Anywhere}, {1, 0}, {1, 3}, {2, placement.Anywhere}, {4096, 1023}} {
		if got := orderOf(o.word() + 7*orderVersion); got != o {
			t.Errorf("%+v became %+v", o, got)
		}
	}
	rx := &receiver{e: &Engine{cfg: Config{Kind: GoroutineWorkers}}, tallies: make([]tally, 4)}
	c := &rx.crew
	var ws []*worker
	for i := range 4 {
		ws = append(ws, rx.newWorker(i))
	}
	c.init(ws)
	if !c.parallel() || c.lone() {
		t.Error("they do not begin in parallel")
	}
	c.set(order{1, placement.Anywhere})
	if c.parallel() || !c.lone() {
		t.Error("one alone is not alone")
	}
	followed := make(chan int, 3)
	for i := 1; i <= 3; i++ {
		go func() { ws[i].follow(); followed <- i }()
	}
	next := func(want int) {
		t.Helper()
		select {
		case i := <-followed:
			if i != want {
				t.Fatalf("worker %d is active, want %d", i, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("worker %d waits", want)
		}
	}
	next(1)
	c.set(order{2, placement.Anywhere})
	next(2)
	select {
	case i := <-followed:
		t.Fatalf("worker %d is active", i)
	case <-time.After(10 * time.Millisecond):
	}
	c.set(order{1, placement.Anywhere})
	c.finish()
	next(3)
	c.set(order{1, placement.Anywhere})
	if c.lone() {
		t.Error("somebody shall wait after the end")
	}
}

func TestSeats(t *testing.T) {
	taken := map[int]int{}
	list := "Num RefCount Protocol Flags Type St Inode Path\n" +
		"0: 2 0 0 2 1 1 @unknot/receive/3/1/1\n1: 2 0 0 2 1 1 @unknot/receive/3/2/1\n2: 2 0 0 2 1 1 @unknot/receive/0/2/9\n" +
		"3: 2 0 0 2 1 1 @unknot/receive/x/2/9\n4: 2 0 0 2 1 1 @unknot/receive/1\n5: 2 0 0 1 1 1 /run/other\n"
	if n := countSeats([]byte(list), taken); n != 3 || taken[3] != 2 || taken[0] != 1 || len(taken) != 2 {
		t.Errorf("%d, %v", n, taken)
	}
	cpus := []int{0, 1, 2, 3}
	// Of one engine no two are on a CPU, and what is configured holds.
	on := map[int]bool{}
	var mine []int
	for range cpus {
		s := takeSeat(&Config{}, cpus, mine)
		defer s.leave()
		on[s.cpu] = true
		mine = append(mine, s.cpu)
	}
	if len(on) != len(cpus) {
		t.Errorf("on %v", mine)
	}
	for _, c := range []struct {
		cpu  CPU
		cpus []int
		want int
	}{{OnCPU(2), cpus, 2}, {AnyCPU, cpus, placement.Anywhere}, {AutoCPU, []int{5}, placement.Anywhere}} {
		if s := takeSeat(&Config{CPU: c.cpu}, c.cpus, nil); s.cpu != c.want || s.fd != noFD {
			t.Errorf("%+v: %+v", c, s)
		}
	}
}
