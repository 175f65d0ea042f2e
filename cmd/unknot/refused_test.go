package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

// refusing begins a mode of asProcess in which calls are refused, as under a
// container's seccomp profile: "refusing 272=1 444=38", by number and errno.
const refusing = "refusing"

// mainRefused is the command under such a profile.
func mainRefused(mode string) {
	answers := map[int]syscall.Errno{}
	for _, word := range strings.Fields(mode)[1:] {
		var nr, e int
		if _, err := fmt.Sscanf(word, "%d=%d", &nr, &e); err != nil {
			fmt.Fprintln(os.Stderr, word, err)
			os.Exit(99)
		}
		answers[nr] = syscall.Errno(e)
	}
	err := testchild.Refuse(answers)
	if err == nil {
		// libseccomp asks the kernel once, at the start of a process.
		os.Setenv("UNKNOT_TEST_MAIN", "plain")
		err = syscall.Exec("/proc/self/exe", os.Args, os.Environ())
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(99)
}

func refused(answers ...any) string {
	mode := refusing
	for i := 0; i < len(answers); i += 2 {
		mode += fmt.Sprintf(" %d=%d", answers[i], answers[i+1])
	}
	return mode
}

// TestRunUnderAProfile: the command runs, or one line names the call that is
// refused and the way out. What is missing is said once, and not if --quiet.
func TestRunUnderAProfile(t *testing.T) {
	const (
		out      = "--confine=best runs without what is refused, --confine=off without any"
		without  = "unknot: the receive thread is confined without "
		orphans  = "unknot: processes that outlive their parent are not killed when unknot dies: prctl(PR_SET_CHILD_SUBREAPER): operation not permitted"
		files    = "a file table of its own (unshare(2): operation not permitted)"
		landlock = "landlock (landlock_create_ruleset(2): operation not permitted)"
		privs    = "no_new_privs (prctl(PR_SET_NO_NEW_PRIVS): operation not permitted)"
	)
	if _, _, plain := asProcess(t, "plain", "run", "-o", "/dev/null", "--", "true"); plain != "" {
		t.Skip("something is missing here anyway: ", plain)
	}
	type line []string // what one line of standard error contains
	for _, c := range []struct {
		mode  string
		flags string
		runs  bool
		lines []line
	}{
		{refused(unix.SYS_UNSHARE, unix.EPERM), "", false, []line{{"unshare(2): operation not permitted", out}}},
		{refused(unix.SYS_UNSHARE, unix.EPERM), "--confine=shared", false, []line{{"unshare(2): operation not permitted", out}}},
		{refused(unix.SYS_UNSHARE, unix.EPERM), "--confine=best", true, []line{{without + files}}},
		{refused(unix.SYS_UNSHARE, unix.EPERM), "--confine=best --quiet", true, nil},
		{refused(unix.SYS_LANDLOCK_CREATE_RULESET, unix.EPERM), "", false, []line{{"landlock_create_ruleset(2): operation not permitted", out}}},
		{refused(unix.SYS_LANDLOCK_CREATE_RULESET, unix.EPERM), "--confine=best", true, []line{{without + landlock}}},
		{refused(unix.SYS_LANDLOCK_CREATE_RULESET, unix.ENOSYS), "", true, []line{{without + "landlock (landlock_create_ruleset(2): function not implemented)"}}},
		{refused(unix.SYS_LANDLOCK_CREATE_RULESET, unix.ENOSYS), "--quiet", true, nil},
		{refused(unix.SYS_CLOSE_RANGE, unix.EPERM), "", true, nil},
		{refused(unix.SYS_CLOSE_RANGE, unix.ENOSYS), "", true, nil},
		{refused(unix.SYS_SECCOMP, unix.EPERM), "", false, []line{{"seccomp(2): operation not permitted", "container's seccomp profile"}}},
		{refused(unix.SYS_SECCOMP, unix.ENOSYS), "--confine=off", false, []line{{"seccomp(2): function not implemented", "container's seccomp profile"}}},
		{refused(unix.SYS_IOCTL, unix.EPERM), "", false, []line{{"ioctl(2): operation not permitted"}}},
		{refused(unix.SYS_PRCTL, unix.EPERM), "", false, []line{{"prctl(PR_SET_NO_NEW_PRIVS): operation not permitted", out}}},
		{refused(unix.SYS_PRCTL, unix.EPERM), "--confine=best", true, []line{{without + privs}, {orphans}}},
		{refused(unix.SYS_PRCTL, unix.EPERM), "--confine=best --on-death=leave", true, []line{{without + privs}}},
		{refused(unix.SYS_PRCTL, unix.EPERM), "--confine=off", true, []line{{"NOT CONFINED"}, {orphans}}},
		{refused(unix.SYS_PRCTL, unix.EPERM, unix.SYS_UNSHARE, unix.EPERM, unix.SYS_LANDLOCK_CREATE_RULESET, unix.EPERM, unix.SYS_CLOSE_RANGE, unix.EPERM), "--confine=best", true,
			[]line{{without + privs + ", " + files + ", " + landlock}, {orphans}}},
	} {
		t.Run(c.mode+c.flags, func(t *testing.T) {
			t.Parallel()
			args := append(append([]string{"run", "-o", "/dev/null"}, strings.Fields(c.flags)...), "--", "sh", "-c", "cat /dev/null; echo hi")
			code, stdout, stderr := asProcess(t, c.mode, args...)
			want, status := "hi\n", 0
			if !c.runs {
				want, status = "", 1
			}
			if code != status || stdout != want {
				t.Errorf("status %d, output %q; want %d, %q", code, stdout, status, want)
			}
			lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
			if stderr == "" {
				lines = nil
			}
			if len(lines) != len(c.lines) {
				t.Fatalf("%d lines, want %d:\n%s", len(lines), len(c.lines), stderr)
			}
			for i, l := range lines {
				for _, s := range c.lines[i] {
					if !strings.Contains(l, s) {
						t.Errorf("%q lacks %q", l, s)
					}
				}
				for _, s := range []string{"needs Linux", "--trap", "socket"} {
					if strings.Contains(l, s) {
						t.Errorf("%q blames %q", l, s)
					}
				}
			}
		})
	}
}

// TestBenchUnderAProfile: a bench, whose engines come and go in one process,
// goes on too, and says once what is missing.
func TestBenchUnderAProfile(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := asProcess(t, refused(unix.SYS_UNSHARE, unix.EPERM), "bench", "--engine", "unknot", "--targets", "1", "--duration", "20ms", "--count", "2", "--trace", "off", "--confine", "best")
	if n := strings.Count(stdout, "/confine=best-"); code != 0 || n != 4 {
		t.Errorf("status %d, %d results\n%s%s", code, n, stdout, stderr)
	}
	if n := strings.Count(stderr, "is confined without"); n != 1 {
		t.Errorf("said %d times:\n%s", n, stderr)
	}
	code, _, stderr = asProcess(t, refused(unix.SYS_UNSHARE, unix.EPERM), "bench", "--engine", "unknot", "--targets", "1", "--duration", "20ms", "--count", "1", "--trace", "off")
	if code != 1 || !strings.Contains(stderr, "unshare(2)") || !strings.Contains(stderr, "--confine=best") {
		t.Errorf("status %d\n%s", code, stderr)
	}
}

// TestDoctorUnderAProfile: doctor's remedies are about the profile.
func TestDoctorUnderAProfile(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mode, row, says string
	}{
		{refused(unix.SYS_SECCOMP, unix.EPERM), "libseccomp", "seccomp(2)"},
		{refused(unix.SYS_SECCOMP, unix.EPERM), "seccomp user notification", "seccomp(2)"},
		{refused(unix.SYS_UNSHARE, unix.EPERM), "confinement", "--confine=best"},
		{refused(unix.SYS_LANDLOCK_CREATE_RULESET, unix.ENOSYS), "landlock", "profile"},
	} {
		_, stdout, _ := asProcess(t, c.mode, "doctor", "--format", "json")
		_, checks := parseReport(t, stdout)
		if got := checks[c.row]; got.OK || !strings.Contains(got.Remedy, c.says) {
			t.Errorf("%s: %+v does not say %q", c.mode, got, c.says)
		}
	}
}
