package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "page:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout io.Writer) error {
	if len(args) != 1 {
		return errors.New("which results? page RESULTS, the directory that has one for each kind of machine")
	}
	files, err := render(args[0])
	if err != nil {
		return err
	}
	// Nothing is written unless all of it could be made.
	for _, f := range files {
		path := filepath.Join(args[0], f.name)
		if err := os.WriteFile(path, f.data, 0o644); err != nil {
			return err
		}
		fmt.Fprintln(stdout, path)
	}
	return nil
}

// A file is one to write, its name relative to the results.
type file struct {
	name string
	data []byte
}

// render makes the page and its figures of the results in dir.
func render(dir string) ([]file, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []file
	var sets []*set
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		name, err := newest(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		if name == "" {
			continue // first impressions only
		}
		s, err := load(dir, e.Name(), name)
		if err != nil {
			return nil, err
		}
		sets = append(sets, s)
		for _, f := range figures {
			if s.steps[f.step] == nil {
				continue
			}
			svg, err := f.draw(s)
			if err != nil {
				return nil, fmt.Errorf("%s: figure %s: %w", s.path(".txt"), f.step, err)
			}
			files = append(files, file{filepath.Join(s.machine, f.step+".svg"), svg})
		}
	}
	if len(sets) == 0 {
		return nil, fmt.Errorf("%s: no results in it (MACHINE/DATE-COMMIT.txt): make results measures some", dir)
	}
	page, err := page(sets)
	if err != nil {
		return nil, err
	}
	return append(files, file{"README.md", page}), nil
}

// newest names the newest results of a directory, without .txt, or nothing. The
// names begin with the date; of one day the last written is the newest.
func newest(dir string) (string, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "[0-9]*-*.txt"))
	if err != nil {
		return "", err
	}
	type dated struct {
		name, date string
	}
	var all []dated
	for _, p := range paths {
		name := strings.TrimSuffix(filepath.Base(p), ".txt")
		// The date within, to the second, orders those of one day.
		b, err := os.ReadFile(p)
		if err != nil {
			return "", err
		}
		date, _ := comment(string(b), "date")
		all = append(all, dated{name, date})
	}
	if len(all) == 0 {
		return "", nil
	}
	return slices.MaxFunc(all, func(a, b dated) int {
		return strings.Compare(a.date+a.name, b.date+b.name)
	}).name, nil
}
