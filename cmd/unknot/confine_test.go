package main

import (
	"strings"
	"testing"
)

// TestRunConfinesItsReceiveThread has the supervised command look at its
// supervisor, the parent of its guard.
func TestRunConfinesItsReceiveThread(t *testing.T) {
	const look = `read -r _ _ _ supervisor _ </proc/$PPID/stat
	for t in /proc/$supervisor/task/*; do
		grep -q '^Seccomp:.*2' $t/status && echo "$(cat $t/comm) $(ls $t/fd | wc -l)"
	done; exit 0`
	for _, c := range []struct {
		args  []string
		out   string // of the look; a prefix
		noted bool
	}{
		{nil, "unknot-receive 6\n", false},
		{[]string{"--confine=private"}, "unknot-receive 6\n", false},
		{[]string{"--confine=shared"}, "unknot-receive ", false},
		{[]string{"--confine=off"}, "", true},
	} {
		o := result(t, unknot(t, append(append([]string{"run"}, c.args...), "--", "sh", "-c", look)...))
		if o.code != 0 || !strings.HasPrefix(o.stdout, c.out) || c.out == "" && o.stdout != "" {
			t.Errorf("%v: status %d, confined %q, want %q\n%s", c.args, o.code, o.stdout, c.out, o.stderr)
		}
		if strings.Contains(o.stderr, "NOT CONFINED") != c.noted {
			t.Errorf("%v: %s", c.args, o.stderr)
		}
	}
}

func TestBenchConfines(t *testing.T) {
	o := result(t, unknot(t, "bench", "--engine", "unknot,bare", "--path", "inline", "--targets", "1", "--duration", "20ms", "--count", "1", "--confine", "private,shared,off"))
	if o.code != 0 || !strings.Contains(o.stderr, "NOT CONFINED") {
		t.Errorf("status %d\n%s", o.code, o.stderr)
	}
	for name, n := range map[string]int{"engine=unknot/": 3, "engine=bare/": 1, "/confine=private-": 1, "/confine=shared-": 1} {
		if got := strings.Count(o.stdout, name); got != n {
			t.Errorf("%d lines with %s, want %d\n%s", got, name, n, o.stdout)
		}
	}
}

func TestDoctorSaysWhyNothingIsConfined(t *testing.T) {
	_, stdout, _ := asProcess(t, "without-seccomp", "doctor", "--format", "json")
	_, checks := parseReport(t, stdout)
	if c := checks["confinement"]; c.OK || !strings.Contains(c.Detail, "seccomp filter") || !strings.Contains(c.Remedy, "--confine=off") {
		t.Errorf("%+v", c)
	}
}
