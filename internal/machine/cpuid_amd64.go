package machine

import (
	"bytes"
	"encoding/binary"
)

// cpuid is the instruction. It is our own because klauspost/cpuid cuts the blanks at the end of the brand, which
// `go test` prints, and x/sys/cpu does not tell the brand.
func cpuid(leaf uint32) (ax, bx, cx, dx uint32)

// brand is what the CPU calls itself.
func brand() string {
	const first, last = 0x80000002, 0x80000004
	if most, _, _, _ := cpuid(0x80000000); most < last {
		return ""
	}
	var name []byte
	for leaf := uint32(first); leaf <= last; leaf++ {
		ax, bx, cx, dx := cpuid(leaf)
		for _, r := range []uint32{ax, bx, cx, dx} {
			name = binary.LittleEndian.AppendUint32(name, r)
		}
	}
	name, _, _ = bytes.Cut(name, []byte{0})
	return string(bytes.TrimLeft(name, " "))
}
