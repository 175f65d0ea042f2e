package target

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(hostileEnv); role != "" {
		hostile(role)
		return
	}
	testchild.Main(m, testchild.Roles{
		"stress":   childStress,
		"stranger": childStranger,
		"target":   childTarget,
		"refused":  childRefused,
	})
}

// A tgt is a child with one thread under a filter that traps getppid, and what that thread calls it with.
type tgt struct {
	*testchild.Child
	t testing.TB
	l *notify.Listener
	n notify.Notif
}

// childTarget maps two pages at fixedAt with a page before and one after that are not mapped, makes the call
// that it is told, and does to its pages what it is told:
//
//	call A0 A1 …     getppid(A0, A1, …), then says the result
//	poke OFFSET TEXT writes bytes there; %xx is one of any value
//	peek OFFSET N    says N bytes from there, quoted
//	protect PAGE P   mprotect, P is r, w or n
//	more             other words, by other files' tests
func childTarget(c *testchild.Conn, args []string) error {
	if err := mapPages(); err != nil {
		return err
	}
	return onThread(func() error {
		if err := prepare(args); err != nil {
			return err
		}
		prog, err := notify.TrapProgram(unix.SYS_GETPPID)
		if err != nil {
			return err
		}
		l, err := notify.Install(prog, 0)
		if err != nil {
			return err
		}
		if err := notify.SendListener(c.UnixConn, l); err != nil {
			return err
		}
		_ = l.Close()
		for {
			line, err := c.Hear()
			if err != nil {
				return nil // the test is over
			}
			answer, err := obey(strings.Fields(line))
			if err != nil {
				answer = "error " + err.Error()
			}
			if err := c.Say("%s", answer); err != nil {
				return err
			}
		}
	})
}

func onThread(f func() error) error {
	done := make(chan error, 1)
	osthread.Start(func() { done <- f() })
	return <-done
}

func obey(words []string) (string, error) {
	number := func(i int) uintptr {
		n, err := strconv.ParseInt(words[i], 0, 64)
		if err != nil {
			panic(err)
		}
		return uintptr(n)
	}
	switch words[0] {
	case "call":
		var a [6]uintptr
		for i := range words[1:] {
			a[i] = number(1 + i)
		}
		v, _, e := unix.Syscall6(unix.SYS_GETPPID, a[0], a[1], a[2], a[3], a[4], a[5])
		return fmt.Sprintf("%d %d", int(v), int(e)), nil
	case "poke":
		copy(pages()[number(1):], unescape(words[2]))
		return "ok", nil
	case "peek":
		return fmt.Sprintf("%q", pages()[number(1):][:number(2)]), nil
	case "protect":
		prot := map[string]int{"r": unix.PROT_READ, "w": unix.PROT_READ | unix.PROT_WRITE, "n": unix.PROT_NONE}[words[2]]
		return "ok", unix.Mprotect(pages()[number(1)*page:][:page], prot)
	}
	return obeyMore(words, number)
}

// unescape has %xx for bytes.
func unescape(s string) []byte {
	var b []byte
	for i := 0; i < len(s); i++ {
		if s[i] == '%' {
			n, _ := strconv.ParseUint(s[i+1:i+3], 16, 8)
			b, i = append(b, byte(n)), i+2
			continue
		}
		b = append(b, s[i])
	}
	return b
}

func startTarget(t testing.TB, args ...string) *tgt {
	t.Helper()
	return startTargetWith(t, nil, args...)
}

func startTargetWith(t testing.TB, sys *syscall.SysProcAttr, args ...string) *tgt {
	t.Helper()
	c := testchild.StartWith(t, testchild.Options{Env: []string{"GODEBUG=asyncpreemptoff=1"}, Sys: sys}, "target", args...)
	l, err := notify.RecvListener(c.UnixConn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return &tgt{Child: c, t: t, l: l}
}

// tell has the child do something else than call.
func (g *tgt) tell(format string, args ...any) string {
	g.t.Helper()
	g.MustSay(format, args...)
	s := g.MustHear()
	if strings.HasPrefix(s, "error") {
		g.t.Fatalf("%s: %s", fmt.Sprintf(format, args...), s)
	}
	return s
}

// call has the child make its call and receives it.
func (g *tgt) call(args ...uint64) Target {
	g.t.Helper()
	line := "call"
	for _, a := range args {
		line += " " + strconv.FormatInt(int64(a), 10)
	}
	g.MustSay("%s", line)
	return g.receive()
}

func (g *tgt) receive() Target {
	g.t.Helper()
	for {
		err := g.l.Recv(&g.n)
		if err == nil {
			return New(g.l, &g.n)
		}
		if notify.OutcomeOf(err) != notify.Retry {
			g.t.Fatal(err)
		}
	}
}

// answer ends the call with a value, and waits until the child has it.
func (g *tgt) answer(val int64) {
	g.t.Helper()
	if err := g.l.Send(&notify.Resp{ID: g.n.ID, Val: val}); err != nil {
		g.t.Fatal(err)
	}
	g.Expect("%d 0", val)
}

func (g *tgt) kill() {
	g.t.Helper()
	_ = g.Cmd.Process.Kill()
	g.Wait()
}

func wantErrno(t *testing.T, what string, err error, want syscall.Errno, ours bool) {
	t.Helper()
	var e *Error
	if !errors.Is(err, want) || !errors.As(err, &e) || e.Ours != ours {
		t.Errorf("%s: %v (ours %t), want %v (ours %t)", what, err, e != nil && e.Ours, want, ours)
	}
	if got := Errno(err, 999); !ours && got != want || ours && got != 999 {
		t.Errorf("%s: Errno is %v", what, got)
	}
}

// methods are all that look at a target or act for it.
var methods = map[string]func(Target) error{
	"ReadMem":  func(t Target) error { _, err := t.ReadMem(fixedAt, make([]byte, 8)); return err },
	"WriteMem": func(t Target) error { _, err := t.WriteMem(fixedAt, make([]byte, 8)); return err },
	"String":   func(t Target) error { _, err := t.String(fixedAt, PathMax); return err },
	"Strings":  func(t Target) error { _, err := t.Strings(fixedAt, PathMax); return err },
	"Sockaddr": func(t Target) error { _, err := t.Sockaddr(fixedAt, 16); return err },
	"Comm":     func(t Target) error { _, err := t.Comm(); return err },
	"Exe":      func(t Target) error { _, err := t.Exe(); return err },
	"TGID":     func(t Target) error { _, err := t.TGID(); return err },
	"IDs":      func(t Target) error { _, err := t.IDs(); return err },
	"PIDFD":    func(t Target) error { fd, err := t.PIDFD(); _ = unix.Close(fd); return err },
	"GetFD":    func(t Target) error { fd, err := t.GetFD(1); _ = unix.Close(fd); return err },
	"OpenAt": func(t Target) error {
		fd, err := t.OpenAt(unix.AT_FDCWD, ".", How(0, 0))
		_ = unix.Close(fd)
		return err
	},
	"ActAt":           func(t Target) error { return t.ActAt(unix.AT_FDCWD, "entry", func(int, string) error { return nil }) },
	"InProcess":       func(t Target) error { _, err := t.InProcess(unix.CLONE_NEWUTS, inTheirPlace, nil); return err },
	"InUserNamespace": func(t Target) error { _, err := t.InUserNamespace(0, inTheirPlace, nil); return err },
	"InNamespaces":    func(t Target) error { return t.InNamespaces(unix.CLONE_NEWUTS, func() error { return nil }) },
}

func TestATargetThatIsGone(t *testing.T) {
	g := startTarget(t)
	alive := g.call()
	for name, do := range methods {
		if err := do(alive); err != nil {
			t.Errorf("%s, alive: %v", name, err)
		}
	}
	g.answer(1)
	other := g.call() // the thread is there, the call is another
	killed := startTarget(t)
	dead := killed.call()
	killed.kill()
	before := testchild.OpenFDs(t)
	for name, do := range methods {
		for what, target := range map[string]Target{"answered": alive, "killed": dead, "zero": {}} {
			if err := do(target); err != ErrGone {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
	}
	if after := testchild.OpenFDs(t); after != before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
	p := []byte("what was read")
	if n, err := alive.ReadMem(fixedAt, p); n != 0 || err != ErrGone || string(p) != strings.Repeat("\x00", len(p)) {
		t.Errorf("%d, %v, %q", n, err, p)
	}
	if _, err := other.Comm(); err != nil {
		t.Error(err)
	}
}

func TestAThreadThatIsNotVisible(t *testing.T) {
	g := startTarget(t)
	target := g.call()
	target.tid = 0
	for name, do := range methods {
		err := do(target)
		var e *Error
		if !errors.As(err, &e) || !e.Ours || !strings.Contains(err.Error(), "pid namespace") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMethodsOnAConfinedThread(t *testing.T) {
	g := startTarget(t)
	target := g.call()
	_ = onThread(func() error {
		osthread.SetConfined(nil)
		for name, do := range methods {
			if err := do(target); err != ErrConfined {
				t.Errorf("%s: %v", name, err)
			}
		}
		return nil
	})
	for name, do := range methods {
		if err := do(target); err != nil {
			t.Errorf("%s beside it: %v", name, err)
		}
	}
}

func TestWhoItIs(t *testing.T) {
	g := startTarget(t)
	target := g.call()
	if id, err := target.TGID(); id != g.Cmd.Process.Pid || err != nil {
		t.Errorf("TGID %d, %v", id, err)
	}
	if target.TID() == g.Cmd.Process.Pid {
		t.Error("the target is the main thread, which the test does not want")
	}
	exe, err := target.Exe()
	if own, _ := os.Readlink("/proc/self/exe"); exe != own || err != nil {
		t.Errorf("Exe %q, %v", exe, err)
	}
	if _, err := target.Comm(); err != nil {
		t.Error(err)
	}
	ids, err := target.IDs()
	if err != nil || ids.UID != os.Getuid() || ids.EUID != os.Geteuid() || ids.FSUID != os.Geteuid() || ids.GID != os.Getgid() || ids.FSGID != os.Getegid() {
		t.Errorf("%+v, %v", ids, err)
	}
	if groups, _ := os.Getgroups(); !sameSet(groups, ids.Groups) {
		t.Errorf("groups %v, ours %v", ids.Groups, groups)
	}
	own, _ := capget()
	if ids.Effective != own.effective || ids.Has(unix.CAP_CHOWN) != (own.effective>>unix.CAP_CHOWN&1 == 1) || !ids.NoNewPrivs {
		t.Errorf("%+v", ids)
	}
	mask := unix.Umask(0)
	unix.Umask(mask)
	if ids.Umask != mask {
		t.Errorf("umask %o, ours %o", ids.Umask, mask)
	}
}

func TestStatusThatIsNotWhole(t *testing.T) {
	for _, text := range []string{"", "Tgid:\t1\n", "Uid:\t1\t2\t3\n", "CapEff:\tnothing\n"} {
		if _, err := parseStatus(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestDescriptorsOfTheTarget(t *testing.T) {
	g := startTarget(t)
	target := g.call()
	pidfd, err := target.PIDFD()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	if err := unix.PidfdSendSignal(pidfd, 0, nil, 0); err != nil {
		t.Error(err)
	}
	// What we write to its end of the socket we hear at ours.
	theirs := -1
	dir := fmt.Sprintf("/proc/%d/fd/", g.Cmd.Process.Pid)
	all, _ := os.ReadDir(dir)
	for _, e := range all {
		if link, _ := os.Readlink(dir + e.Name()); strings.HasPrefix(link, "socket:") {
			theirs, _ = strconv.Atoi(e.Name())
		}
	}
	fd, err := target.GetFD(theirs)
	if err != nil {
		t.Fatalf("descriptor %d: %v", theirs, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte("hello\n")); err != nil {
		t.Error(err)
	}
	g.Expect("hello")
	for _, fd := range []int{fd, pidfd} {
		if flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
			t.Error("not close-on-exec")
		}
	}
	_, err = target.GetFD(1 << 20)
	wantErrno(t, "a descriptor that is not open", err, unix.EBADF, false)
	_, err = target.GetFD(-1)
	wantErrno(t, "descriptor -1", err, unix.EBADF, false)
}

// A thread may have a file table of its own. Where the kernel has no pidfd of threads, that is found out.
func TestDescriptorsOfAThread(t *testing.T) {
	g := startTarget(t, "unshare-files")
	target := g.call()
	if err := target.leaderHasFiles("test", g.Cmd.Process.Pid); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a table of its own: %v", err)
	}
	g.answer(1)
	fd := g.tell("open-null")
	target = g.call()
	n, _ := strconv.Atoi(fd)
	own, err := target.GetFD(n)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(own)
	if name, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(own)); name != os.DevNull {
		t.Errorf("got %s", name)
	}
	if err := startTarget(t).call().leaderHasFiles("test", 1); err == nil {
		t.Error("process 1 has our files")
	}
}

// childRefused looks at a target where a container's seccomp profile refuses calls.
func childRefused(c *testchild.Conn, args []string) error {
	nr, _ := strconv.Atoi(args[0])
	e, _ := strconv.Atoi(args[1])
	l, err := notify.RecvListener(c.UnixConn)
	if err != nil {
		return err
	}
	if err := testchild.Refuse(map[int]syscall.Errno{nr: syscall.Errno(e)}); err != nil {
		return err
	}
	var n notify.Notif
	if err := l.Recv(&n); err != nil {
		return err
	}
	t := New(l, &n)
	var buf [16]byte
	k, err := t.ReadMem(n.Data.Args[0], buf[:])
	if err := c.Say("read %d %q %v", k, buf[:k], err); err != nil {
		return err
	}
	s, err := t.String(n.Data.Args[1], PathMax)
	if err := c.Say("string %q %v", s, err); err != nil {
		return err
	}
	k, err = t.ReadMem(n.Data.Args[2], buf[:])
	if err := c.Say("none %d %v", k, errors.Is(err, unix.EFAULT)); err != nil {
		return err
	}
	fd, err := t.GetFD(1)
	if err := c.Say("getfd %t %v", fd >= 0, err); err != nil {
		return err
	}
	fd, err = t.OpenAt(unix.AT_FDCWD, "/", How(0, 0))
	return c.Say("open %t %v", fd >= 0, err)
}

// prepare and obeyMore are what other files' tests want of the target.
func prepare(args []string) error {
	for _, a := range args {
		word, rest, _ := strings.Cut(a, "=")
		var err error
		switch word {
		case "unshare-files":
			err = unix.Unshare(unix.CLONE_FILES)
		default:
			err = prepareMore(word, rest)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", a, err)
		}
	}
	return nil
}

func obeyMore(words []string, number func(int) uintptr) (string, error) {
	switch words[0] {
	case "open-null":
		fd, err := unix.Open(os.DevNull, unix.O_RDONLY, 0)
		return strconv.Itoa(fd), err
	case "open-dir":
		fd, err := unix.Open(words[1], unix.O_RDONLY|unix.O_DIRECTORY, 0)
		return strconv.Itoa(fd), err
	case "chdir":
		return "ok", unix.Chdir(words[1])
	case "umask":
		return strconv.Itoa(unix.Umask(int(number(1)))), nil
	case "remap": // while a call waits, on another thread
		return "ok", remap()
	}
	return "", fmt.Errorf("told %q", words)
}

func skipIfRoot(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may all")
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	own, err := capget()
	if err != nil || own.effective>>unix.CAP_SYS_ADMIN&1 == 0 || own.effective>>unix.CAP_SYS_CHROOT&1 == 0 || own.effective>>unix.CAP_SETUID&1 == 0 {
		t.Skipf("needs root with its capabilities, has %#x (%v)", own.effective, err)
	}
}
