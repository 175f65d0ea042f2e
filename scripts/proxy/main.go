// Command proxy writes the published modules of this repository as a Go module proxy of files:
//
//	go run ./scripts/proxy -o DIR
//
// so that what a stranger's `go get` and `go install` will do can be tried before anything is published:
//
//	GOPROXY=file://DIR,https://proxy.golang.org GONOSUMDB=github.com/unknot go install github.com/unknot/unknot/cmd/unknot@v0.2.0
//
// The modules are as git would give them: of the commit that -rev names, or of the files that git knows as they stand
// now. Their version is the one that cmd/unknot's go.mod requires.
package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

const root = "github.com/unknot/unknot"

// published are the folders of the modules that are tagged. The others are for this repository alone.
var published = []string{".", "bench", "engine/metrics", "cmd/unknot"}

func main() {
	out := flag.String("o", "", "write the proxy into this `folder`")
	rev := flag.String("rev", "", "of this `commit`, instead of the files as they stand")
	flag.Parse()
	if *out == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	version, err := write(*out, *rev)
	if err != nil {
		fmt.Fprintln(os.Stderr, "proxy:", err)
		os.Exit(1)
	}
	fmt.Println(version)
}

// write writes all modules below dir and returns their version.
func write(dir, rev string) (version string, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	top, err := git("rev-parse", "--show-toplevel")
	if err != nil {
		return "", err
	}
	if err := os.Chdir(top); err != nil { // git archive is of the folder where it runs
		return "", err
	}
	if rev == "" {
		// A commit of the files as they stand, which is on no branch. Of files that were written again as they
		// were, stash would say that they have changed, and then fail, if the index were not refreshed.
		_, _ = git("update-index", "-q", "--refresh")
		if rev, err = git("stash", "create"); err == nil && rev == "" {
			rev = "HEAD"
		}
		if err != nil {
			return "", err
		}
	}
	mod, err := git("show", rev+":cmd/unknot/go.mod")
	if err != nil {
		return "", err
	}
	f, err := modfile.Parse("cmd/unknot/go.mod", []byte(mod), nil)
	if err != nil {
		return "", err
	}
	if len(f.Replace) > 0 {
		return "", errors.New("cmd/unknot/go.mod has a replace, with which go install refuses the command: remove it")
	}
	for _, r := range f.Require {
		if r.Mod.Path != root && !strings.HasPrefix(r.Mod.Path, root+"/") {
			continue
		}
		if version != "" && version != r.Mod.Version {
			return "", fmt.Errorf("cmd/unknot/go.mod requires %s and %s of modules that are released together: make it one version", version, r.Mod.Version)
		}
		version = r.Mod.Version
	}
	if version == "" {
		return "", fmt.Errorf("cmd/unknot/go.mod does not require %s", root)
	}
	all, err := archive(rev)
	if err != nil {
		return "", err
	}
	for _, sub := range published {
		if err := one(dir, rev, sub, version, filesOf(all, sub)); err != nil {
			return "", fmt.Errorf("%s: %w", sub, err)
		}
	}
	return version, nil
}

// one writes the files of one module: list, .info, .mod and .zip.
func one(dir, rev, sub, version string, files []zip.File) error {
	m := module.Version{Path: path.Join(root, sub), Version: version}
	escaped, err := module.EscapePath(m.Path)
	if err != nil {
		return err
	}
	at := filepath.Join(dir, escaped, "@v")
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	mod, err := git("show", rev+":"+path.Join(sub, "go.mod"))
	if err != nil {
		return err
	}
	when, err := git("show", "-s", "--format=%ct", rev)
	if err != nil {
		return err
	}
	var seconds int64
	if _, err := fmt.Sscan(when, &seconds); err != nil {
		return err
	}
	info := fmt.Sprintf("{\"Version\":%q,\"Time\":%q}\n", version, time.Unix(seconds, 0).UTC().Format(time.RFC3339))
	for name, text := range map[string]string{"list": version + "\n", version + ".info": info, version + ".mod": mod + "\n"} {
		if err := os.WriteFile(filepath.Join(at, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	z, err := os.Create(filepath.Join(at, version+".zip"))
	if err != nil {
		return err
	}
	return errors.Join(zip.Create(z, m, files), z.Close())
}

// A file is one of a commit: a zip.File.
type file struct {
	name string
	info fs.FileInfo
	data []byte
}

func (f file) Path() string                 { return f.name }
func (f file) Lstat() (fs.FileInfo, error)  { return f.info, nil }
func (f file) Open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(f.data)), nil }

// archive returns the files of a commit. (zip.CreateFromVCS knows no worktree of git.)
func archive(rev string) (all []file, err error) {
	out, err := exec.Command("git", "archive", "--format=tar", rev).Output()
	if err != nil {
		return nil, fmt.Errorf("git archive %s: %w", rev, err)
	}
	for r := tar.NewReader(bytes.NewReader(out)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag != tar.TypeReg {
			continue // folders, links, and git's comment
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		all = append(all, file{h.Name, h.FileInfo(), data})
	}
}

// filesOf are those that belong to the module in the folder sub: none of a module below. One that has no license has
// the root's, as the go command does it.
func filesOf(all []file, sub string) (files []zip.File) {
	var below []string // folders of modules
	for _, f := range all {
		if d := path.Dir(f.name); path.Base(f.name) == "go.mod" && within(d, sub) && d != sub {
			below = append(below, d)
		}
	}
	var license *file
	for _, f := range all {
		if f.name == "LICENSE" {
			license = &f
		}
		if !within(f.name, sub) || slices.ContainsFunc(below, func(d string) bool { return within(f.name, d) }) {
			continue
		}
		if sub != "." {
			f.name = strings.TrimPrefix(f.name, sub+"/")
		}
		files = append(files, f)
	}
	if license != nil && !slices.ContainsFunc(files, func(f zip.File) bool { return f.Path() == "LICENSE" }) {
		files = append(files, *license)
	}
	return files
}

// within reports whether name is dir or lies below it.
func within(name, dir string) bool {
	return dir == "." || name == dir || strings.HasPrefix(name, dir+"/")
}

func git(args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(said.String()))
	}
	return strings.TrimSpace(string(out)), nil
}
