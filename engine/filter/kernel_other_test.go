//go:build cgo && !amd64

package filter

import (
	"errors"
	"testing"
)

func int80(uint32) (int, error) { return 0, errors.ErrUnsupported }

// foreign: a 64-bit arm program cannot make 32-bit calls.
func foreign(*testing.T) []made { return nil }
