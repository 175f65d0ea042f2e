package confine

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

// TestLandlockByABI: a kernel is asked for no right and no scope that it does
// not know, and for each one that it does.
func TestLandlockByABI(t *testing.T) {
	const signals = unix.LANDLOCK_SCOPE_SIGNAL
	for _, c := range []struct {
		abi             landlockABI
		fs, net, scoped uint64
	}{
		{landlockABI{version: 0}, 0, 0, 0},
		{landlockABI{version: 1}, 0x1fff, 0, 0},
		{landlockABI{version: 2}, 0x3fff, 0, 0},
		{landlockABI{version: 3}, 0x7fff, 0, 0},
		{landlockABI{version: 4}, 0x7fff, 3, 0},
		{landlockABI{version: 5}, 0xffff, 3, 0},
		{landlockABI{version: 6}, 0xffff, 3, 1}, // without the erratum, Go could not signal its own threads
		{landlockABI{version: 6, errata: erratumSignal}, 0xffff, 3, 1 | signals},
		{landlockABI{version: 8, errata: 7}, 0xffff, 3, 3},
		{landlockABI{version: 9, errata: 7}, 0x1ffff, 3, 3},
		{landlockABI{version: 10, errata: 7}, 0x1ffff, 15, 3},
		{landlockABI{version: 99, errata: 7}, 0x1ffff, 15, 3},
	} {
		r := c.abi.denied()
		if r.fs != c.fs || r.net != c.net || r.scoped != c.scoped {
			t.Errorf("%+v: %+v, want %x %x %x", c.abi, r, c.fs, c.net, c.scoped)
		}
	}
}

// TestLandlockAlone: the second layer holds where the first is not.
func TestLandlockAlone(t *testing.T) {
	a, err := probeLandlock()
	if err != nil {
		t.Fatal(err)
	}
	if a.version == 0 {
		t.Skip("this kernel has no landlock: ", a.missing)
	}
	c := testchild.Start(t, "landlock")
	if ws := c.Wait(); ws != 0 {
		t.Errorf("status %#x", int(ws))
	}
}

func childLandlock(*testchild.Conn, []string) error {
	a, err := probeLandlock()
	if err != nil {
		return err
	}
	abstract, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(abstract, &unix.SockaddrUnix{Name: fmt.Sprintf("@unknot-test-%d", os.Getpid())}); err != nil {
		return err
	}
	if err := unix.Listen(abstract, 1); err != nil {
		return err
	}
	name, err := unix.Getsockname(abstract)
	if err != nil {
		return err
	}
	errs := make(chan error)
	osthread.Start(func() {
		errs <- func() error {
			if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
				return err
			}
			if err := a.restrictSelf(); err != nil {
				return err
			}
			connect := func(family int, to unix.Sockaddr) error {
				fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
				if err != nil {
					return err
				}
				defer unix.Close(fd)
				return unix.Connect(fd, to)
			}
			for _, c := range []struct {
				what  string
				since int
				err   error
				want  unix.Errno
			}{
				{"open", 1, func() error { _, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0); return err }(), unix.EACCES},
				{"mkdir", 1, unix.Mkdir(os.TempDir()+"/unknot-landlock-test", 0o700), unix.EACCES},
				{"TCP connect", 4, connect(unix.AF_INET, &unix.SockaddrInet4{Port: 1, Addr: [4]byte{127, 0, 0, 1}}), unix.EACCES},
				{"abstract socket", 6, connect(unix.AF_UNIX, name), unix.EPERM},
				{"signal to the parent", 6, unix.Kill(os.Getppid(), 0), unix.EPERM},
				{"signal to an own thread", 1, unix.Tgkill(os.Getpid(), os.Getpid(), 0), 0},
			} {
				if a.version < c.since || c.what == "signal to the parent" && a.errata&erratumSignal == 0 {
					continue
				}
				var e unix.Errno
				errors.As(c.err, &e)
				if e != c.want {
					return fmt.Errorf("%s: %v, want %v", c.what, c.err, c.want)
				}
			}
			return nil
		}()
	})
	return <-errs
}
