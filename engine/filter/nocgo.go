//go:build !cgo

package filter

import (
	"errors"
	"fmt"
)

var errNoCgo = fmt.Errorf("unknot was built without cgo, so it has no libseccomp: build with CGO_ENABLED=1, a C compiler and libseccomp's headers (make deps): %w", errors.ErrUnsupported)

// Version returns the version of the libseccomp in use.
func Version() (LibVersion, error) { return LibVersion{}, errNoCgo }
