package unixsocket

import (
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// sockets is a directory whose path leaves room for a socket's.
func sockets(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "socket")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// A predecessor that removes its path at the moment at which its successor replaces it never removes the successor's.
func TestRemoveBesideReplace(t *testing.T) {
	path := filepath.Join(sockets(t), "s")
	before, err := Replace("unixpacket", path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for range 300 {
		file := Own(path)
		var both sync.WaitGroup
		both.Go(func() { file.Remove() })
		after, err := Replace("unixpacket", path, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		both.Wait()
		c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		_ = before.Close()
		before = after
	}
	if file := Own(path); !file.Remove() || file.Remove() {
		t.Error("a path of its own must be removed once")
	}
	_ = before.Close()
}
