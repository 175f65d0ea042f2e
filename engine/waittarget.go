package engine

import (
	"time"

	"github.com/unknot/unknot/engine/policy"
)

// Limit is what bounds the depth of the listener's ring now: what its wait target has come to, or the
// capacity. It is zero inline.
func (s *Source) Limit() policy.Limit {
	if s.inline {
		return policy.Limit{}
	}
	return s.rx.policy.Limit()
}

// hopelessBy is how much longer than its target a listener's service takes before it is said so, and
// hopefulBy how much shorter before it can be said again.
const hopelessBy, hopefulBy = 1.1, .9

// checkTargets tells of wait targets that no depth can meet, each once.
func (e *Engine) checkTargets() {
	for s := range e.registry.each {
		if s.inline || !s.rx.adapts {
			continue
		}
		target, service := float64(s.opts.WaitTarget), s.Limit().Service
		switch {
		case float64(service) < hopefulBy*target:
			s.seen.hopeless = false
		case float64(service) > hopelessBy*target && !s.seen.hopeless:
			s.seen.hopeless = true
			e.cfg.Logger.Warn("no depth of the queue can meet the wait target: a call takes longer to be served; add workers or raise the target",
				s.log(), "target", s.opts.WaitTarget, "service", service.Round(time.Microsecond), "workers", e.cfg.Workers)
		}
	}
}

// Workers is how many workers there are, of all receivers together; 0 inline.
func (e *Engine) Workers() int {
	if e.cfg.Inline {
		return 0
	}
	return e.cfg.Workers * len(e.receivers.all())
}
