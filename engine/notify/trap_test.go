package notify

import (
	"errors"
	"slices"
	"testing"

	"github.com/unknot/unknot/internal/testbpf"
	"golang.org/x/sys/unix"
)

func TestTrapProgramOnEveryNumber(t *testing.T) {
	const enosys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	var many []int
	for i := range 200 {
		many = append(many, 2*i)
	}
	for _, nrs := range [][]int{{0}, {unix.SYS_GETPPID}, {5, 3, 5, 4, 3}, {x32Bit - 1}, many, append(slices.Clone(many), many...)} {
		prog, err := TrapProgram(nrs...)
		if err != nil {
			t.Fatal(err)
		}
		for nr := range uint32(1024) {
			for _, nr := range []uint32{nr, x32Bit - 1 - nr, nr | x32Bit, ^nr} {
				for _, arch := range []uint32{nativeArch, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_ARM, 0, ^uint32(0)} {
					want := uint32(unix.SECCOMP_RET_ALLOW)
					switch {
					case arch != nativeArch || nr >= x32Bit:
						want = enosys
					case slices.Contains(nrs, int(nr)):
						want = unix.SECCOMP_RET_USER_NOTIF
					}
					got, err := testbpf.Run(prog, testbpf.Call{NR: nr, Arch: arch})
					if err != nil || got != want {
						t.Fatalf("%d numbers: call %#x of %#x: %#x, %v; want %#x", len(nrs), nr, arch, got, err, want)
					}
				}
			}
		}
	}
	if _, err := TrapProgram(); !errors.Is(err, ErrNoSyscalls) {
		t.Error(err)
	}
	for _, nrs := range [][]int{{-1}, {5, x32Bit}, append(many, 1)} {
		if p, err := TrapProgram(nrs...); err == nil || p != nil {
			t.Errorf("%d numbers: %d instructions, %v", len(nrs), len(p), err)
		}
	}
}
