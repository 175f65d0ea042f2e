package rules

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/filter"
	"github.com/unknot/unknot/engine/policy"
	"golang.org/x/sys/unix"
)

// Settings are what a policy says of the engine, by the names that `unknot run` has for them and `unknot tune` writes. Said
// tells which; the others have their zero values.
type Settings struct {
	Said map[string]bool // by key: "queue"

	Queue, Workers, DropBatch, MaxInHandlers int
	Policy                                   policy.Kind
	Pace                                     time.Duration
	WaitTarget                               time.Duration // 0: none
	DropErrno                                syscall.Errno
	DropErrnos                               map[int32]syscall.Errno
	Inline                                   bool // path: inline
	CPU                                      engine.CPU
	RaisePriority                            bool
	Deadline                                 time.Duration // of handlers; engine.NoDeadline: none
	Late                                     syscall.Errno // for handlers that are late, panic or do not answer; engine.DropContinue: continue
}

// Config sets in cfg what the policy says, and leaves the rest. What is dropped is always set: EINTR if nothing is said, and
// continue for the calls whose failure programs do not expect, unless rules refuse some of them.
func (s *Settings) Config(cfg *engine.Config) {
	set := func(key string, f func()) {
		if s.Said[key] {
			f()
		}
	}
	set("queue", func() { cfg.Queue = s.Queue })
	set("workers", func() { cfg.Workers = s.Workers })
	set("drop-batch", func() { cfg.DropBatch = s.DropBatch })
	set("policy", func() { cfg.Policy = s.Policy })
	set("pace", func() { cfg.Pace = s.Pace })
	set(waitTargetKey, func() { cfg.WaitTarget = s.WaitTarget })
	set("path", func() { cfg.Inline = s.Inline })
	set("cpu", func() { cfg.CPU = s.CPU })
	set("priority", func() { cfg.RaisePriority = s.RaisePriority })
	s.Limits(cfg)
	cfg.DropErrno, cfg.DropErrnos = s.DropErrno, s.DropErrnos
}

// Limits sets in cfg what the policy says of handlers' limits.
func (s *Settings) Limits(cfg *engine.Config) {
	if s.Said["deadline"] {
		cfg.HandlerDeadline = max(0, s.Deadline)
	}
	if s.Said["late"] && s.Late != engine.DropContinue { // the engine's own is an errno: rules say the other one for each call
		cfg.DefaultErrno = s.Late
	}
}

// Source sets in o what the policy says of each listener, and leaves the rest.
func (s *Settings) Source(o *engine.SourceOptions) {
	if s.Said["queue"] {
		o.Queue = s.Queue
	}
	if s.Said[waitTargetKey] {
		o.WaitTarget = s.WaitTarget
	}
	if s.Said["max-in-handlers"] {
		o.MaxInHandlers = s.MaxInHandlers
	}
}

// settingKeys are the keys of a policy beside default and rules.
var settingKeys = []string{"queue", "workers", "drop-batch", "drop-errno", "path", "policy", "pace", waitTargetKey, "cpu", "priority", "max-in-handlers", "deadline", "late"}

const waitTargetKey = "wait-target"

// setting reads one of settingKeys.
func (s *source) setting(e entry, to *Settings) {
	text, p, ok := s.text(e.val, e.key, wants[e.key])
	if !ok {
		return
	}
	bad := func() { s.bad(p, "%s %q: want %s", e.key, text, wants[e.key]) }
	to.Said[e.key] = true
	var err error
	switch e.key {
	case "queue", "workers", "drop-batch", "max-in-handlers":
		n, err := strconv.Atoi(text)
		l := bounds[e.key]
		if _, number := e.val.(*ast.IntegerNode); !number {
			s.bad(p, "%s is %s: want %s", e.key, kindOf(e.val), wants[e.key])
		} else if err != nil || n < l.low || n > l.high {
			bad()
		}
		*map[string]*int{"queue": &to.Queue, "workers": &to.Workers, "drop-batch": &to.DropBatch, "max-in-handlers": &to.MaxInHandlers}[e.key] = n
	case "path":
		if to.Inline = text == "inline"; !to.Inline && text != "queue" && text != "auto" {
			bad()
		}
	case "policy":
		if to.Policy, err = policy.ParseKind(text); err != nil {
			bad()
		}
	case "pace":
		if to.Pace, err = ParsePace(text); err != nil {
			bad()
		}
	case waitTargetKey:
		if to.WaitTarget, err = ParseWaitTarget(text); err != nil {
			bad()
		}
	case "cpu":
		switch text {
		case "auto":
			to.CPU = engine.AutoCPU
		case "none":
			to.CPU = engine.AnyCPU
		default:
			n, err := strconv.Atoi(text)
			if err != nil || n < 0 || n >= 1<<16 {
				bad()
				return
			}
			to.CPU = engine.OnCPU(n)
		}
	case "priority":
		if to.RaisePriority = text == "raise"; !to.RaisePriority && text != "keep" {
			bad()
		}
	case "deadline":
		to.Deadline, _ = s.deadline(e)
	case "late":
		to.Late, _ = s.late(e)
	case "drop-errno":
		if to.DropErrno, to.DropErrnos, err = dropErrnos(text); err != nil {
			s.bad(p, "drop-errno %v", err)
		}
	}
}

var bounds = map[string]struct{ low, high int }{"queue": {1, engine.MaxQueue}, "workers": {1, engine.MaxWorkers}, "drop-batch": {0, engine.MaxQueue}, "max-in-handlers": {1, engine.MaxWorkers}}

func whole(key string) string {
	return fmt.Sprintf("a whole number from %d to %d", bounds[key].low, bounds[key].high)
}

var wants = map[string]string{
	"queue": whole("queue"), "workers": whole("workers"), "drop-batch": whole("drop-batch"), "max-in-handlers": whole("max-in-handlers"),
	"path": "inline, queue or auto", "policy": strings.Join(policy.Kinds[:], ", "), "pace": PaceForms, waitTargetKey: WaitTargetForms, "cpu": "a CPU's number, auto or none", "priority": "keep or raise",
	"deadline": deadlineForms, "late": lateForms, "drop-errno": "continue or an errno's name, such as EAGAIN, for one call read=EAGAIN",
}

const (
	deadlineForms = "a duration such as 500ms, or none"
	lateForms     = "continue or an errno's name, such as EIO"
)

// deadline reads how long a handler may take.
func (s *source) deadline(e entry) (time.Duration, bool) {
	text, p, ok := s.text(e.val, e.key, deadlineForms)
	if !ok {
		return 0, false
	}
	if text == "none" {
		return engine.NoDeadline, true
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		s.bad(p, "%s %q: want %s", e.key, text, deadlineForms)
		return 0, false
	}
	return d, true
}

// late reads what answers for a handler that does not.
func (s *source) late(e entry) (syscall.Errno, bool) {
	text, p, ok := s.text(e.val, e.key, lateForms)
	if !ok {
		return 0, false
	}
	errno, known := errnoOrContinue(text)
	if !known {
		s.bad(p, "%s %q: want %s", e.key, text, lateForms)
	}
	return errno, known
}

// PaceForms are what ParsePace reads.
const PaceForms = "a duration such as 5ms, auto or none"

// ParsePace reads a pace of drops, as engine.Config wants it.
func ParsePace(s string) (time.Duration, error) {
	switch s {
	case "auto":
		return 0, nil
	case "none":
		return policy.Immediately, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("pace %q: want %s", s, PaceForms)
	}
	return d, nil
}

// WaitTargetForms are what ParseWaitTarget reads.
const WaitTargetForms = "a duration such as 1ms, or none"

// ParseWaitTarget reads how long calls may wait in the queue, as engine.Config wants it.
func ParseWaitTarget(s string) (time.Duration, error) {
	if s == "none" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("wait-target %q: want %s", s, WaitTargetForms)
	}
	return d, nil
}

// Errno is the errno of that name.
func Errno(name string) (syscall.Errno, bool) {
	for e := syscall.Errno(1); e < 134; e++ {
		if unix.ErrnoName(e) == name {
			return e, true
		}
	}
	return 0, false
}

func errnoOrContinue(text string) (syscall.Errno, bool) {
	if text == "continue" {
		return engine.DropContinue, true
	}
	return Errno(text)
}

// dropErrnos reads what becomes of dropped calls, of all and of single ones: EINTR,read=EAGAIN,close=continue.
func dropErrnos(text string) (all syscall.Errno, single map[int32]syscall.Errno, err error) {
	for item := range strings.SplitSeq(text, ",") {
		call, name, one := strings.Cut(item, "=")
		if !one {
			name = call
		}
		errno, ok := errnoOrContinue(name)
		if !ok {
			return 0, nil, fmt.Errorf("%q: want continue or an errno's name, such as EAGAIN, for one call read=EAGAIN", item)
		}
		if !one {
			all = errno
			continue
		}
		nr, err := filter.Number(call)
		if err != nil {
			return 0, nil, err
		}
		if single == nil {
			single = map[int32]syscall.Errno{}
		}
		single[int32(nr)] = errno
	}
	return all, single, nil
}

// DropErrnos reads what becomes of dropped calls, as `unknot run --drop-errno` takes it; all is what becomes of those
// of which it says nothing. refuses tells whether the supervisor refuses a call: one that is dropped must not go on then for
// its being dropped; nil refuses none.
func DropErrnos(text string, all syscall.Errno, refuses func(call string) bool) (syscall.Errno, map[int32]syscall.Errno, error) {
	said, single, err := dropErrnos(text)
	if err != nil {
		return 0, nil, err
	}
	if said != 0 {
		all = said
	}
	return all, spareNeverFailed(single, refuses), nil
}

// NeverFailed are calls that are never dropped by an errno that was said of all calls, and, where they change ids, not even
// by one that was said of them: programs go on as if they had been made.
var NeverFailed = []string{
	"close", "close_range", "dup", "dup2", "dup3", "exit", "exit_group", "munmap", "rt_sigreturn",
	"clone", "clone3", "fork", "vfork", "pipe", "pipe2", "connect",
	"setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups", "capset", "setns", "chroot",
}

// spareNeverFailed has dropped calls that must not fail continue, whatever is said of all calls: who cannot give
// up its privileges may go on with them.
func spareNeverFailed(single map[int32]syscall.Errno, refuses func(call string) bool) map[int32]syscall.Errno {
	for _, name := range NeverFailed {
		if refuses != nil && refuses(name) {
			continue
		}
		nr, err := filter.Number(name)
		if _, said := single[int32(nr)]; err != nil || said && !strings.HasPrefix(name, "set") {
			continue
		}
		if single == nil {
			single = map[int32]syscall.Errno{}
		}
		single[int32(nr)] = engine.DropContinue
	}
	return single
}

// drops settles what becomes of dropped calls, once the rules are known.
func (p *Policy) drops(s *source, at place) {
	to := &p.settings
	if to.DropErrno == 0 {
		to.DropErrno = unix.EINTR
	}
	if to.DropErrno == engine.DropContinue && p.RefusesAny() {
		s.note(at, "drop-errno continue: a call that rules refuse goes on when the queue is full; say an errno")
	}
	to.DropErrnos = spareNeverFailed(to.DropErrnos, p.Refuses)
}
