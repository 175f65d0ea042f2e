package wholefile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	testchild.Main(m, testchild.Roles{"writer": beWriter, "nobody": beNobody})
}

// withUmask sets the process's umask until the test is over.
func withUmask(t *testing.T, mask int) {
	t.Helper()
	old := unix.Umask(mask)
	t.Cleanup(func() { unix.Umask(old) })
}

func mustWrite(t *testing.T, path, text string) {
	t.Helper()
	if err := Write(path, []byte(text)); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != text {
		t.Errorf("%s holds %q, %v; want %q", path, b, err, text)
	}
}

func modeOf(t *testing.T, path string) uint32 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Mode & 0o7777
}

// onlyThese fails the test if the directory holds anything else.
func onlyThese(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(names, e.Name()) {
			t.Errorf("%s was left behind", e.Name())
		}
	}
}

func TestNewFileHasTheUmask(t *testing.T) {
	for _, mask := range []int{0o022, 0o027, 0o077, 0} {
		withUmask(t, mask)
		dir := t.TempDir()
		mustWrite(t, dir+"/new", "text")
		if m := modeOf(t, dir+"/new"); m != 0o666&^uint32(mask) {
			t.Errorf("umask %o: mode %o", mask, m)
		}
		onlyThese(t, dir, "new")
	}
}

func TestReplacedFileKeepsItsMode(t *testing.T) {
	withUmask(t, 0o022)
	for _, mode := range []uint32{0o600, 0o640, 0o664, 0o666, 0o755, 0o1600} {
		path := t.TempDir() + "/old"
		if err := os.WriteFile(path, []byte("a longer text"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := unix.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		mode = modeOf(t, path) // not every user may set every bit
		mustWrite(t, path, "text")
		if m := modeOf(t, path); m != mode {
			t.Errorf("mode %o became %o", mode, m)
		}
	}
}

func TestReplacedFileKeepsItsOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may give a file away")
	}
	path := t.TempDir() + "/old"
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, 1234, 4321); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, path, "text")
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if s := st.Sys().(*syscall.Stat_t); s.Uid != 1234 || s.Gid != 4321 || s.Mode&0o7777 != 0o600 {
		t.Errorf("user %d, group %d, mode %o", s.Uid, s.Gid, s.Mode)
	}
}

// The ACL of a file, and not the directory's default, is that of its successor.
func TestReplacedFileKeepsItsACL(t *testing.T) {
	acl := func(tags ...uint64) []byte { // tag, permissions and id of each
		b := []byte{2, 0, 0, 0}
		for _, e := range tags {
			b = append(b, byte(e), byte(e>>8), byte(e>>16), 0, byte(e>>24), byte(e>>32), byte(e>>40), byte(e>>48))
		}
		return b
	}
	entry := func(tag, perm, id uint64) uint64 { return tag | perm<<16 | id<<24 }
	const none = 0xffffffff
	// user::rw- user:65533:rw- group::--- mask::rw- other::---
	named := acl(entry(1, 6, none), entry(2, 6, 65533), entry(4, 0, none), entry(0x10, 6, none), entry(0x20, 0, none))
	dir := t.TempDir()
	plain, with := dir+"/plain", dir+"/with"
	for _, path := range []string{plain, with} {
		if err := os.WriteFile(path, nil, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Setxattr(with, aclAttribute, named, 0); errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("no ACLs on this file system")
	} else if err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(dir, "system.posix_acl_default", named, 0); err != nil {
		t.Fatal(err)
	}
	plainMode, withMode := modeOf(t, plain), modeOf(t, with)
	mustWrite(t, plain, "text")
	mustWrite(t, with, "text")
	if got, err := attribute(plain, aclAttribute); len(got) > 0 {
		t.Errorf("a file without an ACL got %x, %v", got, err)
	}
	if got, err := attribute(with, aclAttribute); err != nil || !bytes.Equal(got, named) {
		t.Errorf("ACL %x, %v; want %x", got, err, named)
	}
	if p, w := modeOf(t, plain), modeOf(t, with); p != plainMode || w != withMode {
		t.Errorf("modes %o and %o, were %o and %o", p, w, plainMode, withMode)
	}
}

func TestLinksStay(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/a/b", 0o755); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{
		"plain": "file", "dangling": "a/new", "absolute": dir + "/a/abs", "twice": "plain",
		"deep": "a/b", "a/b/up": "../upper",
	} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for path, leads := range map[string]string{
		"plain": "file", "dangling": "a/new", "absolute": "a/abs", "twice": "file", "deep/up": "a/upper",
	} {
		mustWrite(t, dir+"/"+path, path)
		if b, err := os.ReadFile(dir + "/" + leads); err != nil || string(b) != path {
			t.Errorf("through %s: %s holds %q, %v", path, leads, b, err)
		}
		if _, err := os.Readlink(dir + "/" + path); err != nil {
			t.Errorf("%s is no link any more: %v", path, err)
		}
	}
	onlyThese(t, dir, "a", "plain", "dangling", "absolute", "twice", "deep", "file")
	if err := os.Symlink("loop", dir+"/loop"); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir+"/loop", nil); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a link to itself: %v", err)
	}
}

func TestWhatIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(dir+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		"": fs.ErrInvalid, dir: ErrDirectory, dir + "/": ErrDirectory, os.DevNull: ErrNotRegular, dir + "/fifo": ErrNotRegular,
		dir + "/no/such": fs.ErrNotExist, dir + "/fifo/x": unix.ENOTDIR,
	} {
		for name, err := range map[string]error{"check": Check(path), "write": Write(path, []byte("text"))} {
			if !errors.Is(err, want) || strings.Contains(err.Error(), ".unknot-") {
				t.Errorf("%s %q: %v, want %v", name, path, err, want)
			}
		}
	}
	onlyThese(t, dir, "fifo")
}

func TestCheckLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/old", []byte("text"), 0o640); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"new", "old"} {
		if err := Check(dir + "/" + name); err != nil {
			t.Error(err)
		}
	}
	onlyThese(t, dir, "old")
	if b, err := os.ReadFile(dir + "/old"); err != nil || string(b) != "text" {
		t.Errorf("%q, %v", b, err)
	}
}

// A full disk: the file is as it was.
func TestFailedWrite(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/old", []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 10, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	err := Write(dir+"/old", make([]byte, 100))
	_ = unix.Setrlimit(unix.RLIMIT_FSIZE, &old)
	if !errors.Is(err, unix.EFBIG) {
		t.Errorf("beyond the limit: %v", err)
	}
	onlyThese(t, dir, "old")
	if b, err := os.ReadFile(dir + "/old"); err != nil || string(b) != "text" {
		t.Errorf("%q, %v", b, err)
	}
}

// A user who could rename over a file but not write it, or not keep its owner, does neither.
func TestOfOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root has files of several users")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"readable": 0o644, "writable": 0o666} {
		if err := os.WriteFile(dir+"/"+name, []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir+"/"+name, mode); err != nil {
			t.Fatal(err)
		}
	}
	c := testchild.Start(t, "nobody", dir)
	for _, want := range []string{"readable permission denied", "writable belongs to user 0 and group 0"} {
		if got := c.MustHear(); !strings.HasPrefix(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if st := c.Wait(); st.ExitStatus() != 0 {
		t.Error(st)
	}
	onlyThese(t, dir, "readable", "writable")
}

func beNobody(c *testchild.Conn, args []string) error {
	if err := os.Chdir(args[0]); err != nil { // its parent is root's alone
		return err
	}
	for _, err := range []error{syscall.Setgroups(nil), syscall.Setgid(65534), syscall.Setuid(65534)} {
		if err != nil {
			return err
		}
	}
	for _, name := range []string{"readable", "writable"} {
		check, write := Check(name), Write(name, []byte("other"))
		if fmt.Sprint(check) != fmt.Sprint(write) {
			return fmt.Errorf("%s: check says %w, write %w", name, check, write)
		}
		if err := c.Say("%s %v", name, write); err != nil {
			return err
		}
	}
	return nil
}

// The contents are on the disk before the name is, and the name before Write returns:
// the system calls of a child that writes, in their order.
func TestSynced(t *testing.T) {
	dir := t.TempDir()
	c := testchild.Start(t, "writer", dir+"/file")
	l, err := notify.RecvListener(c.UnixConn)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c.MustSay("go")
	var calls []string
	p := []unix.PollFd{{Fd: int32(l.FD()), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(p, -1); errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		if p[0].Revents&unix.POLLIN == 0 {
			break // it has ended, also by its deadline
		}
		var n notify.Notif
		if err := l.Recv(&n); err != nil {
			continue
		}
		what := "rename"
		if n.Data.NR == unix.SYS_FSYNC {
			to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", n.PID, n.Data.Args[0]))
			if err != nil {
				t.Error(err)
			}
			if what = "sync file"; to == dir {
				what = "sync directory"
			}
		}
		calls = append(calls, what)
		if err := l.Send(&notify.Resp{ID: n.ID, Flags: notify.RespContinue}); err != nil {
			t.Error(err)
		}
	}
	if want := []string{"sync file", "rename", "sync directory"}; !slices.Equal(calls, want) {
		t.Errorf("%q, want %q", calls, want)
	}
	if st := c.Wait(); st.ExitStatus() != 0 {
		t.Error(st)
	}
}

func beWriter(c *testchild.Conn, args []string) error {
	prog, err := notify.TrapProgram(unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_FSYNC)
	if err != nil {
		return err
	}
	l, err := notify.Install(prog, notify.TSync)
	if err != nil {
		return err
	}
	if err := notify.SendListener(c.UnixConn, l); err != nil {
		return err
	}
	if err := l.Close(); err != nil {
		return err
	}
	if _, err := c.Hear(); err != nil {
		return err
	}
	return Write(args[0], []byte("text"))
}
