package rules

import (
	"slices"

	"github.com/unknot/unknot/engine/agent"
	"github.com/unknot/unknot/engine/filter"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/syscalls"
)

// A view is a policy as the containers see it for which the same rules may match. It is never changed.
type view struct {
	calls [syscalls.ABIs][]*chain // by number
	other *chain                  // of a call that no rule names
}

// A chain is what is asked of a call, in this order. The last step matches always.
type chain struct {
	steps []step
	// parts are the chains of the calls that socketcall(2) or ipc(2) stands for, by its first argument; nil: this one.
	parts []*chain
	mask  uint64 // of that argument
	// direct is the number of the call itself, of a part of socketcall, by which its arguments are decoded; args is how many it has.
	direct int32
	args   int
}

// A step is a rule, bound to the arguments of a call.
type step struct {
	rule      *rule
	registers []bound // conditions
	memory    []bound
	quick     bool // it needs nothing of the target, neither to match nor to answer
}

type bound struct {
	*condition
	arg int // of syscalls.Call.Params
}

// view is the policy for a container.
func (p *Policy) view(st *agent.State) *view {
	key := make([]byte, (len(p.rules)+7)/8)
	for i, r := range p.rules {
		if r.on.match(st) {
			key[i/8] |= 1 << (i % 8)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.views[string(key)]
	if v == nil {
		var rules []*rule
		for i, r := range p.rules {
			if key[i/8]&(1<<(i%8)) != 0 {
				rules = append(rules, r)
			}
		}
		v = newView(append(rules, p.fallback))
		p.views[string(key)] = v
	}
	return v
}

func newView(rules []*rule) *view {
	v := &view{other: &chain{}}
	named := map[string]bool{}
	for _, r := range rules {
		for _, name := range r.calls {
			named[name] = true
		}
		for _, name := range r.twins {
			named[name] = true
		}
		if r.calls == nil {
			v.other.steps = append(v.other.steps, step{rule: r, quick: !r.target()})
		}
	}
	for abi := range syscalls.All {
		for name := range named {
			if nr, ok := abi.Number(name); ok {
				v.set(abi, nr, newChain(rules, abi, nr, name))
			}
		}
		v.multiplexed(rules, abi, named, "socketcall", socketParts[:], 0xffffffff)
		v.multiplexed(rules, abi, named, "ipc", ipcParts[:], 0xffff)
	}
	return v
}

func (v *view) set(abi syscalls.ABI, nr int32, c *chain) {
	_, n, _ := syscalls.ABIOf(abi.Arch(), nr)
	if grow := int(n) + 1 - len(v.calls[abi]); grow > 0 {
		v.calls[abi] = append(v.calls[abi], make([]*chain, grow)...)
	}
	v.calls[abi][n] = c
}

// newChain are the rules for a call of an ABI.
func newChain(rules []*rule, abi syscalls.ABI, nr int32, name string) *chain {
	c := &chain{}
	for _, r := range rules {
		if r.names(name) || !abi.Wide() && slices.Contains(r.twins, name) {
			c.add(r, abi, nr, false)
		}
	}
	return c
}

// add adds a step for r, with its conditions bound to the arguments of the call. inMemory says that all of these are there.
func (c *chain) add(r *rule, abi syscalls.ABI, nr int32, inMemory bool) {
	s := step{rule: r}
	call, _ := syscalls.Decode(&notify.Data{Arch: abi.Arch(), NR: nr})
	for i := range r.where {
		w := &r.where[i]
		arg := slices.IndexFunc(call.Params, func(p syscalls.Param) bool { return p.Name == w.arg })
		switch {
		case arg < 0 && r.kind == fails:
			s.registers, s.memory = nil, nil // what cannot be judged is refused
			s.quick = !r.target()
			c.steps = append(c.steps, s)
			return
		case arg < 0:
			return
		case w.class.memory() || inMemory:
			s.memory = append(s.memory, bound{w, arg})
		default:
			s.registers = append(s.registers, bound{w, arg})
		}
	}
	if inMemory && len(s.memory) > 0 && r.permits {
		return // a register decides for good that a call goes on, memory does not
	}
	s.quick = len(s.memory) == 0 && !r.target()
	c.steps = append(c.steps, s)
}

// A part is a call that a multiplexing one stands for: the name by which rules know it, and the one by which it is decoded.
type part struct {
	name, direct string
	args         int
}

// socketParts are linux/net.h's SYS_SOCKET and so on.
var socketParts = [...]part{
	1: {"socket", "socket", 3}, 2: {"bind", "bind", 3}, 3: {"connect", "connect", 3}, 4: {"listen", "listen", 2}, 5: {"accept", "accept4", 3},
	6: {"getsockname", "getsockname", 3}, 7: {"getpeername", "getpeername", 3}, 8: {"socketpair", "socketpair", 4}, 9: {"sendto", "sendto", 4},
	10: {"recvfrom", "recvfrom", 4}, 11: {"sendto", "sendto", 6}, 12: {"recvfrom", "recvfrom", 6}, 13: {"shutdown", "shutdown", 2},
	14: {"setsockopt", "setsockopt", 5}, 15: {"getsockopt", "getsockopt", 5}, 16: {"sendmsg", "sendmsg", 3}, 17: {"recvmsg", "recvmsg", 3},
	18: {"accept4", "accept4", 4}, 19: {"recvmmsg", "recvmmsg", 5}, 20: {"sendmmsg", "sendmmsg", 4},
}

// ipcParts are linux/ipc.h's SEMOP and so on.
var ipcParts = [...]part{
	1: {name: "semop"}, 2: {name: "semget"}, 3: {name: "semctl"}, 4: {name: "semtimedop"}, 11: {name: "msgsnd"}, 12: {name: "msgrcv"}, 13: {name: "msgget"},
	14: {name: "msgctl"}, 21: {name: "shmat"}, 22: {name: "shmdt"}, 23: {name: "shmget"}, 24: {name: "shmctl"},
}

// multiplexed makes the chains of the calls that one stands for, if rules name some of them.
func (v *view) multiplexed(rules []*rule, abi syscalls.ABI, named map[string]bool, name string, parts []part, mask uint64) {
	nr, ok := abi.Number(name)
	if !ok || !slices.ContainsFunc(parts, func(p part) bool { return named[p.name] }) {
		return
	}
	whole := newChain(rules, abi, nr, name)
	whole.parts, whole.mask = make([]*chain, len(parts)), mask
	for i, p := range parts {
		if !named[p.name] {
			continue
		}
		c := &chain{}
		direct, decoded := abi.Number(p.direct)
		if decoded {
			c.direct, c.args = direct, p.args
		} else {
			direct = -1
		}
		for _, r := range rules {
			if r.names(p.name) || r.names(name) {
				c.add(r, abi, direct, true)
			}
		}
		whole.parts[i] = c
	}
	v.set(abi, nr, whole)
}

// chain is what is asked of a call.
func (v *view) chain(d *notify.Data) *chain {
	abi, nr, ok := syscalls.ABIOf(d.Arch, d.NR)
	if !ok || nr < 0 || int(nr) >= len(v.calls[abi]) || v.calls[abi][nr] == nil {
		return v.other
	}
	c := v.calls[abi][nr]
	if i := d.Args[0] & c.mask; i < uint64(len(c.parts)) && c.parts[i] != nil {
		return c.parts[i]
	}
	return c
}

// next is the first step from i on that matches as far as registers say. There is one.
func (c *chain) next(d *notify.Data, i int) int {
	for c.steps[i].registers != nil && !registersMatch(c.steps[i].registers, d) {
		i++
	}
	return i
}

func registersMatch(conditions []bound, d *notify.Data) bool {
	call, _ := syscalls.Decode(d)
	for i := range conditions {
		if !conditions[i].holds(value(call.At(conditions[i].arg))) {
			return false
		}
	}
	return true
}

func (c *condition) holds(v uint64) bool {
	for i := range c.numbers {
		if c.numbers[i].match(v) {
			return true
		}
	}
	return false
}

// twinsOf are the names that 32-bit programs have for the calls, too.
func twinsOf(calls []string) (twins []string) {
	for _, name := range calls {
		t, _ := filter.Twins(name)
		twins = append(twins, t...)
	}
	slices.Sort(twins)
	return slices.Compact(twins)
}
