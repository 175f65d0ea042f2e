package bench

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/unknot/unknot/bench/storm"
)

// A Session measures specs side by side, in rounds: a round is one repetition of each of them. Each round begins one spec
// further on, so that none always comes first, and draws anew: all of a round from the same seed.
type Session struct {
	Specs  []Spec
	Rounds int
	Length time.Duration // of a repetition
	Traced bool          // see [Once]
	Next   func(Spec)    // is told what is measured next; nil: nobody asks
}

// Run measures, one repetition after the other, until all are done, ctx ends or the loop over them does. A repetition is a
// result, or an error, or both: a result that is void ([Result.Void]), whose counts do not agree ([Result.Check]), or that
// lacks its wait, since the tracer lost some. The waits of all results of a queue are by one clock.
func (s *Session) Run(ctx context.Context) iter.Seq2[*Result, error] {
	return func(yield func(*Result, error) bool) {
		for round := range s.Rounds {
			for i := range s.Specs {
				spec := s.Specs[(i+round)%len(s.Specs)]
				if s.Next != nil {
					s.Next(spec)
				}
				r, err := s.once(ctx, spec, round)
				if ctx.Err() != nil || !yield(r, err) {
					return
				}
			}
		}
	}
}

func (s *Session) once(ctx context.Context, spec Spec, round int) (*Result, error) {
	seeded := spec
	seeded.Seed += uint64(round)
	r, err := Once(ctx, seeded, s.Length, s.Traced)
	if err != nil {
		return nil, err
	}
	r.Round, r.Spec = round, spec
	var wrong []error
	if s.Traced && r.Path == PathQueue && r.Clock != ClockTracepoints {
		r.Wait = nil
		if r.Load.Hostile == storm.Friendly { // hostile targets are not traced at all
			wrong = append(wrong, fmt.Errorf("the tracer lost notifications of %s: its wait is left out", spec.Name()))
		}
	}
	if err := r.Void(); err != nil {
		wrong = append(wrong, fmt.Errorf("void: %s: %w", spec.Name(), err))
	}
	if err := r.Check(); err != nil {
		wrong = append(wrong, fmt.Errorf("%s: %w", spec.Name(), err))
	}
	return r, errors.Join(wrong...)
}
