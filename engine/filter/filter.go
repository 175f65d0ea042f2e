package filter

import (
	"errors"
	"fmt"
	"strings"

	"github.com/unknot/unknot/engine/syscalls"
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

// Number returns the native number of the system call name. It needs no libseccomp.
func Number(name string) (int, error) { return number(name) }

// Name returns the name of call nr of the ABI arch (AUDIT_ARCH_*), as a
// notification has them: "openat". A call without a known name is "syscall 9999".
// It is [syscalls.Name], with or without cgo, and asks libseccomp for what has no name there.
func Name(arch uint32, nr int32) string {
	if name := syscalls.Name(arch, nr); name != "" {
		return name
	}
	if name := lookup(arch, nr); name != "" {
		return name
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
