//go:build cgo

package filter

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

// childRefused runs childCompiles where libseccomp cannot ask the kernel what
// it has, as it does once in each process, at the start.
func childRefused(c *testchild.Conn, _ []string) error {
	if err := testchild.Refuse(map[int]syscall.Errno{unix.SYS_SECCOMP: unix.EPERM}); err != nil {
		return err
	}
	conn, err := c.File()
	if err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "UNKNOT_TEST_CHILD=compiles")
	cmd.ExtraFiles = []*os.File{conn}
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

func childCompiles(c *testchild.Conn, _ []string) error {
	var unknown *UnknownError
	if _, err := Compile([]string{"nonsense"}, Options{}); !errors.As(err, &unknown) {
		return c.Say("a name that does not exist: %v", err)
	}
	_, err := Compile([]string{"openat", "connect"}, Options{})
	return c.Say("%v, %t", err, errors.Is(err, errors.ErrUnsupported))
}

// TestRefusedSeccomp: libseccomp's own words would be about the rules.
func TestRefusedSeccomp(t *testing.T) {
	got := testchild.Start(t, "refused").MustHear()
	if !strings.Contains(got, "seccomp(2)") || !strings.Contains(got, "container's seccomp profile") || !strings.HasSuffix(got, ", true") || strings.Contains(got, "argument") {
		t.Errorf("%q", got)
	}
}
