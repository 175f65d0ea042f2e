package notify

import (
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

// childRefused probes every feature in a process in which a call fails.
func childRefused(c *testchild.Conn, args []string) error {
	nr, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	e, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	if err := testchild.Refuse(map[int]syscall.Errno{nr: syscall.Errno(e)}); err != nil {
		return err
	}
	for _, f := range Features() {
		if err := c.Say("%v", f.Probe()); err != nil {
			return err
		}
	}
	return nil
}

// TestRefusedFeatures: what a container's profile refuses is not the kernel's
// age, the call is named, and no probe waits for ever.
func TestRefusedFeatures(t *testing.T) {
	const eperm = "operation not permitted"
	for _, r := range []struct {
		name   string
		call   int
		err    syscall.Errno
		says   string
		spares []*Feature // that do not need the call
	}{
		{"seccomp", unix.SYS_SECCOMP, unix.EPERM, "seccomp(2): " + eperm, nil},
		{"no seccomp", unix.SYS_SECCOMP, unix.ENOSYS, "seccomp(2): function not implemented", nil},
		{"prctl", unix.SYS_PRCTL, unix.EPERM, "prctl(PR_SET_NO_NEW_PRIVS): " + eperm, []*Feature{FeatureNotify, FeatureTSyncListener, FeatureWaitKillable}},
		{"ioctl", unix.SYS_IOCTL, unix.EPERM, eperm, []*Feature{FeatureNotify, FeatureTSyncListener, FeatureWaitKillable}},
	} {
		t.Run(r.name, func(t *testing.T) {
			c := testchild.Start(t, "refused", strconv.Itoa(r.call), strconv.Itoa(int(r.err)))
			for _, f := range Features() {
				got := c.MustHear()
				switch {
				case f.Probe() != nil: // what an older kernel lacks it lacks in any case
				case slices.Contains(r.spares, f):
					if got != "<nil>" {
						t.Errorf("%s: %s", f.Name, got)
					}
				case !strings.Contains(got, r.says) || !strings.Contains(got, "container's seccomp profile") || strings.Contains(got, "needs Linux"):
					t.Errorf("%q does not say %q", got, r.says)
				}
			}
		})
	}
}
