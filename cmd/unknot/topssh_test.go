package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sshTo starts an sshd of the test's own, and returns the command that runs a command in it on a terminal.
func sshTo(t *testing.T) (run func(env []string, command string) *exec.Cmd) {
	t.Helper()
	sshd, err := exec.LookPath("sshd")
	if err != nil {
		sshd = "/usr/sbin/sshd" // which is not on everybody's PATH
		_, err = os.Stat(sshd)
	}
	for _, tool := range []string{"ssh", "ssh-keygen"} {
		if _, e := exec.LookPath(tool); e != nil {
			err = e
		}
	}
	if err != nil {
		t.Skip("no OpenSSH here: ", err)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if me.Uid == "0" {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // which sshd wants of root
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	for _, key := range []string{"host", "user"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free
	if err != nil {
		t.Fatal(err)
	}
	port := fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
	_ = l.Close()
	config := fmt.Sprintf("ListenAddress 127.0.0.1\nPort %s\nHostKey %s/host\nAuthorizedKeysFile %s/user.pub\nPidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nAcceptEnv NO_COLOR LC_ALL\n", port, dir, dir)
	if err := os.WriteFile(dir+"/config", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	server := exec.Command(sshd, "-D", "-e", "-f", dir+"/config")
	var said strings.Builder
	server.Stderr = &said
	inGroup(t, server)
	t.Cleanup(func() {
		if t.Failed() {
			_ = server.Process.Kill()
			_ = server.Wait()
			t.Logf("sshd: %s", said.String())
		}
	})
	if !within(hung, func() bool {
		c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}) {
		t.Fatal("sshd does not listen")
	}
	return func(env []string, command string) *exec.Cmd {
		c := exec.Command("ssh", "-F", "none", "-tt", "-p", port, "-i", dir+"/user", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile="+dir+"/known",
			"-o", "LogLevel=ERROR", "-o", "SendEnv=NO_COLOR LC_ALL", me.Username+"@127.0.0.1", command)
		c.Env = append(os.Environ(), append([]string{"LC_ALL=C"}, env...)...)
		return c
	}
}

// TestTopOverSSH: it draws on a terminal at the other end, at 80x24, follows its size, and leaves it; with and without
// colours; on a dumb terminal it prints.
func TestTopOverSSH(t *testing.T) {
	if testing.Short() {
		t.Skip("starts an SSH server")
	}
	t.Parallel()
	ssh := sshTo(t)
	addr := "unix:" + filepath.Join(t.TempDir(), "s")
	defer shownAt(t, addr)()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := fmt.Sprintf("env %s=1 %s top -i 20ms %s", unknotEnv, self, addr)
	sized := func(env []string, rows, columns uint16) *terminal {
		t.Helper()
		term := onSizedTerminal(t, ssh(env, command), rows, columns)
		return term
	}
	for _, c := range []struct {
		env   []string
		title string
	}{{[]string{"TERM=xterm", "NO_COLOR="}, "\x1b[1munknot test  healthy"}, {[]string{"TERM=vt100", "NO_COLOR=1"}, topHome + "unknot test  healthy"}} {
		t.Run(strings.Join(c.env, " "), func(t *testing.T) {
			term := sized(c.env, 24, 80)
			term.expect(topEnter)
			term.expect(c.title)
			screen := term.until(topHome)
			if lines := strings.Split(strings.TrimRight(screen, "\r\n"), "\r\n"); len(lines) > 24 {
				t.Errorf("%d lines: %q", len(lines), screen)
			}
			if strings.Contains(screen, "HIGH") || !strings.Contains(screen, " web ") {
				t.Errorf("at 80 columns: %q", screen)
			}
			if err := unix.IoctlSetWinsize(int(term.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 30, Col: 120}); err != nil {
				t.Fatal(err)
			}
			term.expect("HIGH")
			term.typed("q")
			term.expect(topLeave)
			if ws, rest := term.wait(); ws.ExitStatus() != 0 {
				t.Errorf("it ended by %s: %q", ended(ws), rest)
			}
		})
	}
	t.Run("TERM=dumb", func(t *testing.T) {
		term := sized([]string{"TERM=dumb"}, 24, 80)
		for range 3 {
			term.expect("unknot test  healthy")
		}
		term.typed("\x03")
		if ws, rest := term.wait(); ws.ExitStatus() != 0 || strings.Contains(rest, "\x1b") {
			t.Errorf("it ended by %s: %q", ended(ws), rest)
		}
	})
}
