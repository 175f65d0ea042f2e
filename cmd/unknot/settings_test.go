package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unknot/unknot/engine"
)

// FuzzSettings: whatever a settings file of run holds, it is refused as wrong usage that names the file or the setting, or an engine can be made of it.
func FuzzSettings(f *testing.F) {
	for _, s := range []string{"", "trap: [openat]\nformat: json\nqueue: 16\n", "queues: 5\n", "queue: 1e99\n", "queue: [1]\n", "wait-target: 1ms\npace: 5ms\npath: queue\n", "wait_target: 1ms\n",
		"drop-errno: EINTR,read=EAGAIN\n", "cpu: 0\n", "default: continue\nrules:\n- calls: openat\n  do: errno EPERM\nqueue: 7\n", "---\nqueue: 1\n---\nqueue: 2\n", "a: &a [*a]\n", "{{", "\xff", "quiet: yes\n", "queue: !!binary x\n"} {
		f.Add([]byte(s))
	}
	path := filepath.Join(f.TempDir(), "settings.yaml")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		s := defaultRunSettings()
		err := s.load(path, newRunCmd())
		var cfg engine.Config
		if err == nil {
			cfg, err = s.engineConfig()
		}
		if err != nil {
			var exit *exitError
			if !errors.As(err, &exit) || exit.Code != 2 || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "%!") && !strings.Contains(string(text), "%") {
				t.Fatalf("%v", err)
			}
			return
		}
		if _, err := engine.New(cfg); err != nil {
			t.Fatalf("settings that are taken: %v", err)
		}
	})
}
