//go:build !cgo

package filter

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWithoutCgoEveryEntrySaysSo(t *testing.T) {
	_, compile := Compile([]string{"openat"}, Options{})
	_, version := Version()
	for name, err := range map[string]error{"Compile": compile, "Version": version} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Names and numbers need no libseccomp: a handler that decides by name must not let everything through.
func TestNamesWithoutCgo(t *testing.T) {
	for nr, want := range map[int32]string{257: "openat", 83: "mkdir", 462: "mseal", 9999: "syscall 9999"} {
		if got := Name(unix.AUDIT_ARCH_X86_64, nr); got != want {
			t.Errorf("Name(%d) = %q, want %q", nr, got, want)
		}
	}
	if nr, err := Number("openat"); nr != unix.SYS_OPENAT || err != nil {
		t.Errorf("openat: %d, %v", nr, err)
	}
	var unknown *UnknownError
	if _, err := Number("openatt"); !errors.As(err, &unknown) || !slices.Contains(unknown.Nearest, "openat") {
		t.Errorf("openatt: %v", err)
	}
	if _, err := Number("waitpid"); !errors.As(err, &unknown) || unknown.Native != "wait4" {
		t.Errorf("waitpid: %v", err)
	}
	if twins, err := Twins("wait4"); err != nil || !slices.Contains(twins, "waitpid") {
		t.Errorf("wait4: %v, %v", twins, err)
	}
}
