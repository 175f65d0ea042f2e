package rules

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/agent"
	"github.com/unknot/unknot/engine/filter"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/syscalls"
)

// A Policy is a policy file that was read. It is never changed.
type Policy struct {
	name     string
	settings Settings
	rules    []*rule
	fallback *rule // default
	notes    []Problem

	mu    sync.Mutex
	views map[string]*view // by which rules are for a container
}

// A rule says what becomes of some calls of some containers.
type rule struct {
	at    place
	do    place    // of the answer
	calls []string // nil: all
	on    selector
	where []condition
	answer
	log    bool
	limits *engine.Limits // nil: the engine's
	late   syscall.Errno  // 0: the engine's
	hits   counter

	twins   []string // names of calls that 32-bit programs have for these
	permits bool     // it continues calls of which others are refused
}

// A counter stands alone in its cache line.
type counter struct {
	_ [64]byte
	n atomic.Uint64
	_ [56]byte
}

// An answer is what a call is answered with.
type answer struct {
	kind  answerKind
	errno syscall.Errno // of fails
	file  string        // of injects
}

type answerKind uint8

const (
	continues answerKind = iota
	fails
	opens   // in the target's place, by the path as it was copied
	injects // in the target's place, another file
)

// refuses reports whether the rule keeps calls from going on as they are.
func (r *rule) refuses() bool { return r.kind != continues }

// memory reports whether the answer needs the target.
func (r *rule) target() bool { return r.log || r.kind == opens || r.kind == injects }

// A selector says for which containers a rule is. What it does not say holds for all.
type selector struct {
	id, metadata []pattern
	annotations  []annotation
}

type annotation struct {
	key    string
	values []pattern
}

func (s *selector) match(st *agent.State) bool {
	if s.id != nil && !matchAny(s.id, st.Container.ID) || s.metadata != nil && !matchAny(s.metadata, st.Metadata) {
		return false
	}
	for _, a := range s.annotations {
		if v, ok := st.Container.Annotations[a.key]; !ok || !matchAny(a.values, v) {
			return false
		}
	}
	return true
}

// covers reports whether s is surely for all containers that o is for.
func (s *selector) covers(o *selector) bool {
	if s.id != nil && (o.id == nil || !covers(s.id, o.id)) || s.metadata != nil && (o.metadata == nil || !covers(s.metadata, o.metadata)) {
		return false
	}
	for _, a := range s.annotations {
		if !slices.ContainsFunc(o.annotations, func(b annotation) bool { return a.key == b.key && covers(a.values, b.values) }) {
			return false
		}
	}
	return true
}

// names reports whether the rule is for a call.
func (r *rule) names(call string) bool { return r.calls == nil || slices.Contains(r.calls, call) }

// covers reports whether r surely matches whatever o matches, but for the calls.
func (r *rule) covers(o *rule) bool {
	if !r.on.covers(&o.on) {
		return false
	}
	for i := range r.where {
		if !slices.ContainsFunc(o.where, func(c condition) bool { return r.where[i].covers(&c) }) {
			return false
		}
	}
	return true
}

// Parse reads a policy. Its error, an *[Error], lists all that is wrong in the file, a line each: name:line:column:
// what, and the remedy.
func Parse(name string, text []byte) (*Policy, error) { return ParseWith(name, text) }

// ParseWith is Parse of a file that has more: others are keys beside default and rules that somebody else reads.
func ParseWith(name string, text []byte, others ...string) (*Policy, error) {
	s := &source{}
	p := s.policy(text, others)
	if len(s.problems) > 0 {
		return nil, &Error{name, inOrder(s.problems)}
	}
	p.name, p.notes, p.views = name, inOrder(s.notes), map[string]*view{}
	return p, nil
}

const answerForms = "continue, log, errno NAME, deny [NAME], open or inject FILE"

func (s *source) policy(text []byte, others []string) *Policy {
	p := &Policy{settings: Settings{Said: map[string]bool{}}}
	doc := s.document(text)
	if doc == nil {
		if len(s.problems) == 0 {
			s.bad(place{1, 1}, "is empty: say at least default: continue")
		}
		return p
	}
	entries, ok := s.mapping(doc, "a policy", "keys with values, such as default: continue")
	if !ok {
		return p
	}
	hasDefault, dropAt := false, place{1, 1}
	for _, e := range entries {
		if e.key == "wait_target" { // as others write it
			e.key = waitTargetKey
		}
		switch {
		case e.key == "default":
			hasDefault = true
			p.fallback = s.fallback(e)
		case e.key == "rules":
			s.rules(e, p)
		case slices.Contains(settingKeys, e.key):
			if e.key == "drop-errno" {
				dropAt = e.at
			}
			s.setting(e, &p.settings)
		case slices.Contains(others, e.key):
		default:
			hint := ""
			if slices.Contains(RunKeys, e.key) {
				hint = ", which is a setting of unknot run alone"
			}
			s.bad(e.at, "unknown key %q%s: the keys of a policy are default, rules, %s", e.key, hint, strings.Join(append(slices.Clone(settingKeys), others...), ", "))
		}
	}
	if !hasDefault {
		s.bad(place{1, 1}, "no default: say what becomes of calls that no rule matches, as default: continue or default: errno EPERM")
	}
	p.unreachable(s)
	p.lookedAt(s)
	if len(s.problems) > 0 {
		return p
	}
	p.late(s)
	for i, r := range p.rules {
		refused, _ := p.after(i)
		if r.refuses() && r.late == engine.DropContinue {
			s.note(r.at, "late: continue, for calls that are refused: what takes too long goes on; say an errno")
		}
		r.twins, r.permits = twinsOf(r.calls), r.kind == continues && refused
	}
	p.drops(s, dropAt)
	return p
}

// RunKeys are settings of unknot run that may stand in the same file as a policy there, for ParseWith.
var RunKeys = []string{"trap", "format", "confine", "wait", "on-death", "output", "quiet", "verbose", "audit"}

// Is reports whether a file is meant as a policy, rather than as settings of unknot run alone: it has a key that only policies have.
func Is(text []byte) bool {
	s := &source{}
	doc := s.document(text)
	if doc == nil {
		return false
	}
	entries, _ := s.mapping(doc, "", "")
	return slices.ContainsFunc(entries, func(e entry) bool {
		return slices.Contains([]string{"default", "rules", "deadline", "late", "max-in-handlers"}, e.key)
	})
}

// fallback reads default.
func (s *source) fallback(e entry) *rule {
	r := &rule{at: e.at, do: e.at}
	ok := s.do(e, r)
	if ok && (r.kind == opens || r.kind == injects) {
		s.bad(r.do, "default: %s is for calls that open: give them a rule", r.kind)
	}
	return r
}

func (k answerKind) String() string { return [...]string{"continue", "errno", "open", "inject"}[k] }

// rules reads the list of rules.
func (s *source) rules(e entry, p *Policy) {
	list, ok := e.val.(*ast.SequenceNode)
	if !ok {
		if s.plain(e.val, "rules", "a list") {
			s.bad(at(e.val), "rules is %s: want a list, each rule with a - before its first key", kindOf(e.val))
		}
		return
	}
	for _, n := range list.Values {
		if r, ok := s.rule(n); ok {
			p.rules = append(p.rules, r)
		}
	}
}

var ruleKeys = []string{"calls", "container", "metadata", "annotations", "where", "do", "log", "deadline", "late"}

func (s *source) rule(n ast.Node) (r *rule, ok bool) {
	entries, ok := s.mapping(n, "a rule", "keys with values, such as calls: mkdir and do: log")
	if !ok {
		return nil, false
	}
	r = &rule{at: at(n)}
	before := len(s.problems)
	var has = map[string]entry{}
	var deadline time.Duration
	for _, e := range entries {
		has[e.key] = e
		switch e.key {
		case "calls":
			r.calls = s.calls(e)
		case "container":
			r.on.id = s.patterns(e.val, e.key)
		case "metadata":
			r.on.metadata = s.patterns(e.val, e.key)
		case "annotations":
			r.on.annotations = s.annotations(e)
		case "where": // once the calls are known
		case "do":
			s.do(e, r)
		case "log":
			switch b, isBool := e.val.(*ast.BoolNode); {
			case isBool:
				r.log = r.log || b.Value
			case s.plain(e.val, "log", "true or false"):
				s.bad(at(e.val), "log is %s: want true or false", kindOf(e.val))
			}
		case "deadline":
			deadline, _ = s.deadline(e)
		case "late":
			r.late, _ = s.late(e)
		default:
			s.bad(e.at, "unknown key %q: the keys of a rule are %s", e.key, strings.Join(ruleKeys, ", "))
		}
	}
	if _, said := has["calls"]; !said {
		s.bad(r.at, "a rule without calls: say for which system calls it is, as calls: [mkdir, mkdirat] or calls: all")
	}
	if _, said := has["do"]; !said {
		s.bad(r.at, "a rule without do: say what becomes of the calls, as do: %s", answerForms)
	}
	if e, said := has["where"]; said && len(r.calls) > 0 {
		s.where(e, r)
	} else if said && r.calls == nil && len(s.problems) == before {
		s.bad(e.at, "where: calls have different arguments: name the calls, instead of all")
	}
	if len(s.problems) > before {
		return r, false
	}
	if r.kind == opens || r.kind == injects {
		for _, c := range r.calls {
			if !slices.Contains(openers, c) {
				s.bad(r.do, "do: %s is for %s: %s opens nothing, give it a rule of its own", r.kind, strings.Join(openers, ", "), c)
				return r, false
			}
		}
		if r.calls == nil {
			s.bad(r.do, "do: %s is for %s: name the calls, instead of all", r.kind, strings.Join(openers, ", "))
			return r, false
		}
	}
	if deadline != 0 || r.late != 0 {
		var err error
		if r.limits, err = engine.NewLimits(deadline, r.late); err != nil {
			s.bad(r.at, "%v", err)
		}
	}
	return r, true
}

// openers are the calls that open and inject answer.
var openers = []string{"open", "openat", "openat2", "creat"}

// calls reads which system calls a rule is for.
func (s *source) calls(e entry) (names []string) {
	items, _ := s.texts(e.val, "calls", "a system call's name, or all")
	bad := len(s.problems)
	for _, it := range items {
		switch {
		case it.text == "all" || it.text == "*":
			if len(items) > 1 {
				s.bad(it.at, "calls: all stands for every call: write it alone")
			}
			return nil
		case slices.Contains(names, it.text):
			s.bad(it.at, "calls: %s is there twice: remove one of them", it.text)
		case !known(it.text):
			_, err := filter.Number(it.text)
			if err == nil {
				err = fmt.Errorf("system call %q has no number here", it.text)
			}
			s.bad(it.at, "calls: %v", err)
		default:
			names = append(names, it.text)
		}
	}
	if len(names) == 0 && len(s.problems) == bad {
		return []string{} // an error was told
	}
	if names == nil {
		names = []string{}
	}
	return names
}

// known reports whether some ABI has a call of that name: a policy is for machines of all kinds.
func known(name string) bool {
	for abi := range syscalls.All {
		if _, ok := abi.Number(name); ok {
			return true
		}
	}
	_, err := filter.Number(name)
	return err == nil
}

// paramsOf are a call's arguments, by the machine's own ABI or else by one that has it.
func paramsOf(call string) ([]syscalls.Param, bool) {
	abis := append([]syscalls.ABI{syscalls.Native()}, slices.Collect(syscalls.All)...)
	for _, abi := range abis {
		if nr, ok := abi.Number(call); ok {
			if c, ok := syscalls.Decode(&notify.Data{Arch: abi.Arch(), NR: nr}); ok {
				return c.Params, true
			}
		}
	}
	return nil, false
}

func (s *source) patterns(n ast.Node, what string) (all []pattern) {
	items, _ := s.texts(n, what, "a text")
	all = []pattern{}
	for _, it := range items {
		p, err := newPattern(it.text, false)
		if err != nil {
			s.bad(it.at, "%s %q: %v", what, it.text, err)
		}
		all = append(all, p)
	}
	return all
}

func (s *source) annotations(e entry) (all []annotation) {
	entries, ok := s.mapping(e.val, "annotations", "keys with patterns, such as io.kubernetes.pod.namespace: kube-*")
	if ok && len(entries) == 0 {
		s.bad(at(e.val), "annotations is empty: remove it, or name one")
	}
	for _, a := range entries {
		all = append(all, annotation{a.key, s.patterns(a.val, "annotation "+a.key)})
	}
	return all
}

func (s *source) where(e entry, r *rule) {
	entries, ok := s.mapping(e.val, "where", "arguments with patterns, such as path: /etc/**")
	if ok && len(entries) == 0 {
		s.bad(at(e.val), "where is empty: remove it, or name an argument")
	}
	for _, a := range entries {
		if c, ok := s.condition(a, r.calls); ok {
			r.where = append(r.where, c)
		}
	}
}

// do reads an answer.
func (s *source) do(e entry, r *rule) bool {
	text, p, ok := s.text(e.val, e.key, answerForms)
	if !ok {
		return false
	}
	r.do = p
	word, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	rest = strings.TrimSpace(rest)
	none := func() bool {
		if rest != "" {
			s.bad(p, "%s: %s takes nothing, and here is %q", e.key, word, rest)
		}
		return rest == ""
	}
	switch word {
	case "continue":
		return none()
	case "log":
		r.log = true
		return none()
	case "errno", "deny":
		r.kind = fails
		if rest == "" && word == "deny" {
			rest = "EPERM"
		}
		var known bool
		if r.errno, known = Errno(rest); !known {
			if rest == "" {
				s.bad(p, "%s: errno which? name one, such as errno EPERM", e.key)
			} else {
				s.bad(p, "%s: unknown errno %q: want a name such as EPERM (errno(3) has them)", e.key, rest)
			}
			return false
		}
	case "open":
		r.kind = opens
		return none()
	case "inject":
		r.kind = injects
		if r.file = rest; !strings.HasPrefix(rest, "/") {
			s.bad(p, "%s: inject %q: want the file's whole path, as the target sees it: inject /etc/hosts", e.key, rest)
			return false
		}
	case "allow":
		s.bad(p, "%s: allow is written continue, and cannot be chosen by what is in the target's memory: docs/policy.md says why", e.key)
		return false
	default:
		s.bad(p, "%s: unknown answer %q: want %s", e.key, text, answerForms)
		return false
	}
	return true
}

// late gives rules that say nothing of it the file's own, where the engine cannot have it.
func (p *Policy) late(s *source) {
	if p.settings.Late != engine.DropContinue {
		return
	}
	for _, r := range p.all() {
		if r.late == 0 {
			r.late = p.settings.Late
			r.limits, _ = engine.NewLimits(0, r.late)
		}
	}
}

// unreachable refuses rules of which earlier ones leave nothing.
func (p *Policy) unreachable(s *source) {
	for j, r := range p.rules {
		taken := func(call string) *rule {
			for _, q := range p.rules[:j] {
				if (q.calls == nil || call != "" && q.names(call)) && q.covers(r) {
					return q
				}
			}
			return nil
		}
		if r.calls == nil {
			if q := taken(""); q != nil {
				s.bad(r.at, "unreachable: the rule in line %d takes all that this one would: remove this one, or move it up", q.at.line)
			}
			continue
		}
		for _, call := range r.calls {
			if q := taken(call); q != nil {
				s.bad(r.at, "unreachable for %s: the rule in line %d takes all of these calls that this one would: remove it here, or move this rule up", call, q.at.line)
			}
		}
	}
}

// lookedAt refuses to have calls go on because of what a look into the target's memory found, and notes where
// a rule that refuses them by such a look has the rest go on.
func (p *Policy) lookedAt(s *source) {
	for i, r := range p.rules {
		k := slices.IndexFunc(r.where, func(c condition) bool { return c.class.memory() })
		if k < 0 {
			continue
		}
		refused, goesOn := p.after(i)
		arg := r.where[k].arg
		switch {
		case r.kind == continues && !r.log:
			s.bad(r.do, "do: continue by %s: the kernel reads it again after the look, and the target may have changed it by then, so this would let anything through: %s", arg, r.instead())
		case r.kind == continues && refused:
			s.bad(r.do, "do: log by %s, where calls with another one are refused: the kernel reads it again after the look, and the target may have changed it by then, so this would let anything through: %s", arg, r.instead())
		case r.kind == fails && goesOn:
			s.note(r.do, "refused by %s, and other calls continue: the kernel reads it again after the look, and a target that changes it in between gets through. This stops mistakes, and no attacker: docs/policy.md says what does", arg)
		}
	}
}

func (r *rule) instead() string {
	for _, c := range r.calls {
		if !slices.Contains(openers, c) {
			return "deny what must not happen instead"
		}
	}
	return "say do: open, which opens the path that was looked at in the target's place, or deny what must not happen"
}

// after tells whether calls of rule i that it does not match may be refused, and may continue.
func (p *Policy) after(i int) (refused, goesOn bool) {
	calls := p.rules[i].calls
	see := func(q *rule) {
		if q.refuses() {
			refused = true
		} else {
			goesOn = true
		}
	}
	for _, q := range p.rules[i+1:] {
		if q.calls == nil || slices.ContainsFunc(calls, q.names) {
			see(q)
		}
	}
	if p.fallback != nil {
		see(p.fallback)
	}
	return refused, goesOn
}

// cleanPath is a path without . and .. and doubled slashes, by its letters alone.
func cleanPath(p string) string { return path.Clean(p) }

// Name is the file's name, as Parse was told.
func (p *Policy) Name() string { return p.name }

// Settings are the policy's settings of the engine.
func (p *Policy) Settings() *Settings { return &p.settings }

// Calls are the system calls that rules name, sorted.
func (p *Policy) Calls() (names []string) {
	for _, r := range p.rules {
		names = append(names, r.calls...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Trapped are those of Calls that this machine's programs can make, by the names that filters know.
func (p *Policy) Trapped() (names []string) {
	for _, name := range p.Calls() {
		_, err := filter.Number(name)
		var unknown *filter.UnknownError
		if errors.As(err, &unknown) && unknown.Native != "" {
			name, err = unknown.Native, nil
		}
		if err == nil && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// all are the rules and the default, in the order in which they are asked.
func (p *Policy) all() []*rule { return append(slices.Clip(p.rules), p.fallback) }

// Refuses reports whether some call of that name may be kept from going on as it is.
func (p *Policy) Refuses(call string) bool {
	for _, r := range p.all() {
		if r.names(call) && r.refuses() {
			return true
		}
	}
	return false
}

// RefusesAny reports whether some call may be kept from going on as it is.
func (p *Policy) RefusesAny() bool { return slices.ContainsFunc(p.all(), (*rule).refuses) }

// Notes are what is not wrong in the file but may not be what its author expects, a line each, as Parse's errors.
func (p *Policy) Notes() []string { return lines(p.name, p.notes) }

// Rules is how many rules there are, the default not among them.
func (p *Policy) Rules() int { return len(p.rules) }
