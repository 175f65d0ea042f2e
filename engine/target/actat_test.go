package target

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSplitLast(t *testing.T) {
	for path, want := range map[string][2]string{
		"a": {".", "a"}, "a/": {".", "a/"}, "a//": {".", "a//"}, "/a": {"/", "a"}, "/": {"/", "."}, "//": {"//", "."}, "a/b": {"a/", "b"},
		"a//b/": {"a//", "b/"}, "/a/..": {"/a/", ".."}, ".": {".", "."},
	} {
		if dir, name := splitLast(path); dir != want[0] || name != want[1] {
			t.Errorf("%q: %q, %q", path, dir, name)
		}
	}
}

// What is made belongs to the target, where it may make it, by its umask.
func TestActAt(t *testing.T) {
	dir := tree(t)
	var prepare []string
	owner := os.Geteuid()
	if owner == 0 {
		needRoot(t)
		owner = otherUser
		prepare = []string{"user=" + strconv.Itoa(otherUser)}
	}
	g := startTarget(t, prepare...)
	g.tell("chdir %s/own", dir)
	sub, _ := strconv.Atoi(g.tell("open-dir %s/own", dir))
	target := g.call()
	ids, err := target.IDs()
	if err != nil {
		t.Fatal(err)
	}
	mkdir := func(dirfd int, path string) error {
		return target.ActAt(dirfd, path, func(dir int, name string) error { return unix.Mkdirat(dir, name, 0o777) })
	}
	for _, c := range []struct {
		dirfd int
		path  string
		made  string
		want  any
	}{
		{unix.AT_FDCWD, "relative", "own/relative", nil},
		{unix.AT_FDCWD, "slash/", "own/slash", nil},
		{unix.AT_FDCWD, dir + "/own/absolute", "own/absolute", nil},
		{sub, "by-descriptor", "own/by-descriptor", nil},
		{sub, "../own/above", "own/above", nil},
		{unix.AT_FDCWD, "relative", "", unix.EEXIST},
		{unix.AT_FDCWD, "relative/..", "", unix.EEXIST},
		{unix.AT_FDCWD, "/", "", unix.EEXIST},
		{unix.AT_FDCWD, "", "", unix.ENOENT},
		{unix.AT_FDCWD, "nothing/new", "", unix.ENOENT},
		{unix.AT_FDCWD, "file/new", "", unix.ENOTDIR},
		{99, "new", "", unix.EBADF},
		{unix.AT_FDCWD, "/proc/self/new", "", ErrMagicLink},
		{unix.AT_FDCWD, "/proc/1/new", "", ErrOpener},
	} {
		err := mkdir(c.dirfd, c.path)
		switch want := c.want.(type) {
		case syscall.Errno:
			wantErrno(t, c.path, err, want, false)
			continue
		case error:
			if !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", c.path, err, want)
			}
			continue
		}
		fi, serr := os.Stat(filepath.Join(dir, c.made))
		if err != nil || serr != nil {
			t.Errorf("%s: %v, %v", c.path, err, serr)
			continue
		}
		if st := fi.Sys().(*syscall.Stat_t); int(st.Uid) != owner || fi.Mode().Perm() != os.FileMode(0o777&^ids.Umask) {
			t.Errorf("%s: of user %d, mode %v", c.path, st.Uid, fi.Mode())
		}
	}
	if os.Geteuid() == 0 {
		wantErrno(t, "root's directory", mkdir(unix.AT_FDCWD, dir+"/dir/new"), unix.EACCES, false)
		wantErrno(t, "root's secret", mkdir(unix.AT_FDCWD, dir+"/closed/new"), unix.EACCES, false)
	}
	// A link as the last entry is itself.
	if err := os.Symlink("relative", dir+"/own/to"); err != nil {
		t.Fatal(err)
	}
	unlink := func(dir int, name string) error { return unix.Unlinkat(dir, name, 0) }
	if err := target.ActAt(unix.AT_FDCWD, "to", unlink); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(dir + "/own/to"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := os.Stat(dir + "/own/relative"); err != nil {
		t.Error(err)
	}
}
