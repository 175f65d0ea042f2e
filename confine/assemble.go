package confine

import "golang.org/x/sys/unix"

// Classic BPF opcodes (linux/bpf_common.h) and offsets in struct seccomp_data.
const (
	opLoad = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	opAnd  = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	opJump = unix.BPF_JMP | unix.BPF_JA
	opJeq  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	opJge  = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
	opRet  = unix.BPF_RET | unix.BPF_K

	offNR   = 0
	offArch = 4
	offArgs = 16 // low word first: both architectures are little-endian
)

// assemble makes the program of rules without libseccomp: calls in turn, and for
// each its rules in turn. It is what a build without cgo uses, and the second
// opinion in tests of one with.
func assemble(rules []Rule, otherwise Action) []unix.SockFilter {
	ret := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: opRet, K: k} }
	p := []unix.SockFilter{
		{Code: opLoad, K: offArch},
		{Code: opJeq, K: auditArch, Jt: 1},
		ret(unix.SECCOMP_RET_KILL_PROCESS),
		{Code: opLoad, K: offNR},
	}
	if x32Bit != 0 {
		// The number -1 is a call that a tracer took away: no x32 call.
		p = append(p,
			unix.SockFilter{Code: opJge, K: x32Bit, Jf: 2},
			unix.SockFilter{Code: opJeq, K: ^uint32(0), Jt: 1},
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
			unix.SockFilter{Code: opJeq, K: nr, Jt: 1},
			unix.SockFilter{Code: opJump, K: uint32(len(block))}) // a block may be longer than 8 bits
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
			p = append(p, unix.SockFilter{Code: opLoad, K: offArgs + 8*uint32(c.Arg) + 4*word})
			if mask != low32 {
				p = append(p, unix.SockFilter{Code: opAnd, K: mask})
			}
			p = append(p, unix.SockFilter{Code: opJeq, K: value})
		}
	}
	p = append(p, unix.SockFilter{Code: opRet, K: r.ret()})
	for i := range p {
		if p[i].Code == opJeq {
			p[i].Jf = uint8(len(p) - i - 1)
		}
	}
	return p
}
