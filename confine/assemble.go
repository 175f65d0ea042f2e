package confine

import (
	"github.com/unknot/unknot/internal/cbpf"
	"golang.org/x/sys/unix"
)

// assemble makes the program of rules without libseccomp: calls in turn, and for
// each its rules in turn. It is what a build without cgo uses, and the second
// opinion in tests of one with.
func assemble(rules []Rule, otherwise Action) []unix.SockFilter {
	ret := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: cbpf.Return, K: k} }
	p := []unix.SockFilter{
		{Code: cbpf.Load, K: cbpf.Arch},
		{Code: cbpf.Equal, K: auditArch, Jt: 1},
		ret(unix.SECCOMP_RET_KILL_PROCESS),
		{Code: cbpf.Load, K: cbpf.NR},
	}
	if x32Bit != 0 {
		// The number -1 is a call that a tracer took away: no x32 call.
		p = append(p,
			unix.SockFilter{Code: cbpf.AboveOrEqual, K: x32Bit, Jf: 2},
			unix.SockFilter{Code: cbpf.Equal, K: ^uint32(0), Jt: 1},
			ret(unix.SECCOMP_RET_KILL_PROCESS))
	}
	var order []uint32
	byNR := map[uint32][]Rule{}
	for _, r := range rules {
		nr, ok := r.nr()
		if !ok {
			continue
		}
		if byNR[nr] == nil {
			order = append(order, nr)
		}
		byNR[nr] = append(byNR[nr], r)
	}
	for _, nr := range order {
		var block []unix.SockFilter
		for _, r := range byNR[nr] {
			block = append(block, r.assemble()...)
		}
		block = append(block, ret(otherwise.ret()))
		p = append(p,
			unix.SockFilter{Code: cbpf.Equal, K: nr, Jt: 1},
			unix.SockFilter{Code: cbpf.Jump, K: uint32(len(block))}) // a block may be longer than 8 bits
		p = append(p, block...)
	}
	return append(p, ret(otherwise.ret()))
}

// assemble tests the conditions, returns the rule's action if all hold, and
// else falls through to what follows.
func (r *Rule) assemble() (p []unix.SockFilter) {
	for _, c := range r.When {
		for word := range uint32(2) {
			mask, value := uint32(c.Mask>>(32*word)), uint32(c.Value>>(32*word))
			if mask == 0 {
				continue
			}
			p = append(p, unix.SockFilter{Code: cbpf.Load, K: cbpf.Args + 8*uint32(c.Arg) + 4*word})
			if mask != low32 {
				p = append(p, unix.SockFilter{Code: cbpf.And, K: mask})
			}
			p = append(p, unix.SockFilter{Code: cbpf.Equal, K: value})
		}
	}
	p = append(p, unix.SockFilter{Code: cbpf.Return, K: r.ret()})
	for i := range p {
		if p[i].Code == cbpf.Equal {
			p[i].Jf = uint8(len(p) - i - 1)
		}
	}
	return p
}
