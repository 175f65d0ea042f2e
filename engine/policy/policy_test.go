package policy

import (
	"math/rand/v2"
	"testing"
	"time"
)

func machine(t *testing.T, c Config) *Machine {
	t.Helper()
	if err := c.Fill(); err != nil {
		t.Fatal(err)
	}
	return New(c)
}

func TestArrive(t *testing.T) {
	for _, c := range []struct {
		name  string
		cfg   Config
		depth int
		admit bool
		evict int
	}{
		{"room", Config{Capacity: 16}, 15, true, 0},
		{"full, adaptive batch at first", Config{Capacity: 16}, 16, true, 2},
		{"full, batch", Config{Capacity: 16, Batch: 5}, 16, true, 5},
		{"full, low watermark", Config{Capacity: 16, Batch: 2, Low: 10}, 16, true, 6},
		{"a ring of one", Config{Capacity: 1}, 1, true, 1},
		{"full, newest gives way", Config{Kind: DropNewest, Capacity: 16}, 16, false, 0},
		{"room, newest gives way", Config{Kind: DropNewest, Capacity: 16}, 3, true, 0},
	} {
		m := machine(t, c.cfg)
		if admit, evict := m.Arrive(c.depth); admit != c.admit || evict != c.evict {
			t.Errorf("%s: admit %v, evict %d; want %v, %d", c.name, admit, evict, c.admit, c.evict)
		}
	}
}

func TestBatchFollowsTheStorm(t *testing.T) {
	m := machine(t, Config{Capacity: 64})
	most := 0
	for range 10 {
		_, k := m.Arrive(64)
		most = max(most, k)
	}
	if most != 8 {
		t.Errorf("overflows in a row evict at most %d, want an eighth of the capacity", most)
	}
	for range 10 { // calm: many calls between two overflows
		for range 100 {
			m.Arrive(3)
		}
		_, most = m.Arrive(64)
	}
	if most != 1 {
		t.Errorf("a lone overflow evicts %d, want 1", most)
	}
}

func TestRestsHaveHysteresis(t *testing.T) {
	m := machine(t, Config{Kind: Block, Capacity: 16})
	if m.Rests(15) || !m.Rests(16) {
		t.Error("block must receive below the capacity and not at it")
	}
	if m.Resumes(9) || !m.Resumes(8) {
		t.Error("block must resume at half the capacity and not above")
	}
	if _, ok := m.RestsUntil(0); ok {
		t.Error("block must rest for as long as it takes")
	}
	m = machine(t, Config{Capacity: 16})
	if m.Rests(16) {
		t.Error("drop-oldest must not rest without an overload")
	}
	m.Hold(0, 1)
	if m.Rests(12) || !m.Rests(13) || m.Resumes(9) || !m.Resumes(8) {
		t.Error("in overload drop-oldest must rest above three quarters and resume at half")
	}
	if at, ok := m.RestsUntil(5); !ok || at != 5+int64(MaxRest) {
		t.Errorf("drop-oldest rests until %d, %v", at, ok)
	}
}

const ms = int64(time.Millisecond)

func TestPacedDropsAreToldTogether(t *testing.T) {
	m := machine(t, Config{Capacity: 16, Pace: 5 * time.Millisecond, MaxHeld: 4})
	m.Hold(10*ms, 2)
	m.Hold(12*ms, 1)
	if at, ok := m.Deadline(); !ok || at != 15*ms {
		t.Errorf("deadline %d, %v; want 5ms after the first", at, ok)
	}
	if n := m.Release(15*ms-1, 16, 1000, true); n != 0 {
		t.Errorf("%d told before their time", n)
	}
	if n := m.Release(15*ms, 16, 1000, true); n != 3 {
		t.Errorf("%d told at the deadline, want all 3", n)
	}
	m.Answered(3)
	m.Hold(20*ms, 4)
	if n := m.Release(20*ms, 16, 1000, true); n != 4 {
		t.Errorf("%d told when as many are held as may be, want 4", n)
	}
	if _, ok := m.Deadline(); !ok {
		t.Error("no deadline while calls are held")
	}
}

func TestAdaptivePace(t *testing.T) {
	m := machine(t, Config{Capacity: 16})
	m.Hold(0, 100)
	if n := m.Release(1, 16, 0, true); n != 0 {
		t.Errorf("%d told with nothing served", n)
	}
	if n := m.Release(2, 16, 35, true); n != 3 {
		t.Errorf("35 served earned %d answers, want 3", n)
	}
	m.Answered(3)
	if n := m.Release(3, 16, 40, true); n != 1 {
		t.Errorf("the 5 left and 5 more earned %d answers, want 1", n)
	}
	m.Answered(1)
	if n := m.Release(4, 2, 40, false); n != 0 {
		t.Errorf("with 2 of 16 queued and more to receive %d are told, want none", n)
	}
	if n := m.Release(4, 2, 40, true); n != 14 {
		t.Errorf("with 2 of 16 queued %d are told, want 14: the queue runs dry", n)
	}
	m.Answered(14)
	if n := m.Release(int64(MaxHold), 16, 40, true); n != 82 {
		t.Errorf("%d told after the longest hold, want all 82", n)
	}
	m.Answered(82)
	if n := m.Release(int64(MaxHold)+1, 16, 1000, true); n != 0 {
		t.Errorf("%d told of none", n)
	}
	m.Hold(int64(MaxHold)+2, 1)
	if n := m.Release(int64(MaxHold)+3, 16, 1005, true); n != 0 {
		t.Error("what was served before the overload paid for it")
	}
}

func TestImmediateDropsAreNotHeld(t *testing.T) {
	m := machine(t, Config{Capacity: 16, Pace: Immediately})
	m.Hold(5, 3)
	if n := m.Release(5, 16, 0, true); n != 3 {
		t.Errorf("%d told at once, want 3", n)
	}
}

// A queue with workers of a fixed service time, callers in a closed loop, and the
// machine: no call is ever held beyond the longest hold, nor more than may be,
// and each is told once.
func TestBoundsHoldInAnyStorm(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		cfg := Config{Kind: Kind(r.IntN(2)), Capacity: 1 + r.IntN(32), MaxHeld: 1 + r.IntN(64)}
		if r.IntN(2) == 0 {
			cfg.Pace = time.Duration(1 + r.IntN(int(10*ms)))
		}
		if cfg.Capacity > 1 && r.IntN(3) == 0 {
			cfg.Low = 1 + r.IntN(cfg.Capacity-1)
		}
		m := machine(t, cfg)
		var now int64
		var held []int64 // oldest first
		depth, served, dropped, told := 0, uint64(0), 0, 0
		tell := func(n int) {
			if n > len(held) {
				t.Fatalf("seed %d: tells %d of %d", seed, n, len(held))
			}
			held = held[n:]
			m.Answered(n)
			told += n
		}
		for range 3000 {
			now += int64(r.IntN(int(ms)))
			if at, ok := m.Deadline(); ok && at < now {
				tell(m.Release(at, depth, served, r.IntN(2) == 0))
				if next, ok := m.Deadline(); ok && next <= at {
					t.Fatalf("seed %d: at its deadline the machine does nothing", seed)
				}
			}
			switch r.IntN(3) {
			case 0:
				if depth > 0 {
					depth--
					served++
				}
			default:
				admit, evict := m.Arrive(depth)
				if !admit {
					evict = 1
				} else {
					depth -= evict
					depth++
				}
				for range evict {
					tell(m.Room(1))
					m.Hold(now, 1)
					held = append(held, now)
					dropped++
				}
			}
			tell(m.Release(now, depth, served, r.IntN(2) == 0))
			if m.Held() != len(held) || depth > cfg.Capacity || depth < 0 {
				t.Fatalf("seed %d: holds %d, the test %d; depth %d of %d", seed, m.Held(), len(held), depth, cfg.Capacity)
			}
		}
		if told+len(held) != dropped {
			t.Fatalf("seed %d: %d dropped, %d told, %d held", seed, dropped, told, len(held))
		}
	}
}

func TestBadConfigs(t *testing.T) {
	for _, c := range []Config{
		{}, {Capacity: -1}, {Capacity: 4, Batch: 5}, {Capacity: 4, Batch: -1}, {Capacity: 4, Low: 4}, {Capacity: 4, Low: -1},
		{Capacity: 4, MaxHeld: -1}, {Capacity: 4, MaxAge: -1}, {Capacity: 4, Kind: 3},
	} {
		if c.Fill() == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
	for _, k := range Kinds {
		if got, err := ParseKind(k); err != nil || got.String() != k {
			t.Errorf("ParseKind(%q) = %v, %v", k, got, err)
		}
	}
	if _, err := ParseKind("drop-all"); err == nil {
		t.Error("an unknown policy was accepted")
	}
}
