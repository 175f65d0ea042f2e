package target

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

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
	fds := openFDs(t)
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
	if n := openFDs(t); n != fds {
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
