//go:build !cgo

package filter

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWithoutCgoEveryEntrySaysSo(t *testing.T) {
	_, compile := Compile([]string{"openat"}, Options{})
	_, number := Number("openat")
	_, twins := Twins("mmap")
	_, version := Version()
	for name, err := range map[string]error{"Compile": compile, "Number": number, "Twins": twins, "Version": version} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for nr, want := range map[int32]string{257: "syscall 257", int32(unix.SYS_MSEAL): "mseal"} {
		if got := Name(unix.AUDIT_ARCH_X86_64, nr); got != want {
			t.Errorf("Name(%d) = %q, want %q", nr, got, want)
		}
	}
}
