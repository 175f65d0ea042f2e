package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// TestServeOutlivesItsReaders: a log and records that nobody reads any more end nothing.
func TestServeOutlivesItsReaders(t *testing.T) {
	if err := notify.FeatureNotify.Probe(); err != nil {
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("", "serve") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket, policy := filepath.Join(dir, "s"), filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(policy, []byte("default: continue\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, keep := range []string{"none", "keeper"} {
		t.Run(keep, func(t *testing.T) {
			reader, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			_ = reader.Close()
			c := exec.Command("/proc/self/exe", "serve", "--socket", socket, "--config", policy, "--audit", "-", "--confine", "best", "--keep", keep)
			c.Args[0] = "unknot" // by which the keeper's child is the command, too
			c.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
			c.Stdout, c.Stderr = w, w
			c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			err = c.Start()
			_ = w.Close()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { killSession(c.Process.Pid) })
			if !within(hung, func() bool { _, err := os.Stat(socket); return err == nil }) {
				t.Fatal("it does not serve")
			}
			if err := c.Process.Signal(unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if ws := waited(t, c); ws != 0 {
				t.Errorf("serve: %s", ended(ws))
			}
		})
	}
}
