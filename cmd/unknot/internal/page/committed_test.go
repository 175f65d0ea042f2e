package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestCommittedPageIsFresh: results/README.md is what its files say.
func TestCommittedPageIsFresh(t *testing.T) {
	const dir = "../../../../results"
	files, err := render(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.name))
		if err != nil {
			t.Error(err)
		} else if f.name == "README.md" && string(b) != string(f.data) {
			t.Errorf("%s is not what the results say: run make results-page", f.name)
		}
	}
	// Published files must say nothing of where they were made.
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	private := regexp.MustCompile(`/(home|root|tmp|work|Users)/|\b(root=|BOOT_IMAGE|--)\w`)
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), "local-") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for l := range strings.Lines(string(b)) {
			if strings.HasPrefix(l, "# command: ") || !strings.HasPrefix(l, "# ") {
				continue
			}
			if m := private.FindString(l); m != "" {
				t.Errorf("%s has %q: %s", path, m, l)
			}
			if len(host) > 3 && strings.Contains(l, host) {
				t.Errorf("%s names this host: %s", path, l)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
