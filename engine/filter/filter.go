package filter

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Options of [Compile]. The zero value is right for most.
type Options struct {
	// Refuse32 answers every 32-bit call with ENOSYS instead of trapping the
	// named ones: 32-bit programs do not run at all then.
	Refuse32 bool
}

// ErrNoSyscalls reports an empty list of system calls to trap.
var ErrNoSyscalls = errors.New("no system calls to trap: name at least one")

// An UnknownError says that there is no system call of that name here.
type UnknownError struct {
	Name    string
	Nearest []string // what may have been meant, best first
	Native  string   // Name exists for 32-bit programs only: this one traps it
}

func (e *UnknownError) Error() string {
	switch {
	case e.Native != "":
		return fmt.Sprintf("system call %q exists only for 32-bit programs: name %s, which traps it for them", e.Name, e.Native)
	case len(e.Nearest) > 0:
		return fmt.Sprintf("unknown system call %q: did you mean %s?", e.Name, strings.Join(e.Nearest, " or "))
	}
	return fmt.Sprintf("unknown system call %q: syscalls(2) lists their names", e.Name)
}

// x32Bit marks the numbers of x32 calls, which come under amd64's AUDIT_ARCH.
const x32Bit = 0x40000000

// Number returns the native number of the system call name.
func Number(name string) (int, error) { return number(name) }

// Name returns the name of call nr of the ABI arch (AUDIT_ARCH_*), as a
// notification has them: "openat". A call without a known name is "syscall 9999".
func Name(arch uint32, nr int32) string {
	if name := lookup(arch, nr); name != "" {
		return name
	}
	n := nr
	if arch == unix.AUDIT_ARCH_X86_64 {
		n &^= x32Bit
	}
	for name, number := range newer {
		if int32(number) == n {
			return name
		}
	}
	return fmt.Sprintf("syscall %d", nr)
}

// Twins returns the calls of 32-bit programs that have another name and are
// trapped with the native call name: wait4 traps waitpid.
func Twins(name string) ([]string, error) { return twins(name) }

// Compile makes the program that hands the named calls to a listener and allows
// all others; the package doc says what becomes of other ABIs' calls. A name
// that does not exist is an *[UnknownError].
func Compile(names []string, o Options) ([]unix.SockFilter, error) {
	if len(names) == 0 {
		return nil, ErrNoSyscalls
	}
	return compile(names, o)
}
