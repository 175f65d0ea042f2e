package syscalls

import (
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// An ABI is a way to make system calls, with numbers of its own.
type ABI uint8

const (
	AMD64 ABI = iota
	X32       // of amd64 with 32-bit pointers: AUDIT_ARCH_X86_64 with a bit in the number
	I386
	ARM64
	ARM

	ABIs // how many there are
)

// X32Bit marks the numbers of x32 calls (__X32_SYSCALL_BIT), which come under amd64's AUDIT_ARCH.
const X32Bit = 0x40000000

// Native is the ABI of this program.
func Native() ABI { return native }

var native = map[string]ABI{"amd64": AMD64, "arm64": ARM64, "386": I386, "arm": ARM}[runtime.GOARCH]

var tables = [ABIs][]string{AMD64: amd64[:], X32: x32[:], I386: i386[:], ARM64: arm64[:], ARM: arm[:]}

// ABIOf is the ABI of call nr under arch (AUDIT_ARCH_*), and the number without what marks x32; ok is false if
// the architecture has no table here.
func ABIOf(arch uint32, nr int32) (a ABI, number int32, ok bool) {
	switch arch {
	case unix.AUDIT_ARCH_X86_64:
		if nr > 0 && nr&X32Bit != 0 { // -1 has the bit, and is what a tracer may leave there
			return X32, nr &^ X32Bit, true
		}
		return AMD64, nr, true
	case unix.AUDIT_ARCH_I386:
		return I386, nr, true
	case unix.AUDIT_ARCH_AARCH64:
		return ARM64, nr, true
	case unix.AUDIT_ARCH_ARM:
		return ARM, nr, true
	}
	return 0, nr, false
}

// Arch is AUDIT_ARCH_* of the ABI's calls.
func (a ABI) Arch() uint32 {
	return [ABIs]uint32{unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_AARCH64, unix.AUDIT_ARCH_ARM}[a]
}

func (a ABI) String() string { return [ABIs]string{"amd64", "x32", "i386", "arm64", "arm"}[a] }

// Wide reports whether registers have 64 bits.
func (a ABI) Wide() bool { return a == AMD64 || a == ARM64 || a == X32 }

// Name is the name of call nr of the ABI arch (AUDIT_ARCH_*), as a notification has them; "" if it has none.
// It allocates nothing.
func Name(arch uint32, nr int32) string {
	a, nr, ok := ABIOf(arch, nr)
	if !ok || nr < 0 || int(nr) >= len(tables[a]) {
		return ""
	}
	return tables[a][nr]
}

var numbers = sync.OnceValue(func() (m [ABIs]map[string]int32) {
	for a, t := range tables {
		m[a] = make(map[string]int32, len(t))
		for nr, name := range t {
			if name != "" {
				m[a][name] = int32(nr)
			}
		}
	}
	return m
})

// Number is the number of a call in the ABI, as a notification has it: x32's with [X32Bit].
func (a ABI) Number(name string) (nr int32, ok bool) {
	nr, ok = numbers()[a][name]
	if ok && a == X32 {
		nr |= X32Bit
	}
	return nr, ok
}

// Names yields the ABI's calls by number.
func (a ABI) Names(yield func(nr int32, name string) bool) {
	for nr, name := range tables[a] {
		if a == X32 {
			nr |= X32Bit
		}
		if name != "" && !yield(int32(nr), name) {
			return
		}
	}
}

// All are the ABIs that have a table.
func All(yield func(ABI) bool) {
	for a := range ABIs {
		if !yield(a) {
			return
		}
	}
}
