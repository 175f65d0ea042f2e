// Package wholefile writes files that are either complete or as they were before,
// also after a crash: what is new is written beside the file, synced, renamed over
// it, and the directory is synced.
//
// Who looks at a file afterwards sees what opening it for writing would have left:
//
//   - A new file has the mode that the umask, or the directory's default ACL, says.
//   - One that is replaced keeps its mode, owner, group and extended attributes, ACLs
//     among them. What cannot be kept is refused, as is a file that this user may not
//     write; the file is then as it was.
//   - A symbolic link stays one: what it leads to is written, whether that exists or not.
//   - What is no regular file, such as /dev/null or a directory, is never replaced.
//
// Of a file with several names (hard links) only the one given is replaced; the
// others go on leading to the old contents.
//
// No function here is meant for a file that two programs write at once: the last one
// wins, whole. The functions may be called from several goroutines.
package wholefile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Errors of Check and Write that are no system call's. They may be wrapped.
var (
	ErrDirectory  = errors.New("is a directory; name a file")
	ErrNotRegular = errors.New("is not a file; name a file")
)

// Check returns the error that Write would fail with now, short of the disk being
// full, and leaves nothing behind. It is for programs that work for long before
// they write.
func Check(path string) error {
	t, err := begin(path)
	if err != nil {
		return err
	}
	t.discard()
	return nil
}

// Write makes b the contents of the file. Its errors do not name the path, unless
// they are about another one: the directory, or the file that a link leads to.
func Write(path string, b []byte) error {
	t, err := begin(path)
	if err != nil {
		return err
	}
	if _, err := t.f.Write(b); err != nil {
		t.discard()
		return bare(err)
	}
	return t.replace()
}

// A temporary is the file that will take the place of another, with all but its
// contents.
type temporary struct {
	f    *os.File
	path string // whose place it takes: no link
}

// begin creates the file's successor beside it.
func begin(path string) (*temporary, error) {
	if path == "" {
		return nil, fs.ErrInvalid
	}
	path, err := follow(path)
	if err != nil {
		return nil, err
	}
	old, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		old = nil
	case err != nil:
		return nil, bare(err)
	case old.IsDir():
		return nil, ErrDirectory
	case !old.Mode().IsRegular():
		return nil, ErrNotRegular
	}
	if old != nil {
		// A rename would not ask.
		if err := unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK, unix.AT_EACCESS); err != nil {
			return nil, fmt.Errorf("%w; make it writable, or name another", err)
		}
	}
	f, err := create(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("cannot write into %s: %w", filepath.Dir(path), bare(err))
	}
	t := &temporary{f, path}
	if old != nil {
		if err := t.inherit(old); err != nil {
			t.discard()
			return nil, err
		}
	}
	return t, nil
}

// counter makes the names of this process unlike each other.
var counter atomic.Uint64

// maxLinks is as many as the kernel follows (MAXSYMLINKS).
const maxLinks = 40

// follow returns where links lead, the last of them perhaps nowhere yet.
func follow(path string) (string, error) {
	for range maxLinks {
		to, err := os.Readlink(path)
		if err != nil {
			return path, nil // no link, or nothing there: whoever opens it will tell
		}
		if !filepath.IsAbs(to) {
			// By the directory's own path, or ".." would undo a link instead.
			dir, err := filepath.EvalSymlinks(filepath.Dir(path))
			if err != nil {
				return "", bare(err)
			}
			to = dir + "/" + to
		}
		path = to
	}
	return "", unix.ELOOP
}

// create is os.CreateTemp with the mode that open gives a new file: the umask's, or
// that of the directory's default ACL.
func create(dir string) (*os.File, error) {
	for try := 0; ; try++ {
		name := filepath.Join(dir, fmt.Sprintf(".unknot-%d-%d", os.Getpid(), counter.Add(1)))
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if err == nil || !errors.Is(err, fs.ErrExist) || try == 10000 {
			return f, err
		}
	}
}

// inherit has t look like the file that it is to replace.
func (t *temporary) inherit(old fs.FileInfo) error {
	now, err := t.f.Stat()
	if err != nil {
		return bare(err)
	}
	want, have := old.Sys().(*syscall.Stat_t), now.Sys().(*syscall.Stat_t)
	// Closed to everybody until the ACL and the owner are right.
	if err := t.f.Chmod(0); err != nil {
		return bare(err)
	}
	if want.Uid != have.Uid || want.Gid != have.Gid {
		if err := t.f.Chown(int(want.Uid), int(want.Gid)); err != nil {
			return fmt.Errorf("belongs to user %d and group %d, which a file that replaces it cannot (%w); remove it, or name another", want.Uid, want.Gid, bare(err))
		}
	}
	if err := t.inheritAttributes(); err != nil {
		return err
	}
	// Last: a change of owner takes set-user-ID away. By number, as an fs.FileMode has other bits.
	if err := unix.Fchmod(int(t.f.Fd()), want.Mode&0o7777); err != nil {
		return fmt.Errorf("keep its mode: %w", err)
	}
	return nil
}

// aclAttribute is where Linux keeps the ACL that says who may open a file.
const aclAttribute = "system.posix_acl_access"

// inheritAttributes copies the extended attributes. That some cannot be, such as a
// security module's own, is no matter, but for the ACL: without it the mode's group
// bits would say what its mask said.
func (t *temporary) inheritAttributes() error {
	fd := int(t.f.Fd())
	names, err := attributes(t.path)
	if err != nil {
		return nil // none: the file system has no such thing
	}
	acl := false
	for _, name := range names {
		value, err := attribute(t.path, name)
		if err == nil {
			err = unix.Fsetxattr(fd, name, value, 0)
		}
		if name == aclAttribute {
			if acl = true; err != nil {
				return fmt.Errorf("keep its ACL: %w; remove it, or name another", err)
			}
		}
	}
	if acl {
		return nil
	}
	// The one that the directory's default gave the new file.
	if err := unix.Fremovexattr(fd, aclAttribute); err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("keep it without an ACL: %w", err)
	}
	return nil
}

// attributes names those of a file.
func attributes(path string) (names []string, err error) {
	b, err := grow(func(b []byte) (int, error) { return unix.Llistxattr(path, b) })
	for name := range bytes.SplitSeq(b, []byte{0}) {
		if len(name) > 0 {
			names = append(names, string(name))
		}
	}
	return names, err
}

func attribute(path, name string) ([]byte, error) {
	return grow(func(b []byte) (int, error) { return unix.Lgetxattr(path, name, b) })
}

// grow calls a function that says how much room it wants, until it has that.
func grow(get func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := get(nil)
		if n == 0 || err != nil {
			return nil, err
		}
		b := make([]byte, n)
		if n, err = get(b); !errors.Is(err, unix.ERANGE) {
			return b[:max(n, 0)], err
		}
	}
}

// replace puts t in its place.
func (t *temporary) replace() error {
	// Or a crash may leave the name with nothing behind.
	if err := t.f.Sync(); err != nil {
		t.discard()
		return bare(err)
	}
	if err := t.f.Close(); err != nil {
		_ = os.Remove(t.f.Name())
		return bare(err)
	}
	if err := os.Rename(t.f.Name(), t.path); err != nil {
		_ = os.Remove(t.f.Name())
		return bare(err)
	}
	return syncDirectory(filepath.Dir(t.path))
}

func (t *temporary) discard() {
	_ = t.f.Close()
	_ = os.Remove(t.f.Name())
}

// syncDirectory makes a rename last. Some file systems cannot sync a directory, and
// some directories cannot be read; the file is whole there all the same.
func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrPermission) {
		return nil
	} else if err != nil {
		return bare(err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("sync %s: %w", dir, bare(err))
	}
	return nil
}

// bare is the error without the name of our temporary file, which nobody knows.
func bare(err error) error {
	var call *fs.PathError
	if errors.As(err, &call) {
		return call.Err
	}
	var link *os.LinkError
	if errors.As(err, &link) {
		return link.Err
	}
	return err
}
