//go:build !amd64

package confine

import (
	"errors"

	"github.com/unknot/unknot/internal/testchild"
)

var archViolations []violation

func childInt80(*testchild.Conn, []string) error { return errors.ErrUnsupported }
