package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The units of examples/serve are what systemd takes, and say what serve has.
func TestUnits(t *testing.T) {
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
