package syscalls

import (
	"strings"
	"testing"

	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// FuzzDecode: whatever a target's registers are, what is known of the call can be shown, and each argument asked for.
func FuzzDecode(f *testing.F) {
	for _, arch := range []uint32{notify.NativeArch, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_ARM, unix.AUDIT_ARCH_AARCH64, 0} {
		for _, nr := range []int32{0, 39, 59, 257, 1<<30 | 257, -1} {
			f.Add(arch, nr, uint64(1), ^uint64(0), uint64(1)<<63, uint64(0), ^uint64(99), uint64(1)<<32)
		}
	}
	f.Fuzz(func(t *testing.T, arch uint32, nr int32, a0, a1, a2, a3, a4, a5 uint64) {
		c, ok := Decode(&notify.Data{Arch: arch, NR: nr, Args: [6]uint64{a0, a1, a2, a3, a4, a5}})
		if !ok {
			return
		}
		if s := c.String(); s == "" || strings.Contains(s, "%!") {
			t.Errorf("call %d of %#x is %q", nr, arch, s)
		}
		for i, p := range c.Params {
			if a := c.At(i); a.Name != p.Name || c.Arg(p.Name).Name != p.Name || c.First(p.Kind).Kind != p.Kind {
				t.Errorf("call %d of %#x: argument %d is %+v", nr, arch, i, a)
			}
		}
	})
}
