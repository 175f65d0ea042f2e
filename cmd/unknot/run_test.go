package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"golang.org/x/sys/unix"
)

// unknotEnv makes the test binary behave as the command.
const unknotEnv = "UNKNOT_TEST_MAIN"

// ignoreNothing has our children ignore no signal that we were told to ignore, as
// below nohup: what is caught here has its default action there. A subcommand that
// ran in this process since ignores them again.
func ignoreNothing() {
	for _, sig := range []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGPIPE, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
}

// unknot runs the command in a child with a deadline: it confines and signals.
func unknot(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ignoreNothing()
	c := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	c.Env = append(os.Environ(), unknotEnv+"=1", "GORACE=atexit_sleep_ms=0")
	c.WaitDelay = hung
	timer := time.AfterFunc(2*hung, func() { _ = c.Process.Kill() })
	t.Cleanup(func() { timer.Stop() })
	return c
}

type outcome struct {
	stdout, stderr string
	code           int
}

func result(t *testing.T, c *exec.Cmd) (o outcome) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if ws := c.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		t.Fatalf("%v was killed by %v (hung?)\n%s", c.Args, ws.Signal(), stderr.String())
	}
	return outcome{stdout.String(), stderr.String(), c.ProcessState.ExitCode()}
}

func TestRunPassesOutputAndStatusThrough(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args   []string
		stdout string
		code   int
	}{
		{[]string{"run", "--", "sh", "-c", "echo hello; exit 7"}, "hello\n", 7},
		{[]string{"run", "--exit-code", "sh", "-c", "kill -9 $$"}, "", 128 + 9},
		{[]string{"run", "-t", "sendmsg,futex,mmap,execve,ioctl,fcntl,close,rt_sigaction,nanosleep,write,prlimit64", "--", "echo", "x"}, "x\n", 0},
		{[]string{"run", "--", "sh", "-c", "echo $GODEBUG$UNKNOT_LAUNCH."}, os.Getenv("GODEBUG") + ".\n", 0},
	} {
		o := result(t, unknot(t, c.args...))
		if o.stdout != c.stdout || o.code != c.code {
			t.Errorf("%q: status %d, output %q, want %d and %q\n%s", c.args, o.code, o.stdout, c.code, c.stdout, o.stderr)
		}
	}
}

func TestRunCountsTheCalls(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := filepath.Join(dir, "c.yaml")
	if err := os.WriteFile(config, []byte("trap: [openat]\nformat: json\nqueue: 16\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := result(t, unknot(t, "run", "--config", config, "-t", "mkdir,execve", "--", "sh", "-c", "mkdir "+dir+"/a; mkdir "+dir+"/b"))
	var r struct {
		Calls    []callReport
		Counters engine.Counters
	}
	if err := json.Unmarshal([]byte(o.stderr), &r); err != nil {
		t.Fatalf("%v in %q", err, o.stderr)
	}
	counts := map[string]uint64{}
	for _, c := range r.Calls {
		counts[c.Syscall] = c.Count
		if c.WaitP50 <= 0 || c.RoundTripP99 < c.RoundTripP50 || c.Answered != c.Count {
			t.Errorf("%+v", c)
		}
	}
	if o.code != 0 || counts["mkdir"] != 2 || counts["execve"] < 3 || counts["openat"] != 0 || r.Counters.Balance() != 0 {
		t.Errorf("status %d, counts %v, counters %+v", o.code, counts, r.Counters)
	}
}

func TestRunForwardsSignals(t *testing.T) {
	c := unknot(t, "run", "--", "sh", "-c", `trap 'exit 3' INT; echo ready; while :; do sleep 0.01; done`)
	// A session of its own has no terminal, whose signals would not be forwarded.
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	if err := c.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	if c.ProcessState.ExitCode() != 3 {
		t.Errorf("status %v, want 3", c.ProcessState)
	}
}

func TestRunSupervisesGoPrograms(t *testing.T) {
	gobin, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no go command in PATH")
	}
	o := result(t, unknot(t, "run", "-t", "openat,read,futex", "--", gobin, "version"))
	if o.code != 0 || !strings.HasPrefix(o.stdout, "go version") {
		t.Errorf("status %d, output %q\n%s", o.code, o.stdout, o.stderr)
	}
}

func TestBadInputIsOneLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	orphan := filepath.Join(dir, "orphan")
	if err := os.WriteFile(orphan, []byte("#!/nonexistent/interpreter\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("queues: 5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"run"}, 2, "name a command"},
		{[]string{"run", "--", "no-such-command-here"}, 127, "no-such-command-here"},
		{[]string{"run", "--", "/etc/passwd"}, 126, "/etc/passwd"},
		{[]string{"run", "--", dir}, 126, dir},
		{[]string{"run", "--", orphan}, 127, "interpreter"},
		{[]string{"run", "-t", "opennat", "--", "true"}, 2, "openat"},
		{[]string{"run", "--queue", "0", "--", "true"}, 2, "--queue"},
		{[]string{"run", "--workers", "-1", "--", "true"}, 2, "--workers"},
		{[]string{"run", "--cpu", "x", "--", "true"}, 2, "--cpu"},
		{[]string{"run", "--cpu", "4000", "--", "true"}, 2, "--cpu"},
		{[]string{"run", "--drop-errno", "EWHAT", "--", "true"}, 2, "EWHAT"},
		{[]string{"run", "--format", "xml", "--", "true"}, 2, "xml"},
		{[]string{"run", "--confine", "some", "--", "true"}, 2, "--confine"},
		{[]string{"bench", "--confine", "private,some"}, 2, "--confine"},
		{[]string{"run", "--config", "/nonexistent", "--", "true"}, 2, "/nonexistent"},
		{[]string{"run", "--config", bad, "--", "true"}, 2, "queues"},
		{[]string{"bench", "--engine", "nobody"}, 2, "nobody"},
		{[]string{"bench", "--path", "sideways"}, 2, "sideways"},
		{[]string{"bench", "--engine", "chan", "--path", "inline"}, 2, "nothing to run"},
		{[]string{"bench", "--targets", "0"}, 2, "--targets"},
		{[]string{"bench", "--queue", "-4"}, 2, "--queue"},
		{[]string{"bench", "--work", "5"}, 2, "work"},
		{[]string{"bench", "--count", "0"}, 2, "--count"},
		{[]string{"bench", "-o", "/nonexistent/x.txt"}, 2, "/nonexistent"},
		{[]string{"bench", "-o", dir}, 2, "directory"},
	} {
		o := result(t, unknot(t, c.args...))
		if o.code != c.code || o.stdout != "" || strings.Count(o.stderr, "\n") != 1 || !strings.HasPrefix(o.stderr, "unknot: ") || !strings.Contains(o.stderr, c.says) {
			t.Errorf("%q: status %d, want %d with %q\nstdout %q\nstderr %q", c.args, o.code, c.code, c.says, o.stdout, o.stderr)
		}
	}
}

func TestBenchWritesTheSameLinesToAFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "new.txt")
	o := result(t, unknot(t, "bench", "--engine", "unknot,bare", "--path", "inline", "--targets", "1,2", "--duration", "20ms", "--count", "2", "-o", file))
	b, err := os.ReadFile(file)
	if err != nil || o.code != 0 || string(b) != o.stdout {
		t.Fatalf("status %d, %v; file and output differ: %v\n%s", o.code, err, string(b) != o.stdout, o.stderr)
	}
	if n := strings.Count(o.stdout, "BenchmarkStorm/"); n != 2*2*2 {
		t.Errorf("%d lines, want 8\n%s", n, o.stdout)
	}
	if left, _ := os.ReadDir(filepath.Dir(file)); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

// TestAnInterruptedBenchLeavesWholeFiles: asked to stop, bench keeps what was
// finished; killed, it leaves nothing.
func TestAnInterruptedBenchLeavesWholeFiles(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		file := filepath.Join(t.TempDir(), "new.txt")
		c := unknot(t, "bench", "--engine", "bare,seed", "--targets", "2", "--duration", "10ms", "--count", "1000000", "--trace", "off", "-o", file)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var errs bytes.Buffer
		c.Stderr = &errs
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		var stdout strings.Builder
		r := bufio.NewReader(io.TeeReader(out, &stdout))
		for line := ""; !strings.HasPrefix(line, "BenchmarkStorm/"); {
			if line, err = r.ReadString('\n'); err != nil {
				t.Fatalf("%v: %s", err, errs.String())
			}
		}
		if err := c.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Fatal(err)
		}
		_ = c.Wait()
		left, err := os.ReadDir(filepath.Dir(file))
		if err != nil {
			t.Fatal(err)
		}
		if sig == syscall.SIGKILL {
			if len(left) != 0 {
				t.Errorf("killed, it leaves %v", left)
			}
			continue
		}
		b, _ := os.ReadFile(file)
		if c.ProcessState.ExitCode() != 1 || string(b) != stdout.String() || len(left) != 1 || !strings.HasSuffix(string(b), "\n") {
			t.Errorf("%v: %v, left %v; the file and the output differ: %v", sig, c.ProcessState, left, string(b) != stdout.String())
		}
		if !strings.HasSuffix(errs.String(), "unknot: interrupted: the repetitions above are complete, the rest is missing\n") {
			t.Errorf("%v: %s", sig, errs.String())
		}
	}
}

// TestTargetsEndWhenTheSupervisorIsKilled kills a bench in mid-storm. Its
// storms hold the write end of our pipe, so end of file says that none is left.
func TestTargetsEndWhenTheSupervisorIsKilled(t *testing.T) {
	t.Parallel()
	c := unknot(t, "bench", "--engine", "unknot", "--path", "queue", "--targets", "32", "--duration", "10m", "--count", "1", "--trace", "off")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c.Stderr = w // inherited by the storm
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	children := filepath.Join("/proc", strconv.Itoa(c.Process.Pid), "task")
	for deadline := time.Now().Add(hung); ; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the bench started no storm")
		}
		found, _ := filepath.Glob(filepath.Join(children, "*", "children"))
		var all strings.Builder
		for _, f := range found {
			b, _ := os.ReadFile(f)
			all.Write(b)
		}
		var storm int
		if n, _ := fmt.Sscan(all.String(), &storm); n == 1 {
			if ts, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", storm)); len(ts) > 32 {
				break // its threads exist
			}
		}
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := r.SetReadDeadline(time.Now().Add(hung)); err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 1000)
	if n, err := r.Read(said); err != io.EOF {
		t.Errorf("targets outlive their supervisor, or something was said: %v, %q", err, said[:n])
	}
	_ = c.Wait()
}
