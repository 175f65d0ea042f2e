//go:build cgo

package filter

import (
	"fmt"
	"testing"

	"github.com/unknot/unknot/internal/callabi"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

func int80(nr uint32) (int, error) { return int(callabi.Int80(nr, 0, 0, 0)), nil }

// foreign are calls by the other ABIs of amd64.
func foreign(t *testing.T) []made {
	enosys := fmt.Sprint(-int(unix.ENOSYS))
	x32 := []made{
		{say: "x32 110", want: enosys}, // getppid
		{say: "x32 39", want: enosys},  // getpid, which is not named
		{say: "x32 462", want: enosys}, // mseal
	}
	if err := testchild.Start(t, "int80").Cmd.Wait(); err != nil {
		t.Logf("no i386 calls: this kernel runs no 32-bit programs (ia32_emulation): int $0x80 ended with %v", err)
		return x32
	}
	return append(x32,
		made{"int80 64", unix.AUDIT_ARCH_I386, 64, "4242"},   // getppid
		made{"int80 462", unix.AUDIT_ARCH_I386, 462, "4242"}, // mseal
		made{"int80 265", unix.AUDIT_ARCH_I386, 265, "4242"}, // clock_gettime
		made{"int80 403", unix.AUDIT_ARCH_I386, 403, "4242"}, // clock_gettime64, its twin
		made{say: "int80 100000", want: enosys},
	)
}
