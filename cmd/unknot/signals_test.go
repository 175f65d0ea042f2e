//go:build cgo

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// marker is the last signal that a test sends: it ends testdata/signals.c.
const marker = syscall.Signal(64)

// passedOn are the signals that run passes on: all that a process can catch,
// without those that its own runtime uses.
func passedOn() (all []syscall.Signal) {
	for sig := syscall.Signal(1); sig < marker; sig++ {
		switch sig {
		case unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, unix.SIGURG, unix.SIGPROF, unix.SIGSYS, 32, 33, 40:
		default:
			all = append(all, sig)
		}
	}
	return all
}

// listened is a run of testdata/signals.c.
type listened struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines *bufio.Reader
	errs  *bytes.Buffer
}

func listen(t *testing.T, program string, args ...string) *listened {
	t.Helper()
	l := &listened{t: t, cmd: unknot(t, append([]string{"run", "--quiet", "--", program}, args...)...), errs: &bytes.Buffer{}}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	l.cmd.Stdout, l.cmd.Stderr = w, l.errs
	inGroup(t, l.cmd)
	_ = w.Close()
	_ = r.SetReadDeadline(time.Now().Add(hung))
	l.lines = bufio.NewReader(r)
	return l
}

func (l *listened) line() string {
	l.t.Helper()
	s, err := l.lines.ReadString('\n')
	if err != nil {
		l.t.Fatalf("%v after %q; standard error: %s", err, s, l.errs)
	}
	return strings.TrimSuffix(s, "\n")
}

// send sends a signal to unknot alone or to its process group.
func (l *listened) send(sig syscall.Signal, group bool) {
	l.t.Helper()
	pid := l.cmd.Process.Pid
	if group {
		pid = -pid
	}
	if err := unix.Kill(pid, sig); err != nil {
		l.t.Fatal(err)
	}
}

// TestRunPassesEachSignalOnce: to whom it was sent makes no difference, nor where
// the command is.
func TestRunPassesEachSignalOnce(t *testing.T) {
	program := filepath.Join(t.TempDir(), "signals")
	compileC(t, "testdata/signals.c", program)
	for _, place := range []string{"with us", "group", "session"} {
		for _, to := range []string{"unknot", "the group"} {
			t.Run(place+"/"+to, func(t *testing.T) {
				t.Parallel()
				l := listen(t, program, place)
				if got := l.line(); got != "up" {
					t.Fatal(got)
				}
				for _, sig := range passedOn() {
					l.send(sig, to == "the group")
					if got, want := l.line(), fmt.Sprintf("%d 0", sig); got != want {
						t.Fatalf("signal %v: the command got %q, want %q", sig, got, want)
					}
				}
				l.send(marker, false)
				if got := l.line(); got != "64 0" {
					t.Errorf("the command got %q too", got)
				}
				if ws := waited(t, l.cmd); ws.ExitStatus() != 3 || l.errs.Len() > 0 {
					t.Errorf("%s, says %q", ended(ws), l.errs)
				}
			})
		}
	}
}

// TestRunPassesNoContinueTwice sends SIGCONT and SIGTSTP to the group in turn, each
// as soon as the command has had the other: often before its guard has. Every
// processor is kept busy, so that the guard is late.
func TestRunPassesNoContinueTwice(t *testing.T) {
	program := filepath.Join(t.TempDir(), "signals")
	compileC(t, "testdata/signals.c", program)
	for range runtime.NumCPU() * 2 {
		keepBusy(t)
	}
	l := listen(t, program, "with us")
	if got := l.line(); got != "up" {
		t.Fatal(got)
	}
	for i := range 100 {
		for _, sig := range []syscall.Signal{unix.SIGCONT, unix.SIGTSTP} {
			l.send(sig, true)
			if got, want := l.line(), fmt.Sprintf("%d 0", sig); got != want {
				t.Fatalf("turn %d, signal %v: the command got %q, want %q", i, sig, got, want)
			}
		}
	}
	l.send(marker, false)
	if got := l.line(); got != "64 0" {
		t.Errorf("the command got %q too", got)
	}
	waited(t, l.cmd)
}

// keepBusy starts a process that computes until the test is over.
func keepBusy(t *testing.T) {
	t.Helper()
	c := exec.Command("sh", "-c", "while :; do :; done")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
}

// TestRunLosesNoSignalAtItsStart sends one at many moments. If unknot or the
// command does not die of it the command gets it, once. QUIT is not among them: in
// the moment before unknot's own code runs the Go runtime answers it by a dump.
func TestRunLosesNoSignalAtItsStart(t *testing.T) {
	program := filepath.Join(t.TempDir(), "signals")
	compileC(t, "testdata/signals.c", program)
	start := time.Now()
	l := listen(t, program, "with us")
	l.line()
	window := time.Since(start) * 2
	l.send(marker, false)
	waited(t, l.cmd)
	moments := 14
	if *long {
		moments = 60
	}
	for _, to := range []string{"unknot", "the group"} {
		t.Run(to, func(t *testing.T) {
			t.Parallel()
			died, got := 0, 0
			for i := range moments {
				sig := []syscall.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1, unix.SIGQUIT, unix.SIGALRM, unix.SIGUSR2, unix.SIGINT}[i%7]
				// One that comes the same way to unknot, and so does not overtake a second sig.
				last := marker
				if slices.Contains(endings, sig) {
					last = 34
				}
				l := listen(t, program, "with us", strconv.Itoa(int(last)))
				time.Sleep(window * time.Duration(i) / time.Duration(moments))
				l.send(sig, to == "the group")
				said, err := "", error(nil)
				for n := 0; err == nil; n++ {
					if n == 2 { // up, and the signal
						l.send(last, false)
					}
					var line string
					line, err = l.lines.ReadString('\n')
					said += line
				}
				if err != io.EOF {
					t.Fatalf("signal %v at moment %d: the command says %q, and then %v", sig, i, said, err)
				}
				ws := waited(t, l.cmd)
				switch {
				case said == fmt.Sprintf("up\n%d 0\n%d 0\n", sig, last) && ws.ExitStatus() == 3:
					got++
				case said == "" && ws.Signaled() && ws.Signal() == sig:
					died++
				default:
					t.Errorf("signal %v at moment %d: %s, the command says %q", sig, i, ended(ws), said)
				}
				if l.errs.Len() > 0 {
					t.Errorf("signal %v at moment %d: %s", sig, i, l.errs)
				}
			}
			t.Logf("of %d the command got %d, and %d ended it", moments, got, died)
		})
	}
}

// TestRunOnATerminal: what is typed reaches the command once, wherever it is.
func TestRunOnATerminal(t *testing.T) {
	program := filepath.Join(t.TempDir(), "signals")
	compileC(t, "testdata/signals.c", program)
	for _, place := range []string{"with us", "group", "session"} {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			c := unknot(t, "run", "--quiet", "--", program, place)
			term := onTerminal(t, c)
			term.expect("up\r\n")
			// To unknot alone first: where it has not taken a signal yet, a second one is none to it.
			for _, sig := range []syscall.Signal{unix.SIGINT, unix.SIGQUIT, unix.SIGTSTP, unix.SIGWINCH} {
				if err := c.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
				term.expect(fmt.Sprintf("%d 0\r\n", sig))
			}
			term.typed("\x03")
			term.expect("2 0\r\n")
			term.typed("\x1c")
			term.expect("3 0\r\n")
			if err := c.Process.Signal(marker); err != nil {
				t.Fatal(err)
			}
			ws, rest := term.wait()
			shown := slices.DeleteFunc(strings.Split(rest, "\r\n"), func(s string) bool { return s == "" || s == "64 0" })
			if ws.ExitStatus() != 3 || len(shown) > 0 {
				t.Errorf("%s, and the terminal shows %q", ended(ws), shown)
			}
		})
	}
}

// TestRunStopsAndContinues as a job of a shell. Quotes within words keep the
// terminal's echo from being taken for output. The command forks nothing: a shell
// whose child of vfork(2) is stopped does not stop, supervised or not.
func TestRunStopsAndContinues(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "signals")
	compileC(t, "testdata/signals.c", program)
	term := shellOnTerminal(t)
	term.typed("$U run --quiet -- " + program + " job\n")
	term.expect("up\r\n")
	for range 10 {
		term.typed("\x1a")
		term.expect("Stopped")
		term.expect("\r\n$ ")
		term.typed("fg\n")
		term.expect("cont\r\n")
	}
	term.typed("\x1a")
	term.expect("Stopped")
	term.expect("\r\n$ ")
	term.typed("bg\n")
	term.expect("cont\r\n")
	term.typed("kill -USR1 %1; wait %1; echo stat''us $?\n")
	term.expect("done\r\n")
	term.expect("status 5\r\n")
	// A command that stops itself stops the job.
	term.typed("$U run --quiet -- sh -c 'echo u\"\"p; kill -TSTP $$; echo b\"\"ack'\n")
	term.expect("up\r\n")
	term.expect("Stopped")
	term.expect("\r\n$ ")
	term.typed("fg\n")
	term.expect("back\r\n")
	term.typed("exit 6\n")
	if ws, rest := term.wait(); ws.ExitStatus() != 6 {
		t.Errorf("%s: %s", ended(ws), rest)
	}
}

// TestRunEndsLoops: a shell gives up its loop when its child died of SIGINT.
func TestRunEndsLoops(t *testing.T) {
	t.Parallel()
	term := shellOnTerminal(t)
	term.typed("for i in 1 2 3; do $U run --quiet -- sh -c \"echo tur''n $i; exec sleep 1000\"; done\n")
	term.expect("turn 1\r\n")
	term.typed("\x03")
	term.expect("\r\n$ ")
	term.typed("echo aft''er\n")
	term.expect("after\r\n")
	term.typed("exit 6\n")
	if ws, rest := term.wait(); ws.ExitStatus() != 6 || strings.Contains(rest, "turn 2") {
		t.Errorf("%s: %s", ended(ws), rest)
	}
}
