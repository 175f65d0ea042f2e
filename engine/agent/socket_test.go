package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/testchild"
	"github.com/unknot/unknot/internal/unixsocket"
	"golang.org/x/sys/unix"
)

func nobody(State, *notify.Listener) error { return nil }

func TestPaths(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	live := filepath.Join(dir, "live")
	l, err := net.Listen("unix", live)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dgram := filepath.Join(dir, "dgram")
	d, err := net.ListenPacket("unixgram", dgram)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	long := filepath.Join(dir, strings.Repeat("x", 100))
	for path, want := range map[string]string{
		"":                            "no path for the socket",
		"@abstract":                   "no mode protects an abstract name",
		"a\x00b":                      "no zero byte",
		file:                          "no socket: remove it",
		live:                          ErrLive.Error(),
		dgram:                         "another kind",
		long:                          fmt.Sprintf("a path of %d bytes is too long for a socket, which takes 107", len(long)),
		filepath.Join(dir, "no", "s"): "no such file or directory",
	} {
		a, err := Listen(Config{Path: path, Serve: nobody})
		if err == nil {
			_ = a.Close()
			t.Errorf("%q: no error", path)
		} else if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want %s", path, err, want)
		}
	}
	if _, err := os.Stat(file); err != nil {
		t.Error("the file is gone")
	}
	if _, err := net.Dial("unix", live); err != nil {
		t.Error(err)
	}
	if _, err := Listen(Config{Path: filepath.Join(dir, "s")}); err == nil {
		t.Error("nobody to serve listeners")
	}
}

// The longest path works, a dead socket is replaced, and a successor's socket is left alone.
func TestTakesOver(t *testing.T) {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, strings.Repeat("x", unixsocket.MaxPath-len(dir)-1))
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	_ = dead.Close()
	first, err := Listen(Config{Path: path, Serve: nobody})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(Config{Path: path, Serve: nobody}); !errors.Is(err, ErrLive) {
		t.Errorf("a second agent: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := Listen(Config{Path: path, Serve: nobody})
	if err != nil {
		t.Fatal(err)
	}
	_ = first.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the first agent took the second one's socket away: %v", err)
	}
	_ = second.Close()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
}

func TestMode(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	for _, mode := range []os.FileMode{0, 0o600, 0o660, 0o777} {
		a, err := Listen(Config{Path: filepath.Join(t.TempDir(), "s"), Mode: mode, Serve: nobody})
		if err != nil {
			t.Fatal(err)
		}
		want := mode
		if want == 0 {
			want = DefaultMode
		}
		if fi, err := os.Lstat(a.Addr()); err != nil || fi.Mode().Perm() != want {
			t.Errorf("mode %o: %v, %v", mode, fi.Mode(), err)
		}
		_ = a.Close()
	}
}

func TestAllowSame(t *testing.T) {
	me := uint32(os.Geteuid())
	if err := errors.Join(allowSame(unix.Ucred{Uid: 0}), allowSame(unix.Ucred{Uid: me})); err != nil {
		t.Error(err)
	}
	if err := allowSame(unix.Ucred{Uid: me + 1}); err == nil || !strings.Contains(err.Error(), fmt.Sprint("user ", me+1)) {
		t.Errorf("a stranger: %v", err)
	}
}

func TestActivated(t *testing.T) {
	g := newTarget(t)
	c := testchild.Start(t, "activated", t.TempDir())
	path := c.MustHear()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	send(t, conn.(*net.UnixConn), message(State{Metadata: "by activation"}), g.l.FD())
	c.Expect("by activation")
	c.Expect("left: true")
}

func childActivated(c *testchild.Conn, args []string) error {
	if _, err := Activated(); !errors.Is(err, ErrNotActivated) {
		return fmt.Errorf("without variables: %w", err)
	}
	path := filepath.Join(args[0], "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	if err != nil {
		return err
	}
	if err := unix.Dup3(int(f.Fd()), 3, 0); err != nil {
		return err
	}
	os.Setenv("LISTEN_PID", fmt.Sprint(os.Getpid()))
	os.Setenv("LISTEN_FDS", "1")
	act, err := Activated()
	if err != nil {
		return err
	}
	if os.Getenv("LISTEN_FDS") != "" {
		return errors.New("children would see LISTEN_FDS")
	}
	got := make(chan string, 1)
	a, err := Listen(Config{Listener: act, Serve: func(s State, l *notify.Listener) error {
		got <- s.Metadata
		return l.Close()
	}})
	if err != nil {
		return err
	}
	go func() { _ = a.Run(context.Background()) }()
	if err := c.Say("%s", path); err != nil {
		return err
	}
	if err := c.Say("%s", <-got); err != nil {
		return err
	}
	_ = a.Close()
	_, err = os.Lstat(path)
	return c.Say("left: %t", err == nil)
}
