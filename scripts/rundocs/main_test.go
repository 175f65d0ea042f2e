package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	for name, c := range map[string]struct{ doc, want string }{
		"no commands":        {"text\n", ""},
		"output as written":  {"<!-- run -->\n```console\n$ echo a; echo b >&2\na\nb\n```\n", ""},
		"other output":       {"<!-- run -->\n```console\n$ echo a\nb\n```\n", "it printed:\na"},
		"more output":        {"<!-- run -->\n```console\n$ echo a; echo b\na\n```\n", "it printed:"},
		"less output":        {"<!-- run -->\n```console\n$ echo a\na\nb\n```\n", "it printed:"},
		"free output":        {"<!-- run -->\n```console\n$ echo a\n```\n", ""},
		"part of a line":     {"<!-- run -->\n```console\n$ echo took 12.5ms in all\ntook …ms in all\n```\n", ""},
		"any lines":          {"<!-- run -->\n```console\n$ seq 5\n1\n…\n5\n```\n", ""},
		"any lines, no end":  {"<!-- run -->\n```console\n$ seq 5\n1\n…\n6\n```\n", "it printed:"},
		"a failure":          {"<!-- run -->\n```console\n$ exit 3\n```\n", "exit status 3, want 0"},
		"an early failure":   {"<!-- run -->\n```console\n$ false; true\n```\n", "exit status 1, want 0"},
		"expected failure":   {"<!-- run: exit 3 -->\n```console\n$ exit 3\n```\n", ""},
		"no failure":         {"<!-- run: exit 3 -->\n```console\n$ true\n```\n", "exit status 0, want 3"},
		"not run":            {"<!-- not run: breaks things -->\n```console\n$ exit 3\n```\n", ""},
		"not run, no reason": {"<!-- not run: -->\n```console\n$ true\n```\n", "mark the block"},
		"not marked":         {"```console\n$ true\n```\n", "mark the block"},
		"marked from afar":   {"<!-- run -->\ntext\n```console\n$ true\n```\n", "mark the block"},
		"other blocks":       {"```go\n$ exit 3\n```\n", ""},
		"no command":         {"<!-- run -->\n```console\ntrue\n```\n", "must start with a command"},
		"never ends":         {"<!-- run -->\n```console\n$ true\n", "does not end"},
		"continued":          {"<!-- run -->\n```console\n$ echo a \\\n    b\na b\n```\n", ""},
		"second of two":      {"<!-- run -->\n```console\n$ echo a\na\n$ echo b\na\n```\n", "doc.md:5: $ echo b"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "doc.md")
			if err := os.WriteFile(file, []byte(c.doc), 0o600); err != nil {
				t.Fatal(err)
			}
			err := run([]string{file}, io.Discard)
			if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
