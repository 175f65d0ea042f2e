package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// The units of examples/serve are what systemd takes, and say what serve has.
func TestUnits(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed: ", err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const installed = "/usr/local/bin/unknot"
	dir := t.TempDir()
	var units []string
	for _, name := range []string{"unknot.service", "unknot.socket"} {
		text, err := os.ReadFile("../../examples/serve/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if name == "unknot.service" {
			checkFlags(t, string(text))
		}
		// It wants programs that are there.
		units = append(units, filepath.Join(dir, name))
		if err := os.WriteFile(units[len(units)-1], []byte(strings.ReplaceAll(string(text), installed, exe)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(analyze, append([]string{"verify"}, units...)...).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// checkFlags checks that each option in the unit is one of serve's.
func checkFlags(t *testing.T, unit string) {
	flags := newServeCmd().Flags()
	n := 0
	for word := range strings.FieldsSeq(unit) {
		if name, ok := strings.CutPrefix(strings.Trim(word, "()."), "--"); ok {
			if n++; flags.Lookup(name) == nil {
				t.Errorf("the unit has --%s, which serve has not", name)
			}
		}
	}
	if n < 5 {
		t.Errorf("the unit has %d options", n)
	}
}

// The daemon of examples/fleet has serve's options, and its policy is one.
func TestFleetIsChecked(t *testing.T) {
	text, err := os.ReadFile("../../examples/fleet/daemonset.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var policy string
	var args []string
	for doc := range bytes.SplitSeq(text, []byte("\n---\n")) {
		var m struct {
			Kind string
			Data map[string]string
			Spec struct {
				Template struct {
					Spec struct{ Containers []struct{ Args []string } }
				}
			}
		}
		if err := yaml.Unmarshal(doc, &m); err != nil {
			t.Fatal(err)
		}
		switch m.Kind {
		case "ConfigMap":
			policy = m.Data["policy.yaml"]
		case "DaemonSet":
			args = m.Spec.Template.Spec.Containers[0].Args
		}
	}
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(policy), 0o644); err != nil {
		t.Fatal(err)
	}
	found := false
	for i, a := range args {
		if strings.HasPrefix(a, "--config=") {
			args[i], found = "--config="+file, true
		}
	}
	code, stdout, stderr := inProcess(append(args, "--check")...)
	if want := file + ": 2 rules for connect, execve, execveat, mknod, mknodat; default continue\n"; !found || code != 0 || stdout != want || stderr != "" {
		t.Errorf("unknot %v: exit status %d: %s%s", args, code, stdout, stderr)
	}
}
