// Package unixsocket makes the sockets of daemons: a path that is dead is taken over, one that lives is not.
package unixsocket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// MaxPath is what a socket's path may have: sun_path of struct sockaddr_un, less its final zero.
const MaxPath = 107

// ErrLive says that another process listens at the path.
var ErrLive = errors.New("another process listens there: stop it, hand over from it, or choose another path")

// Listen makes a socket of that network ("unix" or "unixpacket") at path that only mode's users can connect to, from its first moment on. A socket
// that is there and that nobody listens to is replaced. Closing the listener leaves the path there.
func Listen(network, path string, mode fs.FileMode) (*net.UnixListener, error) {
	if err := Check(path); err != nil {
		return nil, err
	}
	if mode&^0o777 != 0 {
		return nil, fmt.Errorf("socket %q: mode %#o is not within 0777", path, uint32(mode))
	}
	unlock, err := lockDir(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("socket %q: %w", path, err)
	}
	defer unlock()
	if err := vacate(network, path); err != nil {
		return nil, fmt.Errorf("socket %q: %w", path, err)
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		// The kernel gives the file the mode of the unbound socket, less the umask.
		cerr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), uint32(mode)) })
		return errors.Join(cerr, err)
	}}
	l, err := lc.Listen(context.Background(), network, path)
	if err != nil {
		return nil, fmt.Errorf("socket %q: %w", path, err)
	}
	ul := l.(*net.UnixListener)
	ul.SetUnlinkOnClose(false) // the path may be a successor's by then
	if fi, err := os.Lstat(path); err == nil && fi.Mode().Perm() != mode {
		err = os.Chmod(path, mode) // what the umask took
		if err != nil {
			_ = ul.Close()
			_ = os.Remove(path)
			return nil, fmt.Errorf("socket %q: %w", path, err)
		}
	}
	return ul, nil
}

// Replace makes a socket of that network at path that only mode's users can connect to, in the place of whatever was there. Closing
// the listener leaves the path there.
func Replace(network, path string, mode fs.FileMode) (*net.UnixListener, error) {
	fresh := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := Check(fresh); err != nil {
		return nil, err
	}
	_ = os.Remove(fresh)
	l, err := Listen(network, fresh, mode)
	if err != nil {
		return nil, err
	}
	unlock, err := lockDir(filepath.Dir(path))
	if err == nil {
		err = os.Rename(fresh, path)
		unlock()
	}
	if err != nil {
		_ = l.Close()
		_ = os.Remove(fresh)
		return nil, fmt.Errorf("socket %q: %w", path, err)
	}
	return l, nil
}

// A File is the socket that a listener made at a path.
type File struct {
	path string
	is   os.FileInfo
}

// Own is the socket at path, which the caller has just made.
func Own(path string) File {
	is, _ := os.Lstat(path)
	return File{path, is}
}

// Remove removes the path, unless it is another socket's by now, and reports whether it did. The listener has to be
// open still: the inode of one that is closed can be a successor's.
func (f File) Remove() bool {
	if f.is == nil {
		return false
	}
	// Without the lock, a successor could replace the socket between the comparison and the removal.
	if unlock, err := lockDir(filepath.Dir(f.path)); err == nil {
		defer unlock()
	}
	fi, err := os.Lstat(f.path)
	return err == nil && os.SameFile(fi, f.is) && os.Remove(f.path) == nil
}

// Check reports what keeps path from being a socket's.
func Check(path string) error {
	switch {
	case path == "":
		return errors.New("no path for the socket")
	case path[0] == '@':
		return fmt.Errorf("socket %q: no mode protects an abstract name: use a path", path)
	case strings.IndexByte(path, 0) >= 0:
		return fmt.Errorf("socket %q: a path has no zero byte", path)
	case len(path) > MaxPath:
		return fmt.Errorf("socket %q: a path of %d bytes is too long for a socket, which takes %d: use a shorter directory", path, len(path), MaxPath)
	}
	return nil
}

// lockDir keeps others from replacing a socket in dir at the same time.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil, errors.Is(err, unix.ENOLCK), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL): // file systems without locks
			return func() { _ = f.Close() }, nil
		case errors.Is(err, unix.EINTR):
		case time.Now().After(end):
			_ = f.Close()
			return nil, fmt.Errorf("lock directory %s, which another process has locked: %w", dir, err)
		}
	}
}

// vacate removes a socket that nobody listens to.
func vacate(network, path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.Mode().Type() != fs.ModeSocket {
		return errors.New("there is a file of that name that is no socket: remove it, or choose another path")
	}
	kind := unix.SOCK_STREAM
	if network == "unixpacket" {
		kind = unix.SOCK_SEQPACKET
	}
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	switch err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); {
	case err == nil, errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINPROGRESS): // EAGAIN: its backlog is full
		return ErrLive
	case errors.Is(err, unix.EPROTOTYPE):
		return errors.New("a socket of another kind is open there: choose another path")
	case !errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("there is a socket, and whether somebody listens cannot be told: connect: %w", err)
	}
	return os.Remove(path)
}
