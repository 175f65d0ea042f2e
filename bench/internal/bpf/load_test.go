package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// cilium/ebpf takes a refused experiment for a kernel that lacks the feature.
func TestExplainRefusedExperiment(t *testing.T) {
	err := Explain("load programs", MinKernel, fmt.Errorf("map create: %w", ebpf.ErrNotSupported))
	want := errors.ErrUnsupported
	if missingPrivileges() != "" {
		want = fs.ErrPermission
	}
	if !errors.Is(err, want) {
		t.Errorf("%v, want %v", err, want)
	}
}

func TestExplain(t *testing.T) {
	for _, c := range []struct {
		err     error
		is      error
		mention string
	}{
		{unix.EPERM, fs.ErrPermission, ""},
		{&ebpf.VerifierError{Cause: unix.EACCES}, errors.ErrUnsupported, MinKernel},
		{unix.ENOMEM, errors.ErrUnsupported, "MaxInFlight"},
		{unix.ENOSYS, errors.ErrUnsupported, "bpf(2)"},
		{unix.EINVAL, errors.ErrUnsupported, MinKernel},
	} {
		err := Explain("load programs", MinKernel, fmt.Errorf("wrapped: %w", c.err))
		if strings.Contains(err.Error(), "rlimit") {
			t.Errorf("%v: %v", c.err, err)
		}
		if errors.Is(err, fs.ErrPermission) != (c.is == fs.ErrPermission) {
			t.Errorf("%v: a matter of privilege: %v", c.err, err)
		}
		var refused *ebpf.VerifierError
		if errors.Is(err, c.err) == errors.As(c.err, &refused) {
			t.Errorf("%v can be found, which only a refused program's may not: %v", c.err, err)
		}
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.mention) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: %v", c.err, err)
		}
	}
}
