// Package examples has whole programs on package engine, a folder each; its test runs them.
package examples

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/syscalls"
	"golang.org/x/sys/unix"
)

// TestReadme: the README's program is examples/supervise, to the letter.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "```go\n")
	shown, _, ok := strings.Cut(rest, "```\n")
	if !ok {
		t.Fatal("README.md has no program")
	}
	program, err := os.ReadFile("supervise/main.go")
	if err != nil {
		t.Fatal(err)
	}
	_, want, _ := strings.Cut(string(program), "\n") // without its comment
	if shown != want {
		t.Errorf("README.md shows\n%s\nand examples/supervise is\n%s", shown, want)
	}
}

func TestExamples(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the programs")
	}
	if err := notify.FeatureContinue.Probe(); err != nil {
		t.Skip(err)
	}
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin+"/", "./supervise", "./openat", "./audit", "./agent").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, c := range []struct {
		args   []string
		want   string // a pattern of the whole output
		status int
	}{
		{[]string{"supervise", "id", "-u"}, `0\n`, 0},
		{[]string{"supervise", "sh", "-c", "exit 7"}, ``, 7},
		{[]string{"openat", "cat", "/hello", "/hello"}, `hello, thread (\d+)\nhello, thread (\d+)\n`, 0},
		{[]string{"openat", "cat", "/hello/no"}, `.*No such file or directory\n`, 1},
		{[]string{"audit", "sh", "-c", "/bin/echo hi; exec /bin/true"}, `(?s).*msg=execve thread=\d+ path=\S*/sh args="\[sh -c .*` +
			`path=/bin/echo args="\[/bin/echo hi\]"\nhi\n.*path=/bin/true args=\[/bin/true\]\n`, 0},
		{[]string{"audit", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/1"}, `(?s).*msg=connect thread=\d+ to=127.0.0.1:1\n.*`, 1},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			if _, err := exec.LookPath(c.args[1]); err != nil {
				t.Skip(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, filepath.Join(bin, c.args[0]), c.args[1:]...)
			out, _ := cmd.CombinedOutput()
			if got := cmd.ProcessState.ExitCode(); got != c.status || !regexp.MustCompile("^"+c.want+"$").Match(out) {
				t.Errorf("status %d, want %d; output:\n%s\nwant %s", got, c.status, out, c.want)
			}
		})
	}
	t.Run("agent", func(t *testing.T) { underAgent(t, filepath.Join(bin, "agent")) })
}

// containerEnv marks the test binary's second life as a container: its value is the agent's socket.
const containerEnv = "UNKNOT_EXAMPLE_CONTAINER"

func TestMain(m *testing.M) {
	if path := os.Getenv(containerEnv); path != "" {
		fmt.Fprintln(os.Stderr, container(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// container does what a runtime does with a container that has linux.seccomp.listenerPath: it ends as a shell.
func container(path string) error {
	runtime.LockOSThread() // for the filter
	nrs := []int{unix.SYS_FCHMODAT}
	if nr, ok := syscalls.Native().Number("mkdir"); ok { // arm64 has none
		nrs = append(nrs, int(nr))
	}
	prog, err := notify.TrapProgram(nrs...)
	if err != nil {
		return err
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	l, err := notify.Install(prog, 0)
	if err != nil {
		return err
	}
	state := `{"ociVersion":"1.0.2","fds":["seccompFd"],"pid":1,"metadata":"bar","state":{"id":"box","status":"creating","bundle":"/"}}`
	if _, _, err := c.(*net.UnixConn).WriteMsgUnix([]byte(state), unix.UnixRights(l.FD()), nil); err != nil {
		return err
	}
	return unix.Exec("/bin/sh", []string{"sh", "-c", "mkdir box; chmod 700 ."}, append(os.Environ(), "LC_ALL=C"))
}

// underAgent runs the agent and a container.
func underAgent(t *testing.T, agent string) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "socket")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	daemon := exec.CommandContext(ctx, agent, "-socketfile", socket)
	daemon.Cancel = func() error { return daemon.Process.Signal(unix.SIGTERM) }
	var said strings.Builder
	daemon.Stderr = &said
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	for _, err := os.Stat(socket); err != nil && ctx.Err() == nil; _, err = os.Stat(socket) {
		time.Sleep(time.Millisecond)
	}
	box := exec.CommandContext(ctx, "/proc/self/exe")
	box.Dir, box.Env = dir, append(os.Environ(), containerEnv+"="+socket)
	out, _ := box.CombinedOutput()
	cancel()
	if err := daemon.Wait(); daemon.ProcessState.ExitCode() != 0 {
		t.Errorf("the agent: %v\n%s", err, said.String())
	}
	if !strings.Contains(string(out), "chmod: ") || !strings.Contains(string(out), "No medium found") {
		t.Errorf("chmod said %q", out)
	}
	made := "box-bar"
	if _, ok := syscalls.Native().Number("mkdir"); !ok {
		made = "box" // by mkdirat, which the example leaves to the kernel
	}
	if _, err := os.Stat(filepath.Join(dir, made)); err != nil && os.Getuid() != 0 && strings.Contains(string(out), "mkdir: ") {
		t.Skipf("this user may not act for the container (%s): %s", strings.TrimSpace(string(out)), "see kernel.yama.ptrace_scope")
	} else if err != nil {
		t.Errorf("%v; the container said %q, the agent %s", err, out, said.String())
	}
}
