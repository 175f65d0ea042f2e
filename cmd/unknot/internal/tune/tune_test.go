package tune

import (
	"encoding/xml"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/cmd/unknot/internal/tune/sim"
	"github.com/unknot/unknot/engine/policy"
	"github.com/unknot/unknot/internal/dist"
)

const us = time.Microsecond

func TestMain(m *testing.M) {
	storm.Main()
	os.Exit(m.Run())
}

// truth is a machine that is known, since it is simulated.
func truth(l Load, set Setting, seed uint64) *Sample {
	m := Model{Recv: 12000, Send: 25000, Drop: 8000, Nudge: 3000, Target: 18000, Idle: 8000, Grain: time.Millisecond, Slice: 3 * time.Millisecond, ReceiverFirst: true}
	o, err := sim.Simulate(l, set, m, Run{Seed: seed, WarmUp: 50 * time.Millisecond, Length: 500 * time.Millisecond})
	if err != nil {
		panic(err)
	}
	mean, cv := l.Service.Moments()
	return &Sample{Load: l, Setting: set, Outcome: *o, SupervisorCPU: mean + m.Recv + m.Send, TargetCPU: m.Target, ServiceMean: mean, ServiceCV: cv}
}

func TestFitPredictsWhatItHasNotSeen(t *testing.T) {
	l := Load{Targets: 32, Service: Service{Dist: dist.Dist{Mean: 100 * us, CV: .5}}}
	set := func(k int) Setting { return Setting{Config: policy.Config{Capacity: k}, Workers: 2, CPUs: 2} }
	var samples []Sample
	for i, k := range []int{4, 10, 32} {
		samples = append(samples, *truth(l, set(k), uint64(i)))
	}
	fit, err := FitModel(samples)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []int{6, 8, 16, 20} {
		got, err := fit.Predict(l, set(k), 99)
		if err != nil {
			t.Fatal(err)
		}
		want := truth(l, set(k), 77)
		t.Logf("capacity %d: p99 %.0f, truth %.0f; drops %.3f, truth %.3f", k, got.P99, want.P99(), got.Drop, want.DropRate())
		if math.Abs(got.P99/want.P99()-1) > .25 || math.Abs(got.Drop-want.DropRate()) > .02 {
			t.Errorf("capacity %d: predicted p99 %.0f and drops %.3f, truth %.0f and %.3f", k, got.P99, got.Drop, want.P99(), want.DropRate())
		}
	}
}

func TestServiceSlope(t *testing.T) {
	var s []Sample
	for n := range 6 {
		s = append(s, Sample{Outcome: Outcome{InFlight: float64(10 * n)}, SupervisorCPU: 5000 + 14*float64(10*n) + float64(n%2)})
	}
	if l := serviceLine(s); math.Abs(l.Slope-14) > .5 || math.Abs(l.Intercept-5000) > 20 {
		t.Errorf("S(n) = %+v, want 5000 + 14n", l)
	}
	for i := range s {
		s[i].SupervisorCPU = 5000 + 3000*float64(i%2)
	}
	if l := serviceLine(s); l.Slope != 0 {
		t.Errorf("noise has a slope: %+v", l)
	}
}

// fitOnce fits for all tests: their samples are the same.
func fitOnce(samples []Sample) (*Fit, error) {
	once.Do(func() { known, knownErr = FitModel(samples) })
	return known, knownErr
}

var (
	once     sync.Once
	known    *Fit
	knownErr error
)

// answered is a Result as Tune makes it, of the known machine.
func answered(t *testing.T, target time.Duration, maxDrop float64) (*Result, error) {
	t.Helper()
	r := Request{Load: Load{Targets: 32, Service: Service{Dist: dist.Dist{Mean: 100 * us}}}, Workers: 2, WaitP99: target, MaxDrop: maxDrop, Rounds: 3, Seed: 5, Duration: time.Second}
	res := &Result{Request: r, CPUs: 2}
	measure := func(l Load, k int, _ string) (*Sample, error) {
		set := r.setting(k)
		set.CPUs = 2
		return truth(l, set, uint64(k)), nil
	}
	var at []Sample
	for _, p := range [][2]int{{2, 32}, {2, 32}, {16, 32}, {32, 4}, {32, 10}, {32, 32}} {
		l := r.Load
		l.Targets = p[0]
		s, _ := measure(l, p[1], "")
		res.Samples = append(res.Samples, s)
		if p[0] > 2 {
			at = append(at, *s)
		}
	}
	var err error
	if res.Fit, err = fitOnce(at); err != nil {
		t.Fatal(err)
	}
	res.describe()
	if err := res.decide(measure); err != nil {
		return nil, err
	}
	if err := res.verify(measure); err != nil {
		t.Fatal(err)
	}
	if err := res.curves(r.Load); err != nil {
		t.Fatal(err)
	}
	return res, nil
}

func TestChoiceMeetsTheTarget(t *testing.T) {
	res, err := answered(t, 2*time.Millisecond, 1)
	if err != nil {
		t.Fatal(err)
	}
	if c := res.Chosen; c.P99 > 2e6 || c.Capacity < 4 || !c.Meets {
		t.Errorf("chose %+v; the deadline bound is %d", c, res.Deadline)
	}
	var text strings.Builder
	if err := res.Text(&text); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", &text)
	for _, want := range []string{"service ", "knee at ", "recommend ", "AGREES", "\n   target ", "--wait-target 2ms, without a capacity: wait p99 "} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	targets := 0
	for _, c := range res.Checks {
		if c.Target {
			targets++
			if !c.Agrees || !c.Measured.Meets {
				t.Errorf("the target alone: %+v", c)
			}
		}
	}
	if targets != 2 {
		t.Errorf("%d checks of the target alone, want one for each process", targets)
	}
	page, err := res.html()
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(page, "<svg"); n != 3 {
		t.Errorf("%d charts", n)
	}
	for _, svg := range regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(page, -1) {
		for d := xml.NewDecoder(strings.NewReader(svg)); ; {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("a chart is no XML: %v", err)
			}
		}
	}
	if m := regexp.MustCompile(`NaN|Inf|(?:src|href)=`).FindString(page); m != "" {
		t.Errorf("the page has %q", m)
	}
}

func isRefusal(err error) bool {
	var r *Refusal
	return errors.As(err, &r)
}

func TestImpossibleTargetSaysWhatWouldWork(t *testing.T) {
	_, err := answered(t, time.Microsecond, 1)
	if !isRefusal(err) || !regexp.MustCompile(`no capacity meets.*works`).MatchString(err.Error()) {
		t.Errorf("refused by %v", err)
	}
	if !strings.Contains(err.Error(), "no depth that keeps 2 workers busy can meet this: service is 100µs") {
		t.Errorf("refused by %v", err)
	}
	_, err = answered(t, 500*us, 0)
	if !isRefusal(err) || !strings.Contains(err.Error(), "at most 0% dropped") {
		t.Errorf("refused by %v", err)
	}
}

func TestGeneratedGoCompiles(t *testing.T) {
	res := &Result{Request: Request{Workers: 3, WaitP99: time.Millisecond}, Chosen: Candidate{Capacity: 24}}
	if _, err := parser.ParseFile(token.NewFileSet(), "config.go", res.Go(), parser.AllErrors); err != nil {
		t.Fatal(err)
	}
	// Inside the module, so that its packages are found; the name keeps it out of ./... .
	dir, err := os.MkdirTemp(".", "_compiled")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "config.go")
	if err := os.WriteFile(file, []byte(res.Go()+"\nfunc main() { _ = engineConfig(nil) }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "vet", "./"+file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestNoisyMachineIsRefused(t *testing.T) {
	a := truth(Load{Targets: 8, Service: Service{Dist: dist.Dist{Mean: 100 * us, CV: 1}, Sleeps: true}}, Setting{Config: policy.Config{Capacity: 8}, Workers: 2, CPUs: 2}, 1)
	b := *a
	b.Served /= 2
	if err := sameTwice([]*Sample{a, &b}); !isRefusal(err) || !strings.Contains(err.Error(), "not stationary") {
		t.Errorf("refused by %v", err)
	}
	if err := sameTwice([]*Sample{a, a}); err != nil {
		t.Error(err)
	}
}

// TestCorrectionByRegime: what is measured where every target has a place corrects that only.
func TestCorrectionByRegime(t *testing.T) {
	at := func(k int, goodput float64) knot { return knot{x: math.Log(float64(k)), goodput: goodput} }
	f := Fit{roomy: 32, knots: []knot{at(4, .1), at(8, .2), at(32, .9)}}
	for k, want := range map[int]float64{1: .1, 4: .1, 8: .2, 16: .2, 31: .2, 32: .9, 64: .9} {
		if got := f.correction(k).goodput; math.Abs(got-want) > 1e-9 {
			t.Errorf("closed loop, capacity %d: %v, want %v", k, got, want)
		}
	}
	f.roomy = 0 // an open loop
	if got := f.correction(16).goodput; math.Abs(got-.55) > 1e-9 {
		t.Errorf("open loop, halfway: %v", got)
	}
	if got := (&Fit{}).correction(3); got != (knot{}) {
		t.Errorf("without knots: %+v", got)
	}
}

func TestBetween(t *testing.T) {
	if got := between([]int{4, 5, 21, 64}); !slices.Equal(got, []int{10, 37}) {
		t.Error(got)
	}
}

// TestStormsLastAsLongAsTheyShould unless told otherwise.
func TestStormsLastAsLongAsTheyShould(t *testing.T) {
	onoff := storm.Process{Kind: storm.OnOff, Rate: 100, On: 10 * time.Millisecond, Off: 20 * time.Millisecond}
	for _, c := range []struct {
		name     string
		mean     time.Duration
		arrivals Arrivals
		asked    time.Duration
		want     time.Duration
	}{
		{"closed loop", 50 * time.Microsecond, Arrivals{}, 0, 500 * time.Millisecond},
		{"slow handlers", time.Millisecond, Arrivals{}, 0, time.Second},
		{"very slow handlers", time.Second, Arrivals{}, 0, mostEnough},
		{"bursts", 50 * time.Microsecond, Arrivals{Calls: onoff}, 0, 1500 * time.Millisecond},
		{"as asked", time.Second, Arrivals{Calls: onoff}, 20 * time.Millisecond, 20 * time.Millisecond},
	} {
		r := Request{Load: Load{Targets: 8, Service: Service{Dist: dist.Dist{Mean: c.mean}}, Arrivals: c.arrivals}, Workers: 2, Duration: c.asked}
		r.defaults()
		if r.Duration != c.want {
			t.Errorf("%s: %v, want %v", c.name, r.Duration, c.want)
		}
	}
}
