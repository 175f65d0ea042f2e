//go:build !cgo

package bench

import (
	"errors"
	"fmt"
)

func newChan(Spec) (Supervisor, error) {
	return nil, fmt.Errorf("engine chan needs libseccomp: build with cgo (CGO_ENABLED=1) and libseccomp's headers: %w", errors.ErrUnsupported)
}
