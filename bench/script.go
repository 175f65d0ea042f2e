package bench

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// A Script is work that changes as a storm goes on.
type Script struct{ steps []scriptStep }

type scriptStep struct {
	at   time.Duration // since the storm began to count
	work Work
}

// parseScript reads "50us+200us@1s+50us@2s": what handlers do at first, and what from which time on, as ParseWork reads each.
func parseScript(s string) (Work, error) {
	first, rest, _ := strings.Cut(s, "+")
	w, err := ParseWork(first)
	if err != nil {
		return Work{}, err
	}
	sc := &Script{[]scriptStep{{0, w}}}
	for step := range strings.SplitSeq(rest, "+") {
		work, at, ok := strings.Cut(step, "@")
		d, err := time.ParseDuration(at)
		if !ok || err != nil || d <= sc.steps[len(sc.steps)-1].at {
			return Work{}, fmt.Errorf("work %q: step %q: want work and a time after the step before, such as 200us@1s", s, step)
		}
		w, err := ParseWork(work)
		if err != nil {
			return Work{}, err
		}
		if w.Script != nil {
			return Work{}, fmt.Errorf("work %q: a step has no steps", s)
		}
		sc.steps = append(sc.steps, scriptStep{d, w})
	}
	w.Script = sc
	return w, nil
}

func (s *Script) String() string {
	var b strings.Builder
	b.WriteString(s.steps[0].work.String())
	for _, step := range s.steps[1:] {
		fmt.Fprintf(&b, "+%v@%v", step.work, step.at)
	}
	return b.String()
}

// Last is when the last step is.
func (s *Script) Last() time.Duration { return s.steps[len(s.steps)-1].at }

// settle is how long after a step a part is not yet steady. A shorter one has a quarter of its time for that.
const settle = 150 * time.Millisecond

// margin is how long before the next step a part is over, since to read what it was takes time too.
const margin = 20 * time.Millisecond

// A part is the steady time between two steps, since the storm began to count.
type part struct {
	work     Work
	from, to time.Duration
	next     time.Duration // step
}

// parts are those of a storm that counts for d.
func (s *Script) parts(d time.Duration) (all []part) {
	for i, step := range s.steps {
		to, next := d, d
		if i+1 < len(s.steps) {
			next = s.steps[i+1].at
			to = next - min(margin, (next-step.at)/10)
		}
		from := step.at
		if i > 0 {
			from += min(settle, (next-step.at)/4)
		}
		all = append(all, part{step.work, from, to, next})
	}
	return all
}

// A clockwork is a Script in one run.
type clockwork struct {
	*Script
	from atomic.Int64 // when the storm began to count; 0: not yet
}

// do does the work of now.
func (c *clockwork) do() {
	w := &c.steps[0].work
	if from := c.from.Load(); from != 0 {
		at := time.Duration(now() - from)
		for i := range c.steps {
			if at >= c.steps[i].at {
				w = &c.steps[i].work
			}
		}
	}
	w.Do()
}
