package machine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, root, name, text string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestEachFactChangesTheFingerprint(t *testing.T) {
	root := t.TempDir()
	files := map[string][2]string{
		"proc/cpuinfo":                                         {"model name\t: A\nflags\t: fpu hypervisor\n", "model name\t: B\nflags\t: fpu hypervisor\n"},
		"proc/cmdline":                                         {"ro quiet\n", "ro mitigations=off\n"},
		"sys/devices/system/cpu/online":                        {"0-1\n", "0-3\n"},
		"sys/devices/system/cpu/smt/control":                   {"on\n", "off\n"},
		"sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": {"performance\n", "powersave\n"},
		"sys/devices/system/cpu/cpuidle/current_driver":        {"none\n", "haltpoll\n"},
		"sys/devices/system/cpu/cpuidle/current_governor_ro":   {"menu\n", "haltpoll\n"},
		"sys/module/haltpoll/parameters/guest_halt_poll_ns":    {"200000\n", "0\n"},
		"sys/devices/system/cpu/vulnerabilities/spectre_v2":    {"Mitigation: IBRS\n", "Vulnerable\n"},
		"sys/hypervisor/type":                                  {"xen\n", "kvm\n"},
	}
	for name, v := range files {
		write(t, root, name, v[0])
	}
	was := Fingerprint(facts(root, nil))
	if again := Fingerprint(facts(root, nil)); again != was {
		t.Fatalf("%s, then %s", was, again)
	}
	for name, v := range files {
		if name == "sys/hypervisor/type" && !strings.Contains(factValue(facts(root, nil), "hypervisor"), "xen") {
			t.Error("the hypervisor is not read")
		}
		write(t, root, name, v[1])
		if Fingerprint(facts(root, nil)) == was {
			t.Errorf("%s does not count", name)
		}
		write(t, root, name, v[0])
	}
	if Fingerprint(facts(root, []Fact{{"libseccomp", "2.6.0"}})) == was {
		t.Error("more facts do not count")
	}
}

// TestNothingPrivateIsPrinted: results are published with their facts.
func TestNothingPrivateIsPrinted(t *testing.T) {
	root := t.TempDir()
	write(t, root, "proc/cmdline", `root=UUID=1234-abcd hostname=secret mitigations=off dyndbg="secret idle=secret" idle=poll -- preempt=secret`+"\n")
	for _, f := range facts(root, nil) {
		for _, private := range []string{"1234-abcd", "secret"} {
			if strings.Contains(f.Value, private) {
				t.Errorf("%s: %q has %q", f.Name, f.Value, private)
			}
		}
	}
	if v := factValue(facts(root, nil), "boot"); v != "mitigations=off idle=poll" {
		t.Errorf("boot: %q", v)
	}
}

func TestBootParams(t *testing.T) {
	for in, want := range map[string]string{
		"":                                    "none",
		"ro quiet root=/dev/sda1 console=tty": "none",
		"ro pti nohz_full=1-3 quiet":          "pti nohz_full=1-3",
		"nohz-full=1 no_kvmclock":             "nohz-full=1 no_kvmclock", // - is _
		"intel_idle.max_cstate=1 processor.max_cstate=1 processors=2": "intel_idle.max_cstate=1 processor.max_cstate=1",
		"idle2=x xidle=y idle.z=1 preempt=full":                       "preempt=full",
	} {
		if got := bootParams(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func factValue(fs []Fact, name string) string {
	for _, f := range fs {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

func TestThisMachine(t *testing.T) {
	fs := Facts()
	if Fingerprint(fs) != Fingerprint(Facts()) {
		t.Error("two readings of one machine differ")
	}
	for _, f := range fs {
		if f.Value == "" || strings.Contains(f.Value, "\n") {
			t.Errorf("%s: %q", f.Name, f.Value)
		}
	}
}
