package target

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

func hostname(t *testing.T) string {
	t.Helper()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestInNamespaces(t *testing.T) {
	needRoot(t)
	dir := tree(t)
	g := startTarget(t, "uts=theirs", "net", "mounts", "bind="+dir+":"+dir, "proc="+dir+"/proc", "tmpfs="+dir+"/mnt", "chroot="+dir)
	g.tell("chdir /dir/sub")
	target := g.call()
	ours := hostname(t)
	if _, err := target.IDs(); err != nil { // what is opened once is
		t.Fatal(err)
	}
	fds := testchild.OpenFDs(t)
	var links, inside, cwd string
	err := target.InNamespaces(unix.CLONE_NEWNS|unix.CLONE_NEWNET|unix.CLONE_NEWUTS, func() error {
		b, err := os.ReadFile("/mnt/inside")
		if err != nil {
			return err
		}
		inside = string(b)
		if b, err = os.ReadFile("../x"); err != nil {
			return err
		}
		cwd = string(b)
		var u unix.Utsname
		if err := unix.Uname(&u); err != nil {
			return err
		}
		links = unix.ByteSliceToString(u.Nodename[:])
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		// Its loopback interface is down, ours is not, or not there.
		ifr, err := unix.NewIfreq("lo")
		if err != nil {
			return err
		}
		if err := unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, ifr); err != nil {
			return err
		}
		if ifr.Uint16()&unix.IFF_UP != 0 {
			return errors.New("lo is up")
		}
		return nil
	})
	if err != nil || inside != "inside" || links != "theirs" || cwd != "x" {
		t.Errorf("%v, %q, %q, %q", err, inside, links, cwd)
	}
	if now := hostname(t); now != ours {
		t.Errorf("this process is in %q", now)
	}
	if _, err := os.Stat("/mnt/inside"); err == nil {
		t.Error("this process has its mounts")
	}
	if n := testchild.OpenFDs(t); n != fds {
		t.Errorf("%d descriptors, were %d", n, fds)
	}
}

// Namespaces that are the supervisor's own take no privilege.
func TestInNamespacesOfOurs(t *testing.T) {
	g := startTarget(t)
	g.tell("chdir /proc")
	target := g.call()
	broken := errors.New("broken")
	var cwd string
	err := target.InNamespaces(unix.CLONE_NEWNS|unix.CLONE_NEWPID|unix.CLONE_NEWIPC|unix.CLONE_NEWCGROUP, func() error {
		cwd, _ = unix.Getwd()
		return broken
	})
	if err != broken || cwd != "/proc" {
		t.Errorf("%v, in %q", err, cwd)
	}
	if now, _ := os.Getwd(); now == "/proc" {
		t.Error("the process is there too")
	}
	for what, do := range map[string]func() error{
		"panic": func() (err error) {
			defer func() {
				if p := recover(); p != nil {
					err = errors.New(p.(string))
				}
			}()
			return target.InNamespaces(unix.CLONE_NEWUTS, func() error { panic("a panic of f") })
		},
		"runtime.Goexit": func() error {
			return target.InNamespaces(unix.CLONE_NEWUTS, func() error { runtime.Goexit(); return nil })
		},
		"InUserNamespace":  func() error { return target.InNamespaces(unix.CLONE_NEWUSER|unix.CLONE_NEWNS, nil) },
		"time namespace":   func() error { return target.InNamespaces(unix.CLONE_NEWTIME, nil) },
		"one at least":     func() error { return target.InNamespaces(0, nil) },
		"flags 0x40000200": func() error { return target.InNamespaces(unix.CLONE_FS|unix.CLONE_NEWNET, nil) },
	} {
		if err := do(); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestInNamespacesWithoutTheRight(t *testing.T) {
	skipIfRoot(t)
	if err := tryUserNamespace(); err != nil {
		t.Skip(err)
	}
	g := startTargetWith(t, ownUserNamespace(), "uts=theirs")
	err := g.call().InNamespaces(unix.CLONE_NEWUTS, func() error { return errors.New("it ran") })
	var e *Error
	if !errors.As(err, &e) || !e.Ours || !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_SYS_ADMIN") {
		t.Error(err)
	}
}

// inTheirPlace says who the copy of this program is and what it sees.
var inTheirPlace = Register("in their place", func(arg []byte) ([]byte, error) {
	switch string(arg) {
	case "who":
		var u unix.Utsname
		if err := unix.Uname(&u); err != nil {
			return nil, err
		}
		own, err := capget()
		if err != nil {
			return nil, err
		}
		inside, err := os.ReadFile("/mnt/inside")
		if err != nil {
			return nil, err
		}
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return nil, err
		}
		var sockets int
		for _, fd := range fds {
			if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); !strings.HasPrefix(to, "/") {
				sockets++
			}
		}
		return fmt.Appendf(nil, "uid %d gid %d, %s, %s, chown %t, %d of ours", os.Getuid(), os.Getgid(),
			unix.ByteSliceToString(u.Nodename[:]), inside, own.effective>>unix.CAP_CHOWN&1 == 1, sockets), nil
	case "mount":
		if err := unix.Mount("none", "/mnt", "tmpfs", 0, ""); err != nil {
			return nil, err
		}
		return nil, os.WriteFile("/mnt/made", arg, 0o666)
	case "ids":
		own, err := capget()
		return fmt.Appendf(nil, "uid %d, chown %t", os.Getuid(), own.effective>>unix.CAP_CHOWN&1 == 1), err
	case "processes": // of a proc file system that it mounts
		if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
			return nil, err
		}
		all, err := filepath.Glob("/proc/[0-9]*")
		return fmt.Appendf(nil, "%d of %d: %v", os.Getpid(), os.Getppid(), all), err
	case "fail":
		return nil, fmt.Errorf("it fails: %w", unix.EBUSY)
	case "die":
		_ = unix.Kill(unix.Getpid(), unix.SIGKILL)
	case "panic":
		panic("a panic of the copy")
	}
	return arg, nil
})

// A process can be in the target's pid namespace, which its proc file systems are of.
func TestInProcess(t *testing.T) {
	needRoot(t)
	dir := tree(t)
	g := startTargetWith(t, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}, "uts=theirs", "mounts", "bind="+dir+":"+dir, "tmpfs="+dir+"/mnt", "chroot="+dir)
	target := g.call()
	if _, err := target.IDs(); err != nil { // what is opened once is
		t.Fatal(err)
	}
	fds := descriptors(t)
	const flags = unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS
	got, err := target.InProcess(flags, inTheirPlace, []byte("processes"))
	var self int
	if _, e := fmt.Sscanf(string(got), "%d of 0:", &self); e != nil || err != nil || self < 2 || string(got) != fmt.Sprintf("%d of 0: [/proc/1 /proc/%d]", self, self) {
		t.Errorf("%q, %v", got, err)
	}
	openCase{"what it mounted", 0, "/proc/1/status", 0, ErrOpener}.run(t, target, nil)
	if got, err := target.InProcess(flags&^unix.CLONE_NEWPID, inTheirPlace, []byte("who")); err == nil || !strings.Contains(err.Error(), "self/fd") {
		t.Errorf("outside its pid namespace: %q, %v", got, err) // whose /proc it has now
	}
	if _, err := target.InProcess(flags, inTheirPlace, []byte("fail")); !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "it fails") {
		t.Error(err)
	}
	if _, err := target.InProcess(flags, nil, nil); !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "Register") {
		t.Errorf("no function: %v", err)
	}
	for word, says := range map[string]string{"die": "EOF", "panic": "a panic of the copy"} {
		var e *Error
		if _, err := target.InProcess(flags, inTheirPlace, []byte(word)); !errors.As(err, &e) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", word, err)
		}
	}
	for _, fd := range descriptors(t) {
		if !slices.Contains(fds, fd) {
			t.Errorf("descriptor %s is left", fd)
		}
	}
}

func TestInUserNamespace(t *testing.T) {
	if os.Geteuid() == 0 {
		needRoot(t)
	}
	if err := tryUserNamespace(); err != nil {
		t.Skip(err)
	}
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	if st, err := exe.Stat(); err != nil || st.Mode()&1 == 0 {
		t.Skipf("the test binary is not executable for others: %v, %v", st.Mode(), err)
	}
	dir := tree(t)
	sys := ownUserNamespace()
	g := startTargetWith(t, sys, "uts=theirs", "mounts", "bind="+dir+":"+dir, "tmpfs="+dir+"/mnt", "chroot="+dir)
	target := g.call()
	if _, err := target.IDs(); err != nil { // what is opened once is
		t.Fatal(err)
	}
	fds := descriptors(t)
	const flags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWUTS
	got, err := target.InUserNamespace(flags, inTheirPlace, []byte("echo"))
	if string(got) != "echo" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	if err := os.Mkdir(dir+"/proc/self", 0o755); err != nil { // the target has no /proc
		t.Fatal(err)
	}
	if err := os.Mkdir(dir+"/proc/self/fd", 0o755); err != nil {
		t.Fatal(err)
	}
	got, err = target.InUserNamespace(flags, inTheirPlace, []byte("who"))
	if string(got) != "uid 0 gid 0, theirs, inside, chown true, 0 of ours" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := target.InUserNamespace(flags, inTheirPlace, []byte("mount")); err != nil {
		t.Error(err)
	}
	openCase{"what it mounted", 0, "/mnt/made", 0, "mount"}.run(t, target, nil)
	if _, err := target.InUserNamespace(flags, inTheirPlace, []byte("fail")); !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "it fails") {
		t.Error(err)
	}
	if _, err := target.InUserNamespace(flags, nil, nil); !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "Register") {
		t.Errorf("no function: %v", err)
	}
	for word, says := range map[string]string{"die": "EOF", "panic": "a panic of the copy"} {
		var e *Error
		if _, err := target.InUserNamespace(flags, inTheirPlace, []byte(word)); !errors.As(err, &e) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", word, err)
		}
	}
	big := bytes.Repeat([]byte("big"), 1<<20)
	if got, err := target.InUserNamespace(unix.CLONE_NEWUSER, inTheirPlace, big); err != nil || !bytes.Equal(got, big) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	for _, fd := range descriptors(t) {
		if !slices.Contains(fds, fd) {
			t.Errorf("descriptor %s is left", fd)
		}
	}
}

func TestIDsOfAMap(t *testing.T) {
	const text = "         0     100000      65536\n     65536          7          1\n"
	for id, want := range map[int]int{100000: 0, 165535: 65535, 7: 65536} {
		if got, err := inside(text, id); got != want || err != nil {
			t.Errorf("%d: %d, %v", id, got, err)
		}
	}
	for _, id := range []int{99999, 165536, 0, 8} {
		if got, err := inside(text, id); err == nil {
			t.Errorf("%d: %d", id, got)
		}
	}
	if _, err := inside("nonsense", 1); err == nil {
		t.Error("nonsense was taken")
	}
}
