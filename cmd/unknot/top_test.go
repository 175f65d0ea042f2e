package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/cmd/unknot/internal/status"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/enginetest"
	"golang.org/x/sys/unix"
)

// shownAt shows an engine, whose only listener has had a call, at an address, until stop.
func shownAt(t *testing.T, addr string) (stop func()) {
	t.Helper()
	e := enginetest.New(t, engine.HandlerFunc(func(r engine.Request) { _ = r.Return(0) }))
	e.TargetWith(engine.SourceOptions{Tag: "web"}).Call(1)
	ln, err := status.Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- status.Serve(ctx, ln, status.Config{Engine: e.Engine(), Info: status.Info{Program: "test", Started: time.Now()}})
	}()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// modes are a terminal's.
func (term *terminal) modes() unix.Termios {
	term.t.Helper()
	m, err := unix.IoctlGetTermios(int(term.master.Fd()), unix.TCGETS)
	if err != nil {
		term.t.Fatal(err)
	}
	return *m
}

func topOnTerminal(t *testing.T, env []string, args ...string) *terminal {
	t.Helper()
	c := unknot(t, append([]string{"top", "-i", "20ms"}, args...)...)
	c.Env = append(append(c.Env, "LC_ALL=C.UTF-8", "TERM=xterm", "NO_COLOR="), env...)
	return onTerminal(t, c)
}

// TestTopOnATerminal: it draws, follows the size, survives the daemon, and leaves the terminal as it was.
func TestTopOnATerminal(t *testing.T) {
	t.Parallel()
	addr := "unix:" + filepath.Join(t.TempDir(), "s")
	stop := shownAt(t, addr)
	term := topOnTerminal(t, nil, addr)
	raw := term.modes
	term.expect(topEnter)
	term.expect("\x1b[1munknot test  healthy")
	term.expect(" web ")
	term.expect("in the last ")
	if m := raw(); m.Lflag&(unix.ECHO|unix.ICANON|unix.ISIG) != 0 {
		t.Errorf("modes %#x: not raw", m.Lflag)
	}
	if err := unix.IoctlSetWinsize(int(term.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 30, Col: 120}); err != nil {
		t.Fatal(err)
	}
	term.expect("HIGH")
	term.typed("s")
	term.expect("s order (drops)")
	stop()
	term.expect("NO ANSWER for")
	term.expect("connect: no such file or directory")
	term.expect(" web ") // as it was
	stop = shownAt(t, addr)
	defer stop()
	term.expect("healthy")
	term.typed("q")
	term.expect(topLeave)
	if ws, _ := term.wait(); ws.ExitStatus() != 0 {
		t.Errorf("it ended by %s", ended(ws))
	}
}

// TestTopEnds, by what is typed and by signals, and the terminal is as it was.
func TestTopEnds(t *testing.T) {
	t.Parallel()
	addr := "unix:" + filepath.Join(t.TempDir(), "s")
	defer shownAt(t, addr)()
	for name, end := range map[string]func(*terminal){
		"q":      func(term *terminal) { term.typed("q") },
		"Ctrl-C": func(term *terminal) { term.typed("\x03") },
		"TERM":   func(term *terminal) { _ = term.cmd.Process.Signal(unix.SIGTERM) },
		"HUP":    func(term *terminal) { _ = term.cmd.Process.Signal(unix.SIGHUP) },
	} {
		t.Run(name, func(t *testing.T) {
			term := shellOnTerminal(t)
			before := term.modes()
			term.typed("LC_ALL=C TERM=xterm $U top -i 20ms " + addr + "; echo left $?'.'\n")
			term.expect("healthy")
			// It is the shell's child: a shell waits for it, and says how it ended.
			pid := childOf(t, term.cmd.Process.Pid)
			term.cmd.Process, _ = os.FindProcess(pid)
			end(term)
			term.expect(topLeave)
			term.expect("left 0.")
			term.expect("$ ")
			// The shell edits lines in modes of its own: it has said where it is, so these are they again.
			if after := term.modes(); after != before {
				t.Errorf("modes %+v, before %+v", after, before)
			}
		})
	}
}

// childOf is the only child of a process.
func childOf(t *testing.T, pid int) (child int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		t.Skipf("no list of children: %v", err)
	}
	if _, err := fmt.Sscan(string(b), &child); err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	return child
}

// TestTopStopsAndContinues as a shell's job: the shell gets its terminal back.
func TestTopStopsAndContinues(t *testing.T) {
	t.Parallel()
	addr := "unix:" + filepath.Join(t.TempDir(), "s")
	defer shownAt(t, addr)()
	term := shellOnTerminal(t)
	term.typed("LC_ALL=C TERM=xterm $U top -i 20ms " + addr + "; echo left $?'.'\n")
	for range 3 {
		term.expect("healthy")
		term.typed("\x1a")
		term.expect(topLeave)
		term.expect("Stopped")
		term.expect("$ ")
		term.typed("fg\n")
		term.expect(topEnter)
	}
	term.typed("q")
	term.expect(topLeave)
}

// TestTopWithoutColours: with NO_COLOR there are none, on a dumb terminal nothing is drawn at all.
func TestTopWithoutColours(t *testing.T) {
	t.Parallel()
	addr := "unix:" + filepath.Join(t.TempDir(), "s")
	defer shownAt(t, addr)()
	term := topOnTerminal(t, []string{"NO_COLOR=1"}, addr)
	term.expect(topHome + "unknot test  healthy")
	term.typed("q")
	if ws, rest := term.wait(); ws.ExitStatus() != 0 || strings.Contains(rest, "\x1b[1m") || strings.Contains(rest, "\x1b[7m") {
		t.Errorf("%s: %q", ended(ws), rest)
	}
	term = topOnTerminal(t, []string{"TERM=dumb"}, addr)
	for range 3 {
		term.expect("unknot test  healthy")
	}
	term.typed("\x03")
	if ws, rest := term.wait(); ws.ExitStatus() != 0 || strings.Contains(rest, "\x1b") {
		t.Errorf("%s: %q", ended(ws), rest)
	}
}

// TestTopOnce: where there is no terminal, one table of one interval.
func TestTopOnce(t *testing.T) {
	addr := "unix:" + filepath.Join(t.TempDir(), "s")
	stop := shownAt(t, addr)
	for _, args := range [][]string{{}, {"--once"}} {
		code, out, errs := inProcess(append(append([]string{"top", "-i", "20ms"}, args...), addr)...)
		if code != 0 || errs != "" || strings.Count(out, "unknot test  healthy") != 1 || !strings.Contains(out, " in the last ") || strings.Contains(out, "\x1b") || strings.Contains(out, "q quit") {
			t.Errorf("%v: %d %q\n%s", args, code, errs, out)
		}
	}
	stop()
	for args, want := range map[string]string{
		"top " + addr:               "connect: no such file or directory",
		"top 127.0.0.1:1":           "unknot: top: 127.0.0.1:1: connect: connection refused\n",
		"top x":                     `address "x": want HOST:PORT`,
		"top -i 1us " + addr:        "want 10ms or more",
		"top --sort size " + addr:   "want calls, drops, depth or name",
		"top " + addr + " and more": "accepts at most 1 arg",
	} {
		if code, out, errs := inProcess(strings.Fields(args)...); code == 0 || out != "" || !strings.Contains(errs, want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: %d %q", args, code, errs)
		}
	}
}

// TestRunStatus: the page is there while the command runs, and gone with it; an address that cannot be is an error
// before the command starts.
func TestRunStatus(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	addr := "unix:" + filepath.Join(dir, "s")
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	c := unknot(t, "run", "--quiet", "--status", addr, "--", "sh", "-c", "cat "+fifo+"; exit 3")
	inGroup(t, c)
	f, err := os.OpenFile(fifo, os.O_WRONLY, 0) // cat has opened it: that was a call
	if err != nil {
		t.Fatal(err)
	}
	client, err := status.NewClient(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	s, err := client.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Info.Program != "run" || s.Info.Command != "sh" || s.Info.Confinement != "private" || s.Counters.Continued == 0 || len(s.Sources) != 1 || s.Sources[0].Name != "sh" {
		t.Errorf("%+v", s)
	}
	second := unknot(t, "run", "--status", addr, "--", "touch", filepath.Join(dir, "made"))
	if out, err := second.CombinedOutput(); second.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "--status: socket \""+dir+"/s\": another process listens there") {
		t.Errorf("%v %s", err, out)
	}
	bad := unknot(t, "run", "--status", "9090", "--", "touch", filepath.Join(dir, "made"))
	if out, err := bad.CombinedOutput(); bad.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), "--status: address \"9090\": want HOST:PORT") {
		t.Errorf("%v %s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "made")); err == nil {
		t.Error("the command ran")
	}
	_ = f.Close()
	if ws := waited(t, c); ws.ExitStatus() != 3 {
		t.Errorf("it ended by %s", ended(ws))
	}
	if _, err := os.Lstat(filepath.Join(dir, "s")); !os.IsNotExist(err) {
		t.Errorf("the page's socket is left: %v", err)
	}
}
