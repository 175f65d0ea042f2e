package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/unknot/unknot/internal/mono"
	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

// parseReport is how a script reads the JSON report.
func parseReport(t *testing.T, s string) (ok bool, checks map[string]check) {
	t.Helper()
	var r struct {
		OK     bool
		Checks []check
	}
	dec := json.NewDecoder(strings.NewReader(s))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		t.Fatalf("%v in\n%s", err, s)
	}
	checks = map[string]check{}
	for _, c := range r.Checks {
		checks[c.Name] = c
	}
	return r.OK, checks
}

func TestDoctorHere(t *testing.T) {
	code, stdout, stderr := inProcess("doctor", "--format", "json")
	ok, checks := parseReport(t, stdout)
	if ok != (code == 0) || ok != (stderr == "") {
		t.Errorf("ok is %t, status %d, errors %q", ok, code, stderr)
	}
	for _, name := range []string{"kernel", "privileges", "seccomp user notification", "answer by continuing the call", "ADDFD", "ADDFD with answer",
		"WAIT_KILLABLE_RECV", "SYNC_WAKE_UP", "TSYNC_ESRCH", "landlock", "confinement", "BTF", "system call tracepoints", "BPF permission", "tracefs", "libseccomp", "clock", "CPU placement"} {
		c, there := checks[name]
		if !there {
			t.Errorf("no check %q", name)
		}
		if !c.OK && (c.Remedy == "" || c.Detail == "") {
			t.Errorf("%s is not ok, but there is no reason or no remedy: %+v", name, c)
		}
	}
	_, text, _ := inProcess("doctor")
	for name, c := range checks {
		if !strings.Contains(text, name) || !strings.Contains(text, c.Remedy) {
			t.Errorf("the text lacks %q or its remedy:\n%s", name, text)
		}
	}
}

// TestDoctorWithoutSeccomp runs it where seccomp(2) is not there.
func TestDoctorWithoutSeccomp(t *testing.T) {
	code, stdout, stderr := asProcess(t, "without-seccomp", "doctor", "--format", "json")
	ok, checks := parseReport(t, stdout)
	if code != 1 || ok {
		t.Errorf("status %d, ok %t", code, ok)
	}
	const want = "unknot: the main job cannot run here: no seccomp user notification, no answer by continuing the call"
	if !strings.HasPrefix(stderr, want) || strings.Count(stderr, "\n") != 1 {
		t.Errorf("errors %q, want %q", stderr, want)
	}
	for _, name := range []string{"seccomp user notification", "answer by continuing the call", "WAIT_KILLABLE_RECV", "ADDFD"} {
		if c := checks[name]; c.OK || !strings.Contains(c.Remedy, "CONFIG_SECCOMP_FILTER") {
			t.Errorf("%+v", c)
		}
	}
	if c := checks["BTF"]; c.OK != fileIsThere(btfPath) {
		t.Errorf("%+v", c)
	}
	code, stdout, _ = asProcess(t, "without-seccomp", "doctor")
	if code != 1 || !strings.Contains(stdout, "NO  seccomp user notification") || !strings.Contains(stdout, "(needed)") {
		t.Errorf("status %d:\n%s", code, stdout)
	}
}

func TestDoctorSaysByWhichClock(t *testing.T) {
	for _, c := range []struct {
		source string
		err    error
		ok     bool
		says   string
	}{
		{mono.Counter, nil, true, "counter"},
		{"kvm-clock", nil, false, "its clock source is kvm-clock"},
		{"", errors.New("no sysfs here"), false, "no sysfs here"},
	} {
		if mono.Counter == "" {
			c.ok, c.says = true, "no counter is read"
		}
		got := checkClock(c.source, c.err)
		if !strings.Contains(got.Detail, c.says) || got.OK != c.ok || c.ok != (got.Remedy == "") {
			t.Errorf("%q, %v: %+v", c.source, c.err, got)
		}
	}
}

func fileIsThere(path string) bool { return unix.Access(path, unix.R_OK) == nil }

func TestReport(t *testing.T) {
	checks := []check{
		{Name: "one", OK: true, Required: true, Detail: "fine"},
		{Name: "second", Detail: "odd", Remedy: "do this"},
	}
	var b bytes.Buffer
	if err := doctorReport(&b, "text", checks); err != nil {
		t.Error(err)
	}
	const want = "ok  one     fine\nno  second  odd\n            remedy: do this\n"
	if b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
	checks[1].Required = true
	b.Reset()
	if err := doctorReport(&b, "text", checks); err == nil || err.Error() != "the main job cannot run here: no second (the remedies are in the report)" {
		t.Error(err)
	}
	if !strings.Contains(b.String(), "NO  second  odd (needed)\n") {
		t.Errorf("%q", b.String())
	}
}

func TestRemedies(t *testing.T) {
	for err, want := range map[error]string{
		unix.EBUSY:                            "another supervisor",
		unix.EPERM:                            "container's seccomp profile",
		fmt.Errorf("install: %w", unix.EPERM): "container's seccomp profile",
		unix.ENOSYS:                           "CONFIG_SECCOMP_FILTER",
		unix.EINVAL:                           "use Linux 99.6 or newer",
	} {
		if got := remedy(err, "99.6"); !strings.Contains(got, want) {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
	// A kernel is not called old that is not.
	if got := remedy(unix.EINVAL, "4.14"); strings.Contains(got, "use Linux") {
		t.Error(got)
	}
}

func TestDoctorLooksAtCPUMasks(t *testing.T) {
	cpus := osthread.Allowed()
	if len(cpus) < 2 {
		t.Skip("with one CPU nobody can be kept off it")
	}
	// A child inherits this thread's mask.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	last := cpus[len(cpus)-1]
	for _, c := range []struct {
		child, ours []int
		ok          bool
		says        string
	}{
		{[]int{last}, cpus, true, "so may all 1 threads"},
		{[]int{cpus[0]}, cpus, true, "it goes to them"},
		{[]int{cpus[0]}, []int{last}, false, "defeats SYNC_WAKE_UP"},
	} {
		if err := osthread.Allow(0, c.child...); err != nil {
			t.Fatal(err)
		}
		child := exec.Command("sleep", "60")
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		if err := osthread.Allow(0, c.ours...); err != nil {
			t.Fatal(err)
		}
		got := checkPlacement(child.Process.Pid)
		_ = child.Process.Kill()
		_ = child.Wait()
		if got.OK != c.ok || !strings.Contains(got.Detail, c.says) || got.OK == strings.Contains(got.Remedy, "taskset") {
			t.Errorf("child on CPUs %v, we on %v: %+v", c.child, c.ours, got)
		}
		if got := checkPlacement(child.Process.Pid); got.OK || got.Remedy == "" {
			t.Errorf("child that is gone: %+v", got)
		}
	}
	if err := osthread.Unpin(cpus); err != nil {
		t.Fatal(err)
	}
}
