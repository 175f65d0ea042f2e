//go:build !cgo

package filter

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/unknot/unknot/engine/syscalls"
	"golang.org/x/sys/unix"
)

var errNoCgo = fmt.Errorf("no libseccomp, because unknot was built without cgo: build with CGO_ENABLED=1, a C compiler and libseccomp's headers: %w", errors.ErrUnsupported)

// Version returns the version of the libseccomp in use.
func Version() (LibVersion, error) { return LibVersion{}, errNoCgo }

// compat is the 32-bit ABI that is trapped with the native one.
func compat() syscalls.ABI {
	if syscalls.Native() == syscalls.ARM64 {
		return syscalls.ARM
	}
	return syscalls.I386
}

var nativeTwin = sync.OnceValue(func() map[string][]string {
	native := func(name string) bool { _, ok := syscalls.Native().Number(name); return ok }
	table := map[string][]string{}
	all := []string{"send", "recv"} // by socketcall
	for _, name := range compat().Names {
		all = append(all, name)
	}
	for _, name := range slices.Compact(slices.Sorted(slices.Values(all))) {
		if t := twinOf(name, native); t != "" && t != name {
			table[t] = append(table[t], name)
		}
	}
	return table
})

func number(name string) (int, error) {
	if nr, ok := syscalls.Native().Number(name); ok {
		return int(nr), nil
	}
	var known []string
	for _, name := range syscalls.Native().Names {
		known = append(known, name)
	}
	return 0, unknown(name, known)
}

func lookup(uint32, int32) string { return "" }

func compile([]string, Options) ([]unix.SockFilter, error) { return nil, errNoCgo }
