package filter

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// call is what a filter sees of a system call, struct seccomp_data.
type call struct {
	nr   uint32
	arch uint32
	args [6]uint64
}

func (c call) word(off uint32) (uint32, error) {
	switch {
	case off == 0:
		return c.nr, nil
	case off == 4:
		return c.arch, nil
	case off >= 16 && off < 64 && off%4 == 0:
		return uint32(c.args[(off-16)/8] >> (8 * (off % 8))), nil
	}
	return 0, fmt.Errorf("load at %d", off)
}

// interpret runs a classic BPF program as the kernel would and returns its
// verdict. It knows the instructions that libseccomp emits and refuses others.
func interpret(prog []unix.SockFilter, c call) (uint32, error) {
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
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			w, err := c.word(in.K)
			if err != nil {
				return 0, fmt.Errorf("%d: %w", pc, err)
			}
			a = w
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			a &= in.K
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(in.K)
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			jump(a == in.K)
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			jump(a > in.K)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			jump(a >= in.K)
		case unix.BPF_RET | unix.BPF_K:
			return in.K, nil
		default:
			return 0, fmt.Errorf("%d: instruction %#x", pc, in.Code)
		}
	}
	return 0, fmt.Errorf("ran over the end")
}
