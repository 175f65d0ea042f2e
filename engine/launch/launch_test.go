package launch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/launch"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/cbpf"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	launch.Init()
	heirMain()
	testchild.Main(m, testchild.Roles{"tree": treeRole})
}

// hung is how long what must happen may take; only a failure takes as long.
const hung = 3 * time.Minute

// A supervisor continues every trapped call of the commands that it starts.
type supervisor struct {
	e     *engine.Engine
	run   func() // begins, once
	ended chan error
	stop  context.CancelFunc
	tell  func() // is called by the handler
}

func newSupervisor() (*supervisor, error) {
	s := &supervisor{ended: make(chan error, 1), tell: func() {}}
	// One receiver: another one comes, and stays, once two listeners are open at once,
	// which a test that counts what is left must not see.
	e, err := engine.New(engine.Config{Handler: engine.HandlerFunc(func(r engine.Request) { s.tell(); _ = r.Continue() }), Workers: 1, Receivers: 1, Queue: 64, StopTimeout: hung})
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	s.e, s.stop = e, stop
	s.run = sync.OnceFunc(func() { go func() { s.ended <- e.Run(ctx) }() })
	return s, nil
}

// add serves a listener.
func (s *supervisor) add(l *notify.Listener) error {
	if _, err := s.e.Add(l); err != nil {
		_ = l.Close()
		return err
	}
	s.run()
	return nil
}

func (s *supervisor) end() error {
	s.stop()
	s.run() // that there is something to end
	return <-s.ended
}

// start starts a command with two calls trapped. A start that hangs ends the test.
func (s *supervisor) start(c *launch.Command) (*launch.Process, error) {
	timer := time.AfterFunc(hung, func() { panic("launch.Start hangs") })
	defer timer.Stop()
	return launch.Start(c, program(unix.SYS_EXECVE, unix.SYS_OPENAT), 0, s.add)
}

func program(calls ...int) []unix.SockFilter {
	prog, err := notify.TrapProgram(calls...)
	if err != nil {
		panic(err)
	}
	return prog
}

func supervise(t *testing.T) *supervisor {
	t.Helper()
	s, err := newSupervisor()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.end(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// wait waits for the command, and kills it if it hangs.
func wait(t *testing.T, p *launch.Process) (syscall.WaitStatus, error) {
	t.Helper()
	timer := time.AfterFunc(hung, func() {
		t.Error("the command hangs")
		_ = p.Signal(unix.SIGKILL)
	})
	defer timer.Stop()
	return p.Wait()
}

// output is what a command prints, on both outputs.
func (s *supervisor) output(t *testing.T, c *launch.Command) string {
	t.Helper()
	r, w := pipe(t)
	null := open(t, os.DevNull)
	c.Files = append([]*os.File{null, w, w}, c.Files...)
	p, err := s.start(c)
	_ = w.Close()
	if err != nil {
		t.Fatalf("%q: %v", c.Args, err)
	}
	b := read(t, r)
	if ws, err := wait(t, p); err != nil || ws != 0 {
		t.Errorf("%q: status %#x, %v", c.Args, ws, err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	return b
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

func open(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// read reads to the end, which comes when nobody has the other one.
func read(t *testing.T, r *os.File) string {
	t.Helper()
	_ = r.SetReadDeadline(time.Now().Add(hung))
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("%v after %q", err, b)
	}
	return string(b)
}

// line reads a line.
func line(t *testing.T, r *os.File) string {
	t.Helper()
	_ = r.SetReadDeadline(time.Now().Add(hung))
	var all []byte
	for b := make([]byte, 1); ; all = append(all, b[0]) {
		if n, err := r.Read(b); err != nil || n == 0 {
			t.Fatalf("%v after %q", err, all)
		}
		if b[0] == '\n' {
			return string(all)
		}
	}
}

func script(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func needGuard(t *testing.T) {
	t.Helper()
	if !launch.Guarded {
		t.Skip("no guard in this build")
	}
}

// TestStartPassesBytes: no string is text to us.
func TestStartPassesBytes(t *testing.T) {
	s := supervise(t)
	args := []string{"caf\xe9", "-c", "/bin/cat /proc/$$/cmdline /proc/$$/environ; exit 0", "\xff\xfe", "", "a b", "\n"}
	env := []string{"A=1", "A=2", "A=1", "", "LONELY", "=", "X=\xff\x80"}
	got := s.output(t, &launch.Command{Paths: []string{"/bin/sh"}, Args: args, Env: env})
	if want := strings.Join(append(args, env...), "\x00") + "\x00"; got != want {
		t.Errorf("the command has %q, want %q", got, want)
	}
	dir := filepath.Join(t.TempDir(), "caf\xe9")
	path := script(t, filepath.Join(dir, "prog\xff"), "#!/bin/sh\necho \"$0\"; pwd\n", 0o755)
	if got, want := s.output(t, &launch.Command{Paths: []string{path}, Dir: dir}), path+"\n"+dir+"\n"; got != want {
		t.Errorf("the script is run as %q, want %q", got, want)
	}
}

// TestStartGivesFiles passes on files whose own numbers are each other's goals.
func TestStartGivesFiles(t *testing.T) {
	s := supervise(t)
	const n = 24
	dir := t.TempDir()
	var files []*os.File
	var want, args strings.Builder
	for i := range n {
		files = append(files, open(t, script(t, fmt.Sprintf("%s/%d", dir, i), fmt.Sprintf("file %d\n", i), 0o600)))
	}
	slices.Reverse(files)
	overlaps := false
	for i, f := range files {
		overlaps = overlaps || int(f.Fd()) != i+3 && int(f.Fd()) < n+3
		fmt.Fprintf(&want, "file %d\n", n-1-i)
		fmt.Fprintf(&args, " /proc/self/fd/%d", i+3)
	}
	if !overlaps {
		t.Error("no file's number is another one's goal")
	}
	command := "cat" + args.String() + "; for fd in $(seq " + fmt.Sprint(n+3) + " 99); do [ ! -e /proc/$$/fd/$fd ] || echo $fd is open; done"
	if got := s.output(t, &launch.Command{Paths: []string{"/bin/sh"}, Args: []string{"sh", "-c", command}, Files: files}); got != want.String() {
		t.Errorf("the files are %q", got)
	}
}

// TestRunIsExecvp: what execvp(3) does with paths that cannot be run.
func TestRunIsExecvp(t *testing.T) {
	s := supervise(t)
	dir := t.TempDir()
	text := script(t, dir+"/text", "echo \"$0\" \"$@\"\n", 0o755) // without #!
	denied := script(t, dir+"/denied", "echo x\n", 0o644)
	orphan := script(t, dir+"/orphan", "#!/nonexistent/interpreter\n", 0o755)
	binary := script(t, dir+"/binary", "\x7fELF and no more", 0o755)
	for _, c := range []struct {
		paths []string
		args  []string
		want  string
		errno syscall.Errno
	}{
		{[]string{text}, []string{"name", "a", ""}, text + " a \n", 0},
		{[]string{dir + "/nothing", denied, text + "/below", text}, []string{"name"}, text + "\n", 0},
		{[]string{denied, dir + "/nothing"}, nil, "", unix.EACCES},
		{[]string{dir + "/nothing"}, nil, "", unix.ENOENT},
		{[]string{orphan}, nil, "", unix.ENOENT},
		{[]string{dir}, nil, "", unix.EACCES},
		{[]string{text + "/below"}, nil, "", unix.ENOTDIR},
		{[]string{strings.Repeat("x", 5000), text}, nil, "", unix.ENAMETOOLONG},
	} {
		if c.errno == 0 {
			if got := s.output(t, &launch.Command{Paths: c.paths, Args: c.args}); got != c.want {
				t.Errorf("%q prints %q, want %q", c.paths, got, c.want)
			}
			continue
		}
		_, err := s.start(&launch.Command{Paths: c.paths, Args: c.args})
		if errno, ok := launch.NotRun(err); !ok || errno != c.errno {
			t.Errorf("%q: %v, want execve: %v", c.paths, err, c.errno)
		}
	}
	// The shell is what fails on this one, as with execvp.
	null := open(t, os.DevNull)
	p, err := s.start(&launch.Command{Paths: []string{binary}, Files: []*os.File{null, null, null}})
	if err != nil {
		t.Fatal(err)
	}
	if ws, err := wait(t, p); err != nil || ws.ExitStatus() == 0 {
		t.Errorf("%s: status %#x, %v", binary, ws, err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	script(t, dir+"/a/prog", "", 0o644)
	script(t, dir+"/b/prog", "", 0o755)
	script(t, dir+"/here", "", 0o755)
	for _, c := range []struct {
		path, name string
		want       []string
	}{
		{dir + "/a:" + dir + "/b", "prog", []string{dir + "/a/prog", dir + "/b/prog"}},
		{"a:/nonexistent:" + dir + "/here:b", "prog", []string{"a/prog", "b/prog"}},
		{"", "here", []string{"here"}}, // an empty entry is the working directory
		{"/nonexistent:", "here", []string{"here"}},
		{":/nonexistent", "here", []string{"here"}},
		{"/nonexistent::a", "here", []string{"here"}},
		{"/nonexistent", "./here", []string{"./here"}},
		{"/nonexistent", "x/y", []string{"x/y"}},
		{"/nonexistent", "here", nil},
		{"/bin", "", nil},
		{"-", "sh", []string{"/bin/sh"}}, // - is no PATH
	} {
		t.Setenv("PATH", c.path)
		if c.path == "-" {
			os.Unsetenv("PATH")
		}
		got, err := launch.Find(c.name)
		if c.path == "-" && len(got) > 0 {
			got = got[:1] // /usr/bin may have it too
		}
		if !slices.Equal(got, c.want) || (err != nil) != (c.want == nil) || err != nil && !errors.Is(err, unix.ENOENT) {
			t.Errorf("PATH=%s: %q is %q, %v; want %q", c.path, c.name, got, err, c.want)
		}
	}
}

func TestStartErrorsNameTheStep(t *testing.T) {
	s := supervise(t)
	path := []string{"/bin/true"}
	good := program(unix.SYS_EXECVE)
	for _, c := range []struct {
		name  string
		c     launch.Command
		prog  []unix.SockFilter
		flags notify.InstallFlags
		says  string
		errno error
	}{
		{"no directory", launch.Command{Paths: path, Dir: "/nonexistent"}, good, 0, "chdir", unix.ENOENT},
		{"a directory that is none", launch.Command{Paths: path, Dir: "/etc/passwd"}, good, 0, "chdir", unix.ENOTDIR},
		{"a filter without a return", launch.Command{Paths: path}, []unix.SockFilter{{Code: cbpf.Load}}, 0, "seccomp(2)", unix.EINVAL},
		{"a flag that is none", launch.Command{Paths: path}, good, 1 << 30, "seccomp(2)", unix.EINVAL},
		{"no filter", launch.Command{Paths: path}, nil, 0, "0 instructions", nil},
		{"a long filter", launch.Command{Paths: path}, make([]unix.SockFilter, 4097), 0, "4097 instructions", nil},
		{"no path", launch.Command{}, good, 0, "no path", nil},
		{"a zero byte in the path", launch.Command{Paths: []string{"a\x00"}}, good, 0, "zero byte", unix.EINVAL},
		{"a zero byte in an argument", launch.Command{Paths: path, Args: []string{"x", "a\x00b"}}, good, 0, "zero byte", unix.EINVAL},
		{"a zero byte in the environment", launch.Command{Paths: path, Env: []string{"a\x00b"}}, good, 0, "zero byte", unix.EINVAL},
		{"a zero byte in the directory", launch.Command{Paths: path, Dir: "a\x00b"}, good, 0, "zero byte", unix.EINVAL},
		{"TSYNC", launch.Command{Paths: path}, good, notify.TSync, "TSYNC", nil},
	} {
		p, err := launch.Start(&c.c, c.prog, c.flags, s.add)
		if err == nil || p != nil || !strings.Contains(err.Error(), c.says) || c.errno != nil && !errors.Is(err, c.errno) {
			t.Errorf("%s: %v, want %s: %v", c.name, err, c.says, c.errno)
		}
		if _, ok := launch.NotRun(err); ok {
			t.Errorf("%s: NotRun says that everything was ready", c.name)
		}
	}
	noChildren(t)
}

// noChildren waits until this process has no children.
func noChildren(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(hung); ; time.Sleep(time.Millisecond) {
		left := children(os.Getpid())
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("children are left: %v", left)
		}
	}
}

func TestAnErrorOfAddEndsTheStart(t *testing.T) {
	mark := t.TempDir() + "/mark"
	refused := errors.New("refused")
	c := &launch.Command{Paths: []string{"/bin/sh"}, Args: []string{"sh", "-c", ": >" + mark}}
	p, err := launch.Start(c, program(unix.SYS_EXECVE), 0, func(l *notify.Listener) error {
		return errors.Join(refused, l.Close())
	})
	if p != nil || !errors.Is(err, refused) {
		t.Errorf("%v, want what add returned", err)
	}
	noChildren(t)
	if _, err := os.Stat(mark); err == nil {
		t.Error("the command has run")
	}
}

// TestNothingRunsBeforeAddReturns: the command's execve is the first trapped call.
func TestNothingRunsBeforeAddReturns(t *testing.T) {
	s := supervise(t)
	calls := make(chan struct{}, 100)
	s.tell = func() { calls <- struct{}{} }
	p, err := launch.Start(&launch.Command{Paths: []string{"/bin/true"}}, program(unix.SYS_EXECVE, unix.SYS_CLOSE, unix.SYS_RT_SIGPROCMASK), 0, func(l *notify.Listener) error {
		if err := s.add(l); err != nil {
			return err
		}
		for range 20 {
			runtime.Gosched()
			time.Sleep(time.Millisecond)
		}
		if len(calls) > 0 {
			return errors.New("a call was made")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if ws, err := wait(t, p); ws != 0 || err != nil || len(calls) == 0 {
		t.Errorf("status %#x, %v, %d calls", ws, err, len(calls))
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// children are the processes whose parent is pid.
func children(pid int) (found []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		b, _ := os.ReadFile(list)
		for _, word := range strings.Fields(string(b)) {
			var n int
			_, _ = fmt.Sscan(word, &n)
			found = append(found, n)
		}
	}
	return found
}

// TestASignalBeforeTheCommandRuns ends the process that would become the command.
func TestASignalBeforeTheCommandRuns(t *testing.T) {
	needGuard(t)
	s := supervise(t)
	p, err := launch.Start(&launch.Command{Paths: []string{"/bin/true"}}, program(unix.SYS_EXECVE), 0, func(l *notify.Listener) error {
		guards := children(os.Getpid())
		if len(guards) != 1 {
			return fmt.Errorf("children %v, want the guard", guards)
		}
		for _, pid := range children(guards[0]) {
			if err := unix.Kill(pid, unix.SIGTERM); err != nil {
				return err
			}
		}
		return s.add(l)
	})
	if err != nil {
		t.Fatal(err)
	}
	if ws, err := wait(t, p); err != nil || !ws.Signaled() || ws.Signal() != unix.SIGTERM || p.PID() != 0 {
		t.Errorf("status %#x, %v, pid %d; want the signal, and no pid", ws, err, p.PID())
	}
	if err := p.Signal(unix.SIGTERM); !errors.Is(err, launch.ErrOver) {
		t.Errorf("signal it: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	noChildren(t)
}

func TestStatusAndSignals(t *testing.T) {
	s := supervise(t)
	for _, c := range []struct {
		command string
		want    syscall.WaitStatus
	}{{"exit 0", 0}, {"exit 7", 7 << 8}, {"kill -KILL $$", 9}, {"kill -USR1 $$", 10}} {
		p, err := s.start(&launch.Command{Paths: []string{"/bin/sh"}, Args: []string{"sh", "-c", c.command}})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if ws, err := wait(t, p); ws != c.want || err != nil {
				t.Errorf("%s: status %#x, %v; want %#x", c.command, ws, err, c.want)
			}
		}
		<-p.Alone()
		if err := p.Signal(unix.SIGTERM); !errors.Is(err, launch.ErrOver) {
			t.Errorf("%s: signal it: %v", c.command, err)
		}
		if err := errors.Join(p.Close(), p.Close()); err != nil {
			t.Error(err)
		}
	}
	r, w := pipe(t)
	p, err := s.start(&launch.Command{Paths: []string{"/bin/sh"}, Args: []string{"sh", "-c", "trap 'exit 3' USR1; echo up; while :; do sleep .01; done"}, Files: []*os.File{w, w, w}})
	if err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	line(t, r)
	if err := p.Signal(unix.SIGUSR1); err != nil {
		t.Error(err)
	}
	if ws, err := wait(t, p); ws.ExitStatus() != 3 || err != nil {
		t.Errorf("status %#x, %v", ws, err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	noChildren(t)
}

// TestNotifyTells of stops, and of what the guard was sent.
func TestNotifyTells(t *testing.T) {
	needGuard(t)
	s := supervise(t)
	events := make(chan launch.Event, 16)
	expect := func(want launch.Event) {
		t.Helper()
		select {
		case got := <-events:
			got.Code = 0
			if got != want {
				t.Errorf("told %+v, want %+v", got, want)
			}
		case <-time.After(hung):
			t.Fatalf("not told %+v", want)
		}
	}
	r, w := pipe(t)
	p, err := s.start(&launch.Command{Paths: []string{"/bin/cat"}, Files: []*os.File{r, w, w}, Notify: func(e launch.Event) { events <- e }})
	if err != nil {
		t.Fatal(err)
	}
	if p.PID() == p.Guard() || unix.Kill(p.PID(), 0) != nil || unix.Kill(p.Guard(), 0) != nil {
		t.Errorf("command %d, guard %d", p.PID(), p.Guard())
	}
	_ = p.Signal(unix.SIGSTOP)
	expect(launch.Event{Kind: launch.Stopped, Signal: unix.SIGSTOP})
	_ = p.Signal(unix.SIGCONT)
	expect(launch.Event{Kind: launch.Continued})
	for _, sig := range []syscall.Signal{unix.SIGHUP, unix.SIGTERM, unix.SIGSEGV, 35} {
		_ = unix.Kill(p.Guard(), sig)
		p.Sync()
		if len(events) != 1 {
			t.Errorf("signal %d: %d events after Sync", sig, len(events))
		}
		expect(launch.Event{Kind: launch.Saw, Signal: sig, InGroup: true})
	}
	_ = p.Signal(unix.SIGKILL)
	if ws, err := wait(t, p); ws.Signal() != unix.SIGKILL || err != nil {
		t.Errorf("status %#x, %v", ws, err)
	}
	p.Sync() // after the end too it returns
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// TestTheEndOfTheGuard: without a guard the command is not left to itself.
func TestTheEndOfTheGuard(t *testing.T) {
	needGuard(t)
	s := supervise(t)
	r, w := pipe(t)
	input, _ := pipe(t) // one of its own: the command must not read its "up" itself
	p, err := s.start(&launch.Command{Paths: []string{"/bin/sh"}, Args: []string{"sh", "-c", "echo up; read never"}, Files: []*os.File{input, w, w}})
	if err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if got := line(t, r); got != "up" {
		t.Fatal(got)
	}
	_ = unix.Kill(p.Guard(), unix.SIGKILL)
	if ws, err := wait(t, p); !errors.Is(err, launch.ErrGuard) {
		t.Errorf("status %#x, %v; want ErrGuard", ws, err)
	}
	read(t, r) // until nobody has the other end
	<-p.Alone()
	_ = p.Close()
	noChildren(t)
}

// aTree is a command with descendants that want to be left alone.
const aTree = `setsid sh -c '(trap "" TERM HUP; setsid sleep 1000 & sleep 1000) & wait' & (sleep 1000 &) ; setsid -f sleep 1000; echo up; `

// TestCloseKillsTheRest: what outlives the command is the guard's to kill.
func TestCloseKillsTheRest(t *testing.T) {
	needGuard(t)
	s := supervise(t)
	r, w := pipe(t)
	p, err := s.start(&launch.Command{Paths: []string{"/bin/sh"}, Args: []string{"sh", "-c", aTree + "exit 5"}, Files: []*os.File{w, w, w}})
	if err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	line(t, r)
	if ws, err := wait(t, p); ws.ExitStatus() != 5 || err != nil {
		t.Errorf("status %#x, %v", ws, err)
	}
	select {
	case <-p.Alone():
		t.Error("Alone, with descendants that sleep")
	default:
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if got := read(t, r); got != "" {
		t.Errorf("%q", got)
	}
	<-p.Alone()
	noChildren(t)
}

// treeRole starts a command with its own standard output, and stays.
func treeRole(c *testchild.Conn, args []string) error {
	s, err := newSupervisor()
	if err != nil {
		return err
	}
	p, err := s.start(&launch.Command{Paths: []string{"/bin/sh"}, Args: []string{"sh", "-c", args[1]}, Leave: args[0] == "leave"})
	if err != nil {
		return err
	}
	if args[0] == "leave later" {
		if err := p.SetLeave(true); err != nil {
			return err
		}
		p.Sync()
	}
	if err := c.Say("started"); err != nil {
		return err
	}
	_, err = c.Hear() // never
	return err
}

// TestTheEndOfTheSupervisor kills it; then the whole tree is to end, or to go on.
func TestTheEndOfTheSupervisor(t *testing.T) {
	needGuard(t)
	for _, how := range []string{"kill", "leave", "leave later"} {
		t.Run(how, func(t *testing.T) {
			fifo := filepath.Join(t.TempDir(), "said")
			if err := unix.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			r, err := os.OpenFile(fifo, os.O_RDONLY|unix.O_NONBLOCK, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			back := filepath.Join(t.TempDir(), "heard")
			if err := unix.Mkfifo(back, 0o600); err != nil {
				t.Fatal(err)
			}
			command := "exec >" + fifo + " 2>/dev/null; " + aTree + "sleep 1000"
			if how != "kill" {
				command = "exec >" + fifo + " 2>&1 <>" + back + "; echo up; read go; echo went on; "
			}
			child := testchild.Start(t, "tree", how, command)
			child.Expect("started")
			waitReadable(t, r)
			if got := line(t, r); got != "up" {
				t.Fatal(got)
			}
			if err := child.Cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			child.Wait()
			if how == "kill" {
				if got := read(t, r); got != "" {
					t.Errorf("%q", got)
				}
				return
			}
			w, err := os.OpenFile(back, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			_, _ = w.WriteString("go\n")
			if got := read(t, r); got != "went on\n" {
				t.Errorf("the command says %q", got)
			}
		})
	}
}

// waitReadable waits until a fifo has a writer, before which it reads as ended.
func waitReadable(t *testing.T, r *os.File) {
	t.Helper()
	raw, err := r.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for end := time.Now().Add(hung); poll[0].Revents&unix.POLLIN == 0; {
			_, _ = unix.Poll(poll, 100)
			if time.Now().After(end) {
				t.Error("nothing comes")
				return
			}
		}
	})
}

// TestStartNeedsNoStopOfTheWorld: a garbage collection while a start is under way
// waits for no trapped call. Install and os/exec deadlock here.
func TestStartNeedsNoStopOfTheWorld(t *testing.T) {
	s := supervise(t)
	s.tell = runtime.GC
	for range 20 {
		p, err := s.start(&launch.Command{Paths: []string{"/bin/true"}})
		if err != nil {
			t.Fatal(err)
		}
		if ws, err := wait(t, p); ws != 0 || err != nil {
			t.Fatalf("status %#x, %v", ws, err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStartsLeaveNothing(t *testing.T) {
	s := supervise(t)
	starts := func(n int) {
		for i := range n {
			path := "/bin/true"
			if i%4 == 3 {
				path = "/nonexistent" // a start that fails leaves nothing either
			}
			p, err := s.start(&launch.Command{Paths: []string{path}})
			if _, ok := launch.NotRun(err); ok != (i%4 == 3) {
				t.Fatal(err)
			}
			if err != nil {
				continue
			}
			if ws, err := wait(t, p); ws != 0 || err != nil {
				t.Fatalf("status %#x, %v", ws, err)
			}
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	starts(8) // what is made once is there
	count := func() (files, goroutines int) {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		return len(list), runtime.NumGoroutine()
	}
	files, goroutines := count()
	starts(40)
	for end := time.Now().Add(hung); ; time.Sleep(time.Millisecond) {
		f, g := count()
		if f <= files+2 && g <= goroutines+2 { // the engine retires the last sources later
			break
		}
		if time.Now().After(end) {
			t.Fatalf("descriptors were %d and are %d, goroutines were %d and are %d", files, f, goroutines, g)
		}
	}
	noChildren(t)
}

// TestNoNewPrivs is set where it must be, and where it is wanted.
func TestNoNewPrivs(t *testing.T) {
	s := supervise(t)
	for _, want := range []bool{false, true} {
		got := s.output(t, &launch.Command{Paths: []string{"/bin/cat"}, Args: []string{"cat", "/proc/self/status"}, NoNewPrivs: want})
		must := want || !launch.Guarded || !capable(t)
		if strings.Contains(got, "\nNoNewPrivs:\t1\n") != must {
			t.Errorf("wanted %v, must be %v:\n%s", want, must, got)
		}
		if !strings.Contains(got, "\nSeccomp:\t2\n") {
			t.Errorf("no filter:\n%s", got)
		}
	}
}

// capable says whether this process has CAP_SYS_ADMIN, without no_new_privs.
func capable(t *testing.T) bool {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(b, []byte("CapEff:\t"))
	var set uint64
	_, _ = fmt.Sscanf(string(rest), "%x", &set)
	return set>>unix.CAP_SYS_ADMIN&1 != 0 || bytes.Contains(b, []byte("NoNewPrivs:\t1"))
}

// TestWithoutAGuard is what a build without cgo has instead.
func TestWithoutAGuard(t *testing.T) {
	if launch.Guarded {
		t.Skip("this build has a guard")
	}
	s := supervise(t)
	p, err := s.start(&launch.Command{Paths: []string{"/bin/true"}})
	if err != nil {
		t.Fatal(err)
	}
	if p.Guard() != 0 || p.SetLeave(true) != nil || !errors.Is(p.SetLeave(false), errors.ErrUnsupported) {
		t.Errorf("guard %d", p.Guard())
	}
	if _, err := p.Control(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Control: %v", err)
	}
	if ws, err := wait(t, p); ws != 0 || err != nil {
		t.Errorf("status %#x, %v", ws, err)
	}
	<-p.Alone()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
