//go:build cgo

package main

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// shell runs a line of the shell in which $U is unknot, without a terminal.
func shell(t *testing.T, line string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("/bin/sh", "-c", line)
	c.Dir = t.TempDir()
	c.Env = append(os.Environ(), "U="+self, unknotEnv+"=1", "GORACE=atexit_sleep_ms=0")
	return c
}

// followed is a program in a session of its own whose standard output is read. The
// end of it says that none of the program's descendants is left.
func followed(t *testing.T, c *exec.Cmd) *bufio.Reader {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	c.Stdout = w
	inGroup(t, c)
	_ = w.Close()
	_ = r.SetReadDeadline(time.Now().Add(hung))
	return bufio.NewReader(r)
}

func hears(t *testing.T, r *bufio.Reader, want string) {
	t.Helper()
	if got, err := r.ReadString('\n'); got != want+"\n" {
		t.Fatalf("it says %q, %v; want %q", got, err, want)
	}
}

// ends reads to the end.
func ends(t *testing.T, r *bufio.Reader, want string) {
	t.Helper()
	if got, err := io.ReadAll(r); string(got) != want || err != nil {
		t.Errorf("at the end it says %q, %v; want %q", got, err, want)
	}
}

func TestRunEndsAsItsCommand(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, want string }{
		{"-- sh -c 'exit 0'", "exit 0"},
		{"-- sh -c 'exit 255'", "exit 255"},
		{"-- sh -c 'kill -TERM $$'", "SIGTERM"},
		{"-- sh -c 'kill -KILL $$'", "SIGKILL"},
		{"-- sh -c 'kill -SEGV $$'", "SIGSEGV"},
		{"-- sh -c 'kill -ABRT $$'", "SIGABRT"},
		{"-- sh -c 'kill -QUIT $$'", "SIGQUIT"},
		{"-- sh -c 'kill -PIPE $$'", "SIGPIPE"},
		{"-- sh -c 'kill -PROF $$'", "SIGPROF"},
		{"--exit-code -- sh -c 'kill -SEGV $$'", "exit 139"},
		{"--exit-code -- sh -c 'kill -KILL $$'", "exit 137"},
	} {
		cmd := shell(t, "ulimit -c unlimited 2>/dev/null; exec $U run --quiet "+c.args)
		r := followed(t, cmd)
		ends(t, r, "")
		ws := waited(t, cmd)
		if ended(ws) != c.want || ws.CoreDump() {
			t.Errorf("%s: %s, core %v; want %s and none", c.args, ended(ws), ws.CoreDump(), c.want)
		}
		if left, _ := os.ReadDir(cmd.Dir); len(left) > 1 { // the command's own core may be one
			t.Errorf("%s: left are %v", c.args, left)
		}
	}
}

// TestRunKeepsTheStatus whatever becomes of what it writes.
func TestRunKeepsTheStatus(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ line, out, want string }{
		{"$U run -t execve -o table -- sh -c 'exit 7' 2>errs; s=$?; grep -c execve table; wc -c <errs; exit $s", "1\n0\n", "exit 7"},
		{"$U run -t execve -o table --format json -- true 2>errs; grep -c '^{\"calls\"' table; wc -c <errs", "1\n0\n", "exit 0"},
		{"$U run --quiet -- sh -c 'exit 7' 2>errs; s=$?; wc -c <errs; exit $s", "0\n", "exit 7"},
		{"$U run -t execve -- sh -c 'exit 7' 2>errs; s=$?; grep -c execve errs; exit $s", "1\n", "exit 7"},
		{"$U run -- sh -c 'exit 7' 2>/dev/full", "", "exit 7"},
		{"$U run -o /dev/full -- sh -c 'exit 7' 2>errs; s=$?; wc -l <errs; grep -c 'write the table' errs; exit $s", "1\n1\n", "exit 7"},
		{"$U run -- sh -c 'exit 7' 2>&-", "", "exit 7"},
		{"exec 3>&1; { $U run -- sh -c 'sleep .2; exit 7' 2>&1; echo $? >&3; } | true", "7\n", "exit 0"}, // nobody reads the table
		{"$U run -o /nonexistent/table -- sh -c 'echo ran' 2>errs; s=$?; wc -l <errs; grep -c /nonexistent errs; exit $s", "1\n1\n", "exit 1"},
		{"trap '' TERM; $U run --quiet -- sh -c 'kill -TERM $$; echo alive'", "alive\n", "exit 0"},
	} {
		cmd := shell(t, c.line)
		r := followed(t, cmd)
		ends(t, r, c.out)
		if ws := waited(t, cmd); ended(ws) != c.want {
			t.Errorf("%s: %s, want %s", c.line, ended(ws), c.want)
		}
	}
}

// stubborn is a command with descendants of other sessions that ignore signals.
const stubborn = `setsid sh -c '(trap "" TERM HUP INT; setsid sleep 1000 & sleep 1000) & wait' & (trap "" TERM; sleep 1000) & setsid -f sleep 1000; echo up; `

func TestRunKilledTakesItsTreeAlong(t *testing.T) {
	c := unknot(t, "run", "--quiet", "--", "sh", "-c", stubborn+"sleep 1000")
	r := followed(t, c)
	hears(t, r, "up")
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	ends(t, r, "")
}

func TestRunKilledLeavesItsTree(t *testing.T) {
	c := unknot(t, "run", "--quiet", "--on-death=leave", "--", "sh", "-c", "echo up; read go; echo $go on")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r := followed(t, c)
	hears(t, r, "up")
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = c.Process.Wait()
	if _, err := io.WriteString(in, "goes\n"); err != nil {
		t.Fatal(err)
	}
	ends(t, r, "goes on\n")
}

// TestRunWaitsForDescendants and what ends that.
func TestRunWaitsForDescendants(t *testing.T) {
	t.Parallel()
	c := unknot(t, "run", "--quiet", "--", "sh", "-c", "(sleep .3; cat /dev/null && echo late) & exit 4")
	r := followed(t, c)
	ends(t, r, "late\n")
	if ws := waited(t, c); ws.ExitStatus() != 4 {
		t.Errorf("%s, want 4", ended(ws))
	}
	for _, x := range []struct {
		name, command string
		sig           syscall.Signal
		over          bool // the command has ended when the signal comes
		want          string
	}{
		{"a signal that ended the command", stubborn + "exec sleep 1000", unix.SIGTERM, false, "SIGTERM"},
		{"a command that ends because of it", "trap 'exit 143' TERM; " + stubborn + "while :; do sleep .02; done", unix.SIGTERM, false, "exit 143"},
		{"INT while waiting", stubborn + "exit 4", unix.SIGINT, true, "exit 4"},
		{"TERM while waiting", stubborn + "exit 4", unix.SIGTERM, true, "exit 4"},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := unknot(t, "run", "--", "sh", "-c", x.command)
			errs, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer errs.Close()
			c.Stderr = w
			r := followed(t, c)
			_ = w.Close()
			hears(t, r, "up")
			if x.over {
				_ = errs.SetReadDeadline(time.Now().Add(hung))
				if note, err := bufio.NewReader(errs).ReadString('\n'); err != nil || !strings.Contains(note, "still supervising") {
					t.Fatalf("%v, %q", err, note)
				}
			}
			if err := c.Process.Signal(x.sig); err != nil {
				t.Fatal(err)
			}
			ends(t, r, "")
			_ = errs.Close()
			if ws := waited(t, c); ended(ws) != x.want {
				t.Errorf("%s, want %s", ended(ws), x.want)
			}
		})
	}
}

// TestRunReturnsWithItsCommand: what the command leaves is supervised by a process
// that goes on in the background, and killed with that one.
func TestRunReturnsWithItsCommand(t *testing.T) {
	r := followed(t, shell(t, `mkfifo gate
		"$U" run --quiet --wait=command -- sh -c '(read -r _ <gate; cat /dev/null && echo supervised) & echo command'
		echo returned $?; echo >gate`))
	hears(t, r, "command")
	hears(t, r, "returned 0")
	ends(t, r, "supervised\n")

	r = followed(t, shell(t, `export MARK=ours$$
		"$U" run --quiet --wait=command -- sh -c 'setsid sleep 600 & echo command'
		for f in $(grep -la "MARK=$MARK" /proc/[0-9]*/environ 2>/dev/null); do p=${f%/environ}; tr '\0' ' ' <$p/cmdline | grep -q "^unknot run-rest" && echo ${p#/proc/}; done >rests
		echo returned $(wc -l <rests); read -r _ <&0; kill -KILL $(cat rests)`))
	hears(t, r, "command")
	hears(t, r, "returned 1")
	ends(t, r, "")
}

// TestRunAsPID1 of a pid namespace.
func TestRunAsPID1(t *testing.T) {
	unshare, err := exec.LookPath("unshare")
	if err != nil || exec.Command(unshare, "--pid", "--fork", "--mount-proc", "true").Run() != nil {
		t.Skip("no pid namespace can be made")
	}
	for _, c := range []struct{ command, out, want string }{
		{"exit 7", "", "exit 7"},
		{"kill -TERM $$", "", "exit 143"},
		{"kill -KILL $$", "", "exit 137"},
		{`trap "echo got; exit 3" TERM; kill -TERM 1; while :; do sleep .02; done`, "got\n", "exit 3"},
		{"kill -TERM 1; exec sleep 1000", "", "exit 143"},
		// Orphans, and their orphans: nobody but us can collect these.
		{`for i in 1 2 3 4 5 6 7 8; do (true & (true &) ; setsid -f true); done; while grep -q "^State:.Z" /proc/[0-9]*/status; do sleep .02; done; echo none`, "none\n", "exit 0"},
	} {
		cmd := shell(t, "exec unshare --pid --fork --kill-child --mount-proc $U run --quiet -- sh -c '"+c.command+"'")
		r := followed(t, cmd)
		ends(t, r, c.out)
		if ws := waited(t, cmd); ended(ws) != c.want {
			t.Errorf("%s: %s, want %s", c.command, ended(ws), c.want)
		}
	}
}

// TestRunAmongOthers: programs that start others, above run and below.
func TestRunAmongOthers(t *testing.T) {
	dir := t.TempDir()
	// Four jobs of a sub-make wait for each other: with fewer at once none would end.
	makefile := "all:; +$(MAKE) -f " + dir + "/makefile a b c d\na b c d:; @touch mark-$@; while [ $$(ls | grep -c ^mark) -lt 4 ]; do sleep .02; done; echo job\n"
	if err := os.WriteFile(filepath.Join(dir, "makefile"), []byte(makefile), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ needs, line, out, want string }{
		{"timeout", "timeout .5 $U run --quiet -- sleep 1000", "", "exit 124"},
		{"timeout", "timeout -s INT .5 $U run --quiet -- sleep 1000", "", "exit 124"},
		{"timeout", "timeout --foreground .5 $U run --quiet -- sleep 1000", "", "exit 124"},
		{"timeout", "timeout -s KILL .5 $U run --quiet -- sleep 1000", "", "exit 137"},
		{"timeout", "$U run --quiet -- timeout .2 sleep 1000", "", "exit 124"},
		{"nohup", "nohup $U run --quiet -- sh -c 'kill -HUP $$; echo alive' 2>/dev/null", "alive\n", "exit 0"},
		{"nohup", "$U run --quiet -- nohup sh -c 'kill -HUP $$; echo alive' 2>/dev/null", "alive\n", "exit 0"},
		{"setsid", "setsid -w $U run --quiet -- sh -c 'echo x; exit 3'", "x\n", "exit 3"},
		{"setsid", "$U run --quiet -- setsid -w sh -c 'echo x; exit 3'", "x\n", "exit 3"},
		{"xargs", "echo 1 2 3 4 5 6 7 8 | xargs -n 1 -P 4 $U run --quiet -- echo | sort | tr -d '\\n'", "12345678", "exit 0"},
		{"xargs", "echo 1 2 3 4 5 6 7 8 | $U run --quiet -- xargs -n 1 -P 4 echo | sort | tr -d '\\n'", "12345678", "exit 0"},
		{"script", "script -qec \"$U run --quiet -- sh -c 'echo x; exit 3'\" /dev/null </dev/null | tr -d '\\r'", "x\n", "exit 0"},
		{"make", "$U run --quiet -- make -s -j4 -f " + dir + "/makefile", "job\njob\njob\njob\n", "exit 0"},
		{"yes", "$U run --quiet -- yes | head -n 1; echo", "y\n\n", "exit 0"},
	} {
		if _, err := exec.LookPath(c.needs); err != nil {
			t.Logf("no %s in PATH", c.needs)
			continue
		}
		cmd := shell(t, c.line)
		r := followed(t, cmd)
		ends(t, r, c.out)
		if ws := waited(t, cmd); ended(ws) != c.want {
			t.Errorf("%s: %s, want %s", c.line, ended(ws), c.want)
		}
	}
}
