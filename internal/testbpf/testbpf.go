// Package testbpf runs seccomp filters in user space, so that tests can ask for
// the verdict on every number of every ABI.
package testbpf

import (
	"fmt"

	"github.com/unknot/unknot/internal/cbpf"
	"golang.org/x/sys/unix"
)

// A Call is what a filter sees of a system call (struct seccomp_data).
type Call struct {
	NR   uint32
	Arch uint32
	Args [6]uint64
}

func (c Call) word(off uint32) (uint32, error) {
	switch {
	case off == 0:
		return c.NR, nil
	case off == 4:
		return c.Arch, nil
	case off >= 16 && off < 64 && off%4 == 0:
		return uint32(c.Args[(off-16)/8] >> (8 * (off % 8))), nil
	}
	return 0, fmt.Errorf("load at %d", off)
}

// Run runs a classic BPF program as the kernel would and returns its
// verdict. It knows the instructions that filters are made of here and refuses
// others.
func Run(prog []unix.SockFilter, c Call) (uint32, error) {
	var a uint32
	for pc := 0; pc < len(prog); pc++ {
		in := prog[pc]
		jump := func(yes bool) {
			if yes {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		}
		switch in.Code {
		case cbpf.Load:
			w, err := c.word(in.K)
			if err != nil {
				return 0, fmt.Errorf("%d: %w", pc, err)
			}
			a = w
		case cbpf.And:
			a &= in.K
		case cbpf.Jump:
			pc += int(in.K)
		case cbpf.Equal:
			jump(a == in.K)
		case cbpf.Above:
			jump(a > in.K)
		case cbpf.AboveOrEqual:
			jump(a >= in.K)
		case cbpf.Return:
			return in.K, nil
		default:
			return 0, fmt.Errorf("%d: instruction %#x", pc, in.Code)
		}
	}
	return 0, fmt.Errorf("ran over the end")
}
