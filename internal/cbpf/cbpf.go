// Package cbpf names the instructions that seccomp filters here are made of: combinations of x/sys's names for parts of
// opcodes. (x/net/bpf assembles such programs, but would be one more module for who imports the library.)
package cbpf

import "golang.org/x/sys/unix"

// Opcodes of classic BPF (include/uapi/linux/bpf_common.h). A jump's operand is the accumulator.
const (
	Load         = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS  // a word of struct seccomp_data
	And          = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K // with K
	Jump         = unix.BPF_JMP | unix.BPF_JA               // by K
	Equal        = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K // is it K?
	Above        = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K // is it more than K?
	AboveOrEqual = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K // is it K or more?
	Return       = unix.BPF_RET | unix.BPF_K                // K is what becomes of the call
)

// Offsets in struct seccomp_data (include/uapi/linux/seccomp.h). Both architectures are little-endian: the low word of
// an argument comes first.
const (
	NR   = 0
	Arch = 4
	Args = 16 // six of 8 bytes
)
