package rules

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/agent"
	"github.com/unknot/unknot/engine/notify"
)

// A Router is the handler that answers by a policy. Calls whose rules need nothing of the target (continue, errno, by
// arguments in registers) are answered on the receive thread, without a queue: the Router is an engine.Inliner. What needs
// the target's memory or opens a file is queued, or, on a thread that has confined itself, goes to a goroutine.
type Router struct {
	policy atomic.Pointer[Policy]
	audit  *Audit
	log    *slog.Logger
	bare   *Tag // of listeners without one
	away   engine.Handler
	said   limiter
	unread atomic.Uint64
}

// NewRouter returns a Router by p, whose records go to a; nil writes none.
func NewRouter(p *Policy, a *Audit) *Router {
	r := &Router{audit: a, bare: NewTag(agent.State{})}
	r.away = engine.Go(engine.HandlerFunc(r.elsewhere), awayMost)
	r.policy.Store(p)
	return r
}

// awayMost is how many calls may be off their receive thread at once: more than there are threads, nearly.
const awayMost = 1 << 16

// SetLogger has l told, at most once in ten seconds, when the supervisor lacks what it takes to read targets. Call
// it before calls come.
func (r *Router) SetLogger(l *slog.Logger) { r.log = l }

// Policy is the one by which calls are answered now.
func (r *Router) Policy() *Policy { return r.policy.Load() }

// Swap has later calls answered by p. Each call sees one policy, whole.
func (r *Router) Swap(p *Policy) { r.policy.Store(p) }

// Unread is how many calls were refused because the supervisor could not read what a rule asks for.
func (r *Router) Unread() uint64 { return r.unread.Load() }

// Inlines reports whether a call is answered without anything of its target.
func (r *Router) Inlines(src *engine.Source, d *notify.Data) bool {
	c := r.chain(src, r.policy.Load(), d)
	return c.steps[c.next(d, 0)].quick
}

func (r *Router) chain(src *engine.Source, p *Policy, d *notify.Data) *chain {
	t, ok := src.Tag().(*Tag)
	if !ok {
		t = r.bare
	}
	return t.view(p).chain(d)
}

// Handle answers a call.
func (r *Router) Handle(q engine.Request) { r.handle(q, true) }

// elsewhere handles a call that a confined thread could not.
func (r *Router) elsewhere(q engine.Request) { r.handle(q, false) }

func (r *Router) handle(q engine.Request, first bool) {
	src := q.Source()
	if src == nil {
		return // it has its answer
	}
	d := q.Data()
	p := r.policy.Load()
	c := r.chain(src, p, &d)
	i := c.next(&d, 0)
	s := &c.steps[i]
	if !s.quick {
		r.slow(q, p, c, i, d, first)
		return
	}
	s.rule.hits.n.Add(1)
	if s.rule.kind == fails {
		_ = q.Fail(s.rule.errno) // that the target is gone, or was answered for, is counted
		return
	}
	_ = q.Continue()
}

// slow answers a call by the target's memory, from step i on.
func (r *Router) slow(q engine.Request, p *Policy, c *chain, i int, d notify.Data, first bool) {
	l := newLook(q, c, d)
	for ; ; i++ {
		// By registers first: what they rule out need not be read.
		i = c.next(&d, i)
		s := &c.steps[i]
		ok, err := l.match(s.memory)
		if errors.Is(err, engine.ErrGone) || errors.Is(err, engine.ErrConfined) || err != nil && s.rule.refuses() {
			r.stuck(q, p, l, c.steps[i:], err, first)
			return
		}
		if err == nil && ok {
			if s.rule.limits != nil { // before, the call may be another rule's
				q.Limit(s.rule.limits)
			}
			r.answer(q, p, l, s.rule, first)
			return
		}
	}
}

// stuck answers a call of which something could not be read that the first of the steps asks for.
func (r *Router) stuck(q engine.Request, p *Policy, l *look, steps []step, err error, first bool) {
	switch {
	case errors.Is(err, engine.ErrGone):
		// Which rule it was for nobody will know. If one of them writes calls down, so is this one.
		for i := range steps {
			if by := steps[i].rule; by.log {
				r.audit.record(p, l, by, by.kind.String(), err)
				return
			}
		}
	case errors.Is(err, engine.ErrConfined) && first:
		r.away.Handle(q)
	default:
		r.refuse(q, p, l, steps[0].rule, err)
	}
}

// A Tag is what the rules have to know of a listener: engine.SourceOptions.Tag.
type Tag struct {
	state   agent.State
	current atomic.Pointer[tagged]
}

// tagged are the rules that may match a tag's container, of a policy.
type tagged struct {
	policy *Policy
	view   *view
}

// NewTag returns the tag of a listener that came with s. Each listener has its own.
func NewTag(s agent.State) *Tag { return &Tag{state: s} }

// State is what the listener came with.
func (t *Tag) State() agent.State { return t.state }

// Container is the container's id.
func (t *Tag) Container() string { return t.state.Container.ID }

// LogValue is the container's id.
func (t *Tag) LogValue() slog.Value { return t.state.LogValue() }

// view are the rules of p for the tag's container.
func (t *Tag) view(p *Policy) *view {
	if c := t.current.Load(); c != nil && c.policy == p {
		return c.view
	}
	v := p.view(&t.state)
	t.current.Store(&tagged{p, v})
	return v
}

// A limiter lets something be said once in a while.
type limiter struct{ last atomic.Int64 }

const sayEvery = 10 * time.Second

func (l *limiter) may() bool {
	now := time.Now().UnixNano()
	last := l.last.Load()
	return (last == 0 || now-last >= int64(sayEvery)) && l.last.CompareAndSwap(last, now)
}
