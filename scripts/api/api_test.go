package main

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/api.txt anew")

const kept = "../../docs/api.txt"

// TestKept: docs/api.txt is what the library exports. Who changes that writes the text anew, and CHANGELOG.md.
func TestKept(t *testing.T) {
	pkgs, err := packages(false)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, p := range pkgs {
		decls, err := p.exported(amd64)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range decls {
			b.WriteString(strings.TrimPrefix(p.path, root+"/") + ": " + d + "\n")
		}
	}
	if *update {
		if err := os.WriteFile(kept, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(kept)
	if err != nil {
		t.Fatal(err)
	}
	was, is := strings.Split(string(text), "\n"), strings.Split(b.String(), "\n")
	for _, line := range was {
		if !slices.Contains(is, line) {
			t.Errorf("no more: %s", line)
		}
	}
	for _, line := range is {
		if !slices.Contains(was, line) {
			t.Errorf("new: %s", line)
		}
	}
	if t.Failed() {
		t.Log("if that is meant: go test ./scripts/api -update, and say in CHANGELOG.md what users have to do")
	}
}

// TestEverywhere: each build of the library exports the same.
func TestEverywhere(t *testing.T) {
	pkgs, err := packages(false)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pkgs {
		want, err := p.exported(amd64)
		if err != nil {
			t.Fatal(err)
		}
		for _, on := range []platform{{"amd64", false}, {"arm64", true}, {"arm64", false}} {
			got, err := p.exported(on)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range slices.Concat(want, got) {
				if slices.Contains(want, d) != slices.Contains(got, d) {
					t.Errorf("%s: %+v and %+v differ: %s", p.path, amd64, on, d)
				}
			}
		}
	}
}
