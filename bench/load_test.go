package bench

import (
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/internal/dist"
)

// TestLoadsLoseNothing: whatever the targets do, every engine answers each call
// once, and both sides and Little's law agree on it.
func TestLoadsLoseNothing(t *testing.T) {
	mix, err := storm.ParseMix("openat:2,statx,connect,mkdirat,gettid,getppid")
	if err != nil {
		t.Fatal(err)
	}
	poisson := storm.Process{Kind: storm.Poisson, Rate: 2000}
	for name, load := range map[string]Load{
		"think":  {Think: storm.Think{Dist: dist.Dist{Mean: 100 * time.Microsecond, CV: 1}}},
		"open":   {Arrivals: poisson},
		"bursts": {Arrivals: storm.Process{Kind: storm.OnOff, Rate: 5000, On: 5 * time.Millisecond, Off: 5 * time.Millisecond}, Mix: mix},
		"mix":    {Mix: mix},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, engine, path string) {
				if engine != "unknot" && name != "open" && name != "mix" {
					t.Skip("what is new to the other engines is in open and mix")
				}
				s := spec(engine, path, 16)
				s.Load = load
				r, err := Once(t.Context(), s, 100*time.Millisecond, false)
				if err != nil {
					t.Fatal(err)
				}
				checkWhole(t, r)
				if r.Whole.Targets.OK == 0 || (r.Open != nil) != (load.Loop() == LoopOpen) || r.Corrected.Count != r.RoundTrip.Count {
					t.Errorf("%+v", r)
				}
				if r.Open != nil && r.Open.Intended == 0 {
					t.Error("no call was intended")
				}
			})
		})
	}
}

// TestTheCorrectedLatencyShowsAStall: one handler of the inline path is held up for
// a third of an open loop. Four targets are caught in it; a hundred calls could not
// be made when they should have been.
func TestTheCorrectedLatencyShowsAStall(t *testing.T) {
	s := spec("unknot", PathInline, 4)
	s.Load.Arrivals = storm.Process{Kind: storm.Constant, Rate: 1000}
	s.Stall = 500 * time.Millisecond
	var r *Result
	var corrected, uncorrected float64
	// Where the machine stalls, so does more than one call of each target; then another storm has its say.
	for end := time.Now().Add(testDeadline); ; {
		var err error
		if r, err = Once(t.Context(), s, 1500*time.Millisecond, false); err != nil {
			t.Fatal(err)
		}
		checkWhole(t, r)
		corrected, uncorrected = r.Corrected.Quantile(.99), r.RoundTrip.Quantile(.99)
		if uncorrected <= float64(s.Stall)/2 && r.Open.Excused >= 300 || time.Now().After(end) {
			break
		}
	}
	t.Logf("p99 %s corrected, %s uncorrected; %d of %d calls late, %d of them excused", Duration(corrected), Duration(uncorrected), r.Open.Late, r.Open.Intended, r.Open.Excused)
	if corrected < float64(s.Stall)*9/10 {
		t.Errorf("corrected p99 %s hides a stall of %v", Duration(corrected), s.Stall)
	}
	if uncorrected > float64(s.Stall)/2 || r.RoundTrip.Quantile(1) < float64(s.Stall)*9/10 {
		t.Errorf("uncorrected p99 %s, the longest %s", Duration(uncorrected), Duration(r.RoundTrip.Quantile(1)))
	}
	if r.Open.Excused < 300 {
		t.Errorf("%+v", r.Open)
	}
	if !strings.Contains(s.Name(), "/loop=open/arrivals=constant:1000/stall=500ms-") {
		t.Errorf("name %s", s.Name())
	}
}

// TestTooFewTargetsVoidAnOpenLoop: no figure of such a run is written.
func TestTooFewTargetsVoidAnOpenLoop(t *testing.T) {
	s := spec("bare", PathInline, 1)
	s.Work = Work{Time: 2 * time.Millisecond, Sleep: true}
	s.Load.Arrivals = storm.Process{Kind: storm.Constant, Rate: 2000}
	r, err := Once(t.Context(), s, 100*time.Millisecond, false)
	if err != nil {
		t.Fatal(err)
	}
	checkWhole(t, r)
	if r.Void() == nil || r.Open.Late < 100 {
		t.Errorf("%v, %+v", r.Void(), r.Open)
	}
	for _, v := range r.values() {
		if v.Unit != "void" && v.Unit != "late/op" {
			t.Errorf("%s of a void result is %v", v.Unit, v.Value)
		}
	}
}

func TestLittleFindsWhatIsLost(t *testing.T) {
	for _, c := range []struct {
		l  little
		ok bool
	}{
		{little{16, 160000, 100e3}, true},
		{little{16, 160000, 101e3}, true},
		{little{16, 150000, 100e3}, false},
		{little{16, 170000, 100e3}, false},
		{little{0, 0, 0}, true},
	} {
		if err := c.l.Check(); (err == nil) != c.ok {
			t.Errorf("%v: %v", c.l, err)
		}
	}
}
