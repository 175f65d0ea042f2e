package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/bench/storm"
)

func TestSessionRotatesAndDrawsAnew(t *testing.T) {
	defer func(e []engineKind) { engines = e }(engines)
	var made []string
	session := Session{Rounds: 2, Length: time.Millisecond}
	for _, name := range []string{"a", "b", "c"} {
		engines = append(slices.Clone(engines), engineKind{name, []string{PathQueue}, func(s Spec) (Supervisor, error) {
			made = append(made, fmt.Sprint(name, s.Seed))
			return nil, errors.New(name + " is broken")
		}, false})
		s := spec(name, PathQueue, 1)
		s.Seed = 7
		session.Specs = append(session.Specs, s)
	}
	var next []string
	session.Next = func(s Spec) { next = append(next, fmt.Sprint(s.Engine, s.Seed)) }
	errs := 0
	for r, err := range session.Run(t.Context()) {
		if r != nil || err == nil {
			t.Errorf("%+v, %v", r, err)
		}
		errs++
	}
	if got := strings.Join(made, " "); got != "a7 b7 c7 b8 c8 a8" || errs != 6 {
		t.Errorf("made %s, %d errors", got, errs)
	}
	if got := strings.Join(next, " "); got != "a7 b7 c7 b7 c7 a7" {
		t.Errorf("said that next are %s", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for r, err := range session.Run(ctx) {
		t.Errorf("after its end: %+v, %v", r, err)
	}
}

func TestSessionKeepsWhatIsVoid(t *testing.T) {
	s := spec("bare", PathInline, 1)
	s.Load.Arrivals = storm.Process{Kind: storm.Constant, Rate: 4e5} // which one thread cannot make
	session := Session{Specs: []Spec{s}, Rounds: 3, Length: 20 * time.Millisecond}
	for r, err := range session.Run(t.Context()) {
		if r == nil || r.Void() == nil || err == nil || !strings.HasPrefix(err.Error(), "void: "+s.Name()) {
			t.Errorf("%+v, %v", r, err)
		}
		break // which ends the session
	}
}
