package rules

import (
	"sync/atomic"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/agent"
)

// A Router is the handler that answers by a policy.
type Router struct {
	policy atomic.Pointer[Policy]
	audit  *Audit
}

// NewRouter returns a Router by p, whose records go to a; nil writes none.
func NewRouter(p *Policy, a *Audit) *Router {
	r := &Router{audit: a}
	r.policy.Store(p)
	return r
}

// Policy is the one by which calls are answered now.
func (r *Router) Policy() *Policy { return r.policy.Load() }

// Swap has later calls answered by p. Each call sees one policy, whole.
func (r *Router) Swap(p *Policy) { r.policy.Store(p) }

// Handle answers a call.
func (r *Router) Handle(q engine.Request) { _ = q.Continue() }

// A Tag is what the rules have to know of a listener: engine.SourceOptions.Tag.
type Tag struct {
	state agent.State
}

// NewTag returns the tag of a listener that came with s. Each listener has its own.
func NewTag(s agent.State) *Tag { return &Tag{state: s} }

// State is what the listener came with.
func (t *Tag) State() agent.State { return t.state }

// Container is the container's id.
func (t *Tag) Container() string { return t.state.Container.ID }
