package storm

import (
	"testing"
	"time"
)

// FuzzArrivals: what is read makes schedules that storms take, or none, in a time and with memory in proportion.
func FuzzArrivals(f *testing.F) {
	for _, s := range []string{"constant", "poisson", "onoff:10ms:40ms", "onoff:1ns:100000h", "onoff:1ns:1ns", "onoff:2562047h:2562047h", "onoff:-1s:1s", "onoff::", "bursts"} {
		for _, rate := range []float64{0, 1e-300, 100, 1e6, 1e300} {
			f.Add(s, rate, int64(time.Second), uint64(7))
		}
	}
	f.Fuzz(func(t *testing.T, s string, rate float64, d int64, seed uint64) {
		p, err := ParseProcess(s, rate)
		if err != nil {
			return
		}
		// A fuzzer's time goes by for long schedules, which only are longer.
		took := time.Duration(d) % (10 * time.Second)
		if p.Rate > 1e5 && p.Rate*took.Seconds() < MaxArrivals {
			t.Skip("long")
		}
		as, err := p.Schedule(took, seed)
		if err != nil {
			return
		}
		if err := checkSchedule(as); err != nil {
			t.Fatalf("%v: %v", p, err)
		}
		if len(as) > 0 && as[len(as)-1].At >= took {
			t.Fatalf("%v: a call at %v of %v", p, as[len(as)-1].At, took)
		}
		if again, err := p.Schedule(took, seed); err != nil || len(again) != len(as) {
			t.Fatalf("%v: %d calls, then %d, %v", p, len(as), len(again), err)
		}
	})
}

// FuzzProfile: of what targets do, what is read is written and read as the same.
func FuzzProfile(f *testing.F) {
	for _, s := range []string{"openat:3,getppid:1", "getppid", "statx,connect:1000", "openat:0", "openat,openat", "any", "50us~1", "sleep:50us", "kill", "signal-killable"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if m, err := ParseMix(s); err == nil {
			if again, err := ParseMix(m.String()); err != nil || again != m {
				t.Errorf("calls %q are %v, which are %v, %v", s, m, again, err)
			}
			if n := len(m.deck(2 * maxWeight)); n != 2*maxWeight {
				t.Errorf("calls %q: a deck of %d", s, n)
			}
			if _, err := filter((&Config{Mix: m}).traps()); err != nil {
				t.Errorf("calls %q: %v", s, err)
			}
		}
		if k, err := ParseThink(s); err == nil {
			if again, err := ParseThink(k.String()); err != nil || again != k {
				t.Errorf("think %q is %v, which is %v, %v", s, k, again, err)
			}
		}
		if h, err := ParseHostile(s); err == nil && h.String() != s {
			t.Errorf("hostile %q is %v", s, h)
		}
	})
}
