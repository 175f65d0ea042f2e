package rules

import (
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

// Check reads the policy and says what it found: on out what the policy does and its notes, in the error what is wrong.
func Check(out io.Writer, name string, text []byte) error {
	p, err := Parse(name, text)
	if err != nil {
		return err
	}
	for _, n := range p.Notes() {
		fmt.Fprintf(out, "note: %s\n", n)
	}
	_, err = fmt.Fprintf(out, "%s: %s\n", name, p)
	return err
}

// String says in a line what the policy does.
func (p *Policy) String() string {
	var parts []string
	calls, all := p.Calls(), ""
	for _, r := range p.rules {
		if r.calls == nil {
			all = " and all others"
		}
	}
	switch n := len(p.rules); n {
	case 0:
		parts = append(parts, "no rules")
	case 1:
		parts = append(parts, "1 rule")
	default:
		parts = append(parts, fmt.Sprintf("%d rules", n))
	}
	switch {
	case len(calls) > 0:
		parts[0] += " for " + strings.Join(calls, ", ") + all
	case all != "":
		parts[0] += " for all calls"
	}
	return strings.Join(append(parts, "default "+p.fallback.says()), "; ")
}

// says is a rule's answer as the file has it.
func (r *rule) says() string {
	s := r.kind.String()
	switch r.kind {
	case continues:
		if r.log {
			return "log"
		}
	case fails:
		s += " " + unix.ErrnoName(r.errno)
	case injects:
		s += " " + r.file
	}
	return s
}

// A RuleState is what a rule has done.
type RuleState struct {
	Line int    // of the file; 0 of the default
	Do   string // "errno EPERM"
	Hits uint64 // calls that it answered
}

// State is what each rule has done since the policy was read, the default last.
func (p *Policy) State() (all []RuleState) {
	for _, r := range p.all() {
		line := r.at.line
		if r == p.fallback {
			line = 0
		}
		all = append(all, RuleState{line, r.says(), r.hits.n.Load()})
	}
	return all
}
