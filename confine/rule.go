package confine

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A Rule is a line of the filter's table. A call that no rule matches meets
// [Config.OnViolation]. Rules of one system call have one action.
type Rule struct {
	Key     string // unique, such as "write/log"
	Syscall string
	Errno   unix.Errno // the call fails with it; 0: the call is allowed
	When    []Cond     // all must hold
	Only    string     // the configurations that have the rule; "": all
	Why     string
	Test    string // the test scenario that dies without the rule; "": Why names who needs it
}

// A Cond demands argument Arg & Mask == Value. Where the kernel looks at 32
// bits of an argument, so does the mask.
type Cond struct {
	Arg         uint
	Mask, Value uint64
	Text        string // how it reads
}

const (
	low32 = 1<<32 - 1
	all64 = 1<<64 - 1
)

// is32 and is64 compare what the kernel looks at.
func is32(arg uint, v uint32, text string) Cond { return Cond{arg, low32, uint64(v), text} }
func is64(arg uint, v uint64, text string) Cond { return Cond{arg, all64, v, text} }

// nr returns the rule's number on this machine.
func (r *Rule) nr() (uint32, bool) {
	n, ok := numbers[r.Syscall]
	return n, ok
}

// ret is the seccomp return value of the rule.
func (r *Rule) ret() uint32 {
	if r.Errno != 0 {
		return unix.SECCOMP_RET_ERRNO | uint32(r.Errno)
	}
	return unix.SECCOMP_RET_ALLOW
}

// WriteRules prints rules as a Markdown table; neighbours that differ in the call
// alone share a line.
func WriteRules(w io.Writer, rules []Rule) error {
	var b strings.Builder
	b.WriteString("| call | condition | outcome | why | test | only |\n|---|---|---|---|---|---|\n")
	seen := map[string]bool{}
	var calls []string
	last := ""
	flush := func() {
		if last != "" {
			fmt.Fprintf(&b, "| `%s` | %s\n", strings.Join(calls, "` `"), last)
		}
	}
	for _, r := range rules {
		if seen[r.Key] { // several rules that read the same
			continue
		}
		seen[r.Key] = true
		outcome := "allowed"
		if r.Errno != 0 {
			outcome = unix.ErrnoName(r.Errno)
		}
		var when []string
		for _, c := range r.When {
			if !slices.Contains(when, c.Text) {
				when = append(when, c.Text)
			}
		}
		line := fmt.Sprintf("%s | %s | %s | %s | %s |", strings.Join(when, "; "), outcome, r.Why, r.Test, r.Only)
		if line != last {
			flush()
			calls, last = nil, line
		}
		calls = append(calls, r.Syscall)
	}
	flush()
	_, err := io.WriteString(w, b.String())
	return err
}
