package target

import "golang.org/x/sys/unix"

// x32Bit marks the system call numbers of x32, whose architecture is amd64's (__X32_SYSCALL_BIT).
const x32Bit = 0x40000000

// PointerSize is the size of a pointer in the target's memory by the trapped call's ABI: 4 for i386, x32, 32-bit
// ARM and the like, else 8.
func (t Target) PointerSize() int {
	const is64 = 0x80000000 // __AUDIT_ARCH_64BIT
	if t.arch&is64 == 0 || t.arch == unix.AUDIT_ARCH_X86_64 && t.nr&x32Bit != 0 {
		return 4
	}
	return 8
}

// address is an argument as the address that it is by the trapped call's ABI: of 32 bits, or without the tag
// that arm64 allows in the top byte.
func (t Target) address(arg uint64) uint64 {
	switch {
	case t.PointerSize() == 4:
		return uint64(uint32(arg))
	case t.arch == unix.AUDIT_ARCH_AARCH64 && arg>>55&1 == 0:
		return arg & (1<<56 - 1)
	}
	return arg
}
