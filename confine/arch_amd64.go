package confine

import "golang.org/x/sys/unix"

const (
	auditArch = unix.AUDIT_ARCH_X86_64
	// x32Bit marks the numbers of x32 calls, which come under the same AUDIT_ARCH.
	x32Bit = 0x40000000
)

// legacyNumbers are calls that younger architectures do not have.
var legacyNumbers = map[string]uint32{
	"open": unix.SYS_OPEN, "creat": unix.SYS_CREAT, "stat": unix.SYS_STAT, "lstat": unix.SYS_LSTAT,
	"access": unix.SYS_ACCESS, "readlink": unix.SYS_READLINK,
}
