package bench

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestParts: of work with steps, each steady part is told apart, and none has what happened in another.
func TestParts(t *testing.T) {
	s := spec("unknot", PathQueue, 8)
	s.Workers, s.Queue = 2, 64
	var err error
	if s.Work, err = ParseWork("sleep:300us+sleep:3ms@300ms+sleep:300us@600ms"); err != nil {
		t.Fatal(err)
	}
	var r *Result
	// Where the machine stalls, nothing may happen in a part that is not late; then another storm has its say.
	idle := func(p *Result) bool { return !p.late && (p.Targets.OK == 0 || p.Wait.Count == 0) }
	for end := time.Now().Add(testDeadline); ; {
		if r, err = Once(context.Background(), s, 900*time.Millisecond, false); err != nil {
			t.Fatal(err)
		}
		if err := r.Check(); err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(r.Parts, idle) || time.Now().After(end) {
			break
		}
	}
	if len(r.Parts) != 3 {
		t.Fatalf("%d parts", len(r.Parts))
	}
	var served uint64
	for i, p := range r.Parts {
		if p.late {
			t.Logf("part %d is void: %v", i+1, p.Void())
			continue
		}
		// However busy the machine is, no sleep is shorter than asked, and a mean of another part's would show.
		least := []float64{300e3, 3e6, 300e3}[i]
		if mean := p.Service.Mean(); mean < least {
			t.Errorf("part %d: service %v, want at least %v", i+1, time.Duration(mean), time.Duration(least))
		}
		if p.Targets.OK == 0 || p.Wait.Count == 0 {
			t.Errorf("part %d: nothing happened", i+1)
		}
		served += p.Targets.OK
	}
	if fast := r.Parts[0].Service.Quantile(.05); fast >= 3e6 && !r.Parts[0].late {
		t.Errorf("part 1 has the slow handlers of part 2: at least %v", time.Duration(fast))
	}
	if slow := r.Parts[1].Service.Quantile(.05); slow < 2.9e6 && !r.Parts[1].late {
		t.Errorf("part 2 has fast handlers: %v", time.Duration(slow))
	}
	if served > r.Targets.OK {
		t.Errorf("parts served %d, all of it %d", served, r.Targets.OK)
	}
	var text strings.Builder
	w, err := NewWriter(&text, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"/work=sleep:300µs+sleep:3ms@300ms+sleep:300µs@600ms/", "/part=1:sleep:300µs-", "/part=2:sleep:3ms-", "/part=3:sleep:300µs-"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the results lack %q:\n%s", want, &text)
		}
	}
	if _, err := Once(context.Background(), s, 600*time.Millisecond, false); err == nil {
		t.Error("a storm that is over before the last step was begun")
	}
}

func TestPartsSettle(t *testing.T) {
	w, err := ParseWork("1us+2us@1s+3us@1100ms")
	if err != nil {
		t.Fatal(err)
	}
	end := time.Duration(0)
	for i, p := range w.Script.parts(2 * time.Second) {
		from := []time.Duration{0, 1025 * time.Millisecond, 1250 * time.Millisecond}[i]
		if to := []time.Duration{980 * time.Millisecond, 1090 * time.Millisecond, 2 * time.Second}[i]; p.to != to {
			t.Errorf("part %d: until %v, want %v", i+1, p.to, to)
		}
		if p.from != from || p.from < end || math.Abs(float64(p.work.Time)-float64(i+1)*1e3) > 0 {
			t.Errorf("part %d: %+v", i+1, p)
		}
		end = p.to
	}
	if end != 2*time.Second {
		t.Errorf("ends at %v", end)
	}
}
