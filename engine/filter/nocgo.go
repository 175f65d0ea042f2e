//go:build !cgo

package filter

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

var errNoCgo = fmt.Errorf("no libseccomp, because unknot was built without cgo: build with CGO_ENABLED=1, a C compiler and libseccomp's headers: %w", errors.ErrUnsupported)

// Version returns the version of the libseccomp in use.
func Version() (LibVersion, error) { return LibVersion{}, errNoCgo }

func number(string) (int, error)     { return 0, errNoCgo }
func twins(string) ([]string, error) { return nil, errNoCgo }
func lookup(uint32, int32) string    { return "" }

func compile([]string, Options) ([]unix.SockFilter, error) { return nil, errNoCgo }
