package target

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// What works for a target in a user namespace of its own, for root as the supervisor and for the user who made the namespace.
func TestTargetsInUserNamespaces(t *testing.T) {
	if err := tryUserNamespace(); err != nil {
		t.Skip(err)
	}
	root := os.Geteuid() == 0
	if root {
		needRoot(t)
	}
	exe, err := os.Stat("/proc/self/exe")
	if err != nil || exe.Mode()&1 == 0 {
		t.Skipf("the test binary is not executable for others: %v, %v", exe.Mode(), err)
	}
	const first = 100000
	many := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, GidMappingsEnableSetgroups: true, Credential: &syscall.Credential{},
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: first, Size: 65536}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: first, Size: 65536}},
	}
	type userCase struct {
		name        string
		sys         *syscall.SysProcAttr
		prepare     []string
		uid, inside int // the target's, as we and as it sees it
	}
	cases := []userCase{{"one user is mapped", ownUserNamespace(), nil, userInside(), 0}}
	if root {
		cases = append(cases, userCase{"root of many", many, nil, first, 0}, userCase{"one of many", many, []string{"user=5"}, first + 5, 5})
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := tree(t)
			if root {
				for _, name := range []string{"own", "own/file"} {
					if err := os.Chown(filepath.Join(dir, name), c.uid, c.uid); err != nil {
						t.Fatal(err)
					}
				}
			}
			g := startTargetWith(t, c.sys, c.prepare...)
			g.tell("poke 0 hello%%00")
			target := g.call()
			if ids, err := target.IDs(); err != nil || ids.UID != c.uid || ids.FSUID != c.uid {
				t.Errorf("%+v, %v", ids, err)
			}
			if s, err := target.String(fixedAt, 100); s != "hello" || err != nil {
				t.Errorf("%q, %v", s, err)
			}
			if n, err := target.WriteMem(fixedAt, []byte("Hal")); n != 3 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
			if s, err := target.String(fixedAt, 100); s != "Hallo" || err != nil {
				t.Errorf("%q, %v", s, err)
			}
			for _, name := range []string{"Comm", "Exe", "PIDFD", "GetFD"} {
				if err := methods[name](target); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			if id, err := target.TGID(); id != g.Cmd.Process.Pid || err != nil {
				t.Errorf("%d, %v", id, err)
			}
			all := []openCase{
				{"everybody's", 0, dir + "/public", 0, "public"},
				{"its own", 0, dir + "/own/file", unix.O_RDWR, "file"},
				{"a new one", 0, dir + "/own/fresh", unix.O_RDWR | unix.O_CREAT, ""},
			}
			if root { // its capabilities are none here
				all = append(all, openCase{"root's", 0, dir + "/secret", 0, unix.EACCES}, openCase{"in root's", 0, dir + "/dir/fresh", unix.O_WRONLY | unix.O_CREAT, unix.EACCES})
			}
			for _, o := range all {
				o.run(t, target, nil)
			}
			if err := target.ActAt(unix.AT_FDCWD, dir+"/own/made", func(dir int, name string) error { return unix.Symlinkat("x", dir, name) }); err != nil {
				t.Error(err)
			}
			for _, name := range []string{"fresh", "made"} {
				var st unix.Stat_t
				if err := unix.Lstat(filepath.Join(dir, "own", name), &st); err != nil || int(st.Uid) != c.uid {
					t.Errorf("%s: of user %d, %v", name, st.Uid, err)
				}
			}
			// Capabilities over what is its own it has in a process only.
			got, err := target.InUserNamespace(unix.CLONE_NEWUSER, inTheirPlace, []byte("ids"))
			if want := fmt.Sprintf("uid %d, chown true", c.inside); string(got) != want || err != nil {
				t.Errorf("%q, %v, want %q", got, err, want)
			}
		})
	}
}
