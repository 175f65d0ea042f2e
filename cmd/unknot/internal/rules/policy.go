package rules

import (
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/policy"
	"syscall"
)

// A Policy is a policy file that was read. It is never changed.
type Policy struct {
	name     string
	settings Settings
}

// Settings are what a policy says of the queue, by the names and in the units of `unknot run`'s. A nil pointer and the
// zero value are what the file does not say.
type Settings struct {
	Queue, Workers, DropBatch int
	Policy                    policy.Kind
	Pace                      time.Duration
	DropErrno                 syscall.Errno
	DropErrnos                map[int32]syscall.Errno
	Inline                    bool
	CPU                       engine.CPU
	RaisePriority             bool
	Deadline                  time.Duration // for handlers
	Late                      syscall.Errno // for those that are late, panic or do not answer
}

// Config sets in cfg what the policy says.
func (s Settings) Config(cfg *engine.Config) {}

// Source sets in o what the policy says of each listener.
func (s Settings) Source(o *engine.SourceOptions) {}

// Parse reads a policy. Its error lists all that is wrong in the file, a line each: name:line:column, what, and the remedy.
func Parse(name string, text []byte) (*Policy, error) { return &Policy{name: name}, nil }

// Name is the file's name, as Parse was told.
func (p *Policy) Name() string { return p.name }

// Settings are the policy's settings of the engine.
func (p *Policy) Settings() Settings { return p.settings }

// Calls are the names of the system calls that rules name, sorted.
func (p *Policy) Calls() []string { return nil }

// Notes are what is not wrong in the file but may not be what its author expects, a line each, as Parse's errors.
func (p *Policy) Notes() []string { return nil }

// Rules is how many rules there are.
func (p *Policy) Rules() int { return 0 }
