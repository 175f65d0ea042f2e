//go:build !cgo

package confine

import "golang.org/x/sys/unix"

// compiler names what compile uses.
func compiler() string { return "its own assembler" }

func compile(rules []Rule, otherwise Action) ([]unix.SockFilter, error) {
	return assemble(rules, otherwise), nil
}
