//go:build !cgo

package confine

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

// compiler names what compile uses.
func compiler() string { return "its own assembler" }

func compile(rules []Rule, otherwise Action) ([]unix.SockFilter, error) {
	return assemble(rules, otherwise), nil
}

func writePFC(io.Writer, []Rule, Action) error {
	return errors.New("confine: pseudo filter code is libseccomp's, and this build is without cgo: build with cgo, or take the format table or bpf")
}
