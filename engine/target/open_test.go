package target

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

// prepareMore changes the target's thread before it calls.
func prepareMore(word, rest string) error {
	switch word {
	case "user": // UID, with that for a group and some more groups
		f := strings.Split(rest, ",")
		var ids []int
		for _, s := range f {
			n, _ := strconv.Atoi(s)
			ids = append(ids, n)
		}
		if err := setGroups(ids[1:]); err != nil {
			return err
		}
		id := uintptr(ids[0])
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, id, id, id); e != 0 {
			return e
		}
		_, _, e := unix.RawSyscall(unix.SYS_SETRESUID, id, id, id)
		return errno(e)
	case "keep-caps":
		return unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0)
	case "caps":
		n, _ := strconv.ParseUint(rest, 16, 64)
		return capabilities{effective: n, permitted: n}.set()
	case "chroot":
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		if err := unix.Chroot(rest); err != nil {
			return err
		}
		return unix.Chdir("/")
	case "mounts": // a namespace of its own
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return err
		}
		return unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	case "tmpfs":
		if err := unix.Mount("none", rest, "tmpfs", 0, "mode=755"); err != nil {
			return err
		}
		return os.WriteFile(rest+"/inside", []byte("inside"), 0o644)
	case "bind":
		from, to, _ := strings.Cut(rest, ":")
		return unix.Mount(from, to, "", unix.MS_BIND, "")
	case "proc":
		return unix.Mount("proc", rest, "proc", 0, "")
	case "net":
		return unix.Unshare(unix.CLONE_NEWNET)
	case "uts":
		if err := unix.Unshare(unix.CLONE_NEWUTS); err != nil {
			return err
		}
		return unix.Sethostname([]byte(rest))
	}
	return fmt.Errorf("no such preparation")
}

const (
	otherUser  = 1000 // a target's, when the test is root
	otherGroup = 2000 // one that it is in
)

// tree makes the files of the cases. Root's belong to root, own's to the target.
func tree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	root := os.Geteuid() == 0
	for d := dir; strings.HasPrefix(d, os.TempDir()+"/"); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(filepath.Base(name)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"own", "dir/sub/deep", "mnt", "proc", "bound", "closed"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write("secret", 0o600)
	write("public", 0o644)
	write("dir/x", 0o644)
	write("dir/sub/y", 0o644)
	write("own/file", 0o600)
	write("own/unreadable", 0o000)
	write("group", 0o640)
	write("closed/file", 0o644)
	for to, link := range map[string]string{
		"public": "link", "loop": "loop", "secret": "to-secret", dir + "/public": "absolute", "/public": "root-public", "../..": "dir/sub/up",
		"own/made": "dangling", "dangling2": "dangling1", dir + "/own/made2": "dangling2", "/proc/self/status": "to-self", "/proc/self/fd/0": "to-fd", "to-self": "to-to-self",
	} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o666); err != nil {
		t.Fatal(err)
	}
	if root {
		for _, name := range []string{"own", "own/file", "own/unreadable", "fifo"} {
			if err := os.Chown(filepath.Join(dir, name), otherUser, otherUser); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chown(filepath.Join(dir, "group"), 0, otherGroup); err != nil {
			t.Fatal(err)
		}
		_ = os.Chmod(filepath.Join(dir, "group"), 0o640)
	}
	_ = os.Chmod(filepath.Join(dir, "closed"), 0o700)
	return dir
}

// An openCase is a call of the target's and what comes of it: the file's bytes, an errno or an error of ours.
type openCase struct {
	name  string
	dirfd int // an index into the target's directories, from 1 on; 0: AT_FDCWD
	path  string
	flags uint64
	want  any
}

func (c openCase) run(t *testing.T, target Target, dirs []int) {
	t.Helper()
	dirfd := unix.AT_FDCWD
	if c.dirfd > 0 {
		dirfd = dirs[c.dirfd-1]
	} else if c.dirfd < 0 {
		dirfd = c.dirfd
	}
	fd, err := target.OpenAt(dirfd, c.path, How(c.flags, 0o666))
	if fd >= 0 {
		f := os.NewFile(uintptr(fd), "opened")
		defer f.Close()
	}
	switch want := c.want.(type) {
	case string:
		if err != nil {
			t.Errorf("%s: %v, want %q", c.name, err, want)
			return
		}
		b := make([]byte, 100)
		n, err := unix.Pread(fd, b, 0)
		if err != nil || string(b[:n]) != want {
			t.Errorf("%s: read %q, %v; want %q", c.name, b[:max(0, n)], err, want)
		}
	case func(fd int) error:
		if err == nil {
			err = want(fd)
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	case syscall.Errno:
		if errors.Is(err, ErrMagicLink) || errors.Is(err, ErrOpener) {
			t.Errorf("%s: %v, want %v", c.name, err, want)
			return
		}
		wantErrno(t, c.name, err, want, false)
	case error:
		if !errors.Is(err, want) || fd != -1 || !strings.Contains(err.Error(), strconv.Quote(c.path)) || Errno(err, 999) != 999 {
			t.Errorf("%s: %d, %v; want %v", c.name, fd, err, want)
		}
	}
}

// isKind wants an open file of a kind.
func isKind(kind uint32) func(int) error {
	return func(fd int) error {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != kind {
			return fmt.Errorf("mode %o", st.Mode)
		}
		return nil
	}
}

var anything = func(int) error { return nil }

const longName = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" +
	"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// TestOpenAt has a target that is uid 1000 if the test is root, else the same user.
func TestOpenAt(t *testing.T) {
	if err := openat2Works(); err != nil {
		t.Skip(err)
	}
	dir := tree(t)
	root := os.Geteuid() == 0
	var args []string
	if root {
		needRoot(t)
		args = append(args, fmt.Sprintf("user=%d,%d", otherUser, otherGroup))
	}
	g := startTarget(t, args...)
	var dirs []int
	for _, d := range []string{dir, dir + "/dir/sub", "/proc", fmt.Sprintf("/proc/%d", os.Getpid())} {
		n, _ := strconv.Atoi(g.tell("open-dir %s", d))
		dirs = append(dirs, n)
	}
	file, _ := strconv.Atoi(g.tell("open-null"))
	dirs = append(dirs, file)
	const inTree, inSub, inProc, inOurs, inFile = 1, 2, 3, 4, 5
	g.tell("chdir %s/dir", dir)
	target := g.call()
	pid := os.Getpid()
	rootOnly := func(e syscall.Errno, else_ any) any {
		if root {
			return e
		}
		return else_
	}
	for _, c := range []openCase{
		{"a file", 0, dir + "/public", unix.O_RDONLY, "public"},
		{"cwd", 0, "x", 0, "x"},
		{"cwd, ..", 0, "../public", 0, "public"},
		{"cwd, many ..", 0, strings.Repeat("../", 40) + strings.TrimPrefix(dir, "/") + "/public", 0, "public"},
		{"descriptor", inSub, "y", 0, "y"},
		{"descriptor, ..", inSub, "../x", 0, "x"},
		{"descriptor, .. above it", inSub, "../../public", 0, "public"},
		{"descriptor, absolute path", inSub, dir + "/public", 0, "public"},
		{"descriptor, a link up", inSub, "up/public", 0, "public"},
		{"descriptor that is not open", -7, "x", 0, unix.EBADF},
		{"descriptor that is not open, absolute path", -7, dir + "/public", 0, "public"},
		{"descriptor of a file", inFile, "x", 0, unix.ENOTDIR},
		{"link", inTree, "link", 0, "public"},
		{"absolute link", inTree, "absolute", 0, "public"},
		{"link, not followed", inTree, "link", unix.O_NOFOLLOW, unix.ELOOP},
		{"link itself", inTree, "link", unix.O_NOFOLLOW | unix.O_PATH, isKind(unix.S_IFLNK)},
		{"loop", inTree, "loop", 0, unix.ELOOP},
		{"loop, to create", inTree, "loop", unix.O_CREAT | unix.O_WRONLY, unix.ELOOP},
		{"no such file", inTree, "nothing", 0, unix.ENOENT},
		{"no such directory", inTree, "nothing/x", unix.O_CREAT, unix.ENOENT},
		{"empty path", inTree, "", 0, unix.ENOENT},
		{"slash after a file", inTree, "public/", 0, unix.ENOTDIR},
		{"a file as a directory", inTree, "public", unix.O_DIRECTORY, unix.ENOTDIR},
		{"a directory", inTree, "dir", unix.O_DIRECTORY, isKind(unix.S_IFDIR)},
		{"a directory, to write", inTree, "dir", unix.O_WRONLY, unix.EISDIR},
		{"a directory, to create", inTree, "own", unix.O_CREAT, unix.EISDIR},
		{"O_PATH", inTree, "secret", unix.O_PATH, isKind(unix.S_IFREG)},
		{"long name", inTree, longName, 0, unix.ENAMETOOLONG},
		{"long path", inTree, strings.Repeat("./", PathMax/2-2) + "xyz", 0, unix.ENOENT},
		{"too long a path", inTree, strings.Repeat("./", PathMax/2-2) + "wxyz", 0, unix.ENAMETOOLONG},
		{"fifo that is read and written", inTree, "fifo", unix.O_RDWR, isKind(unix.S_IFIFO)},

		{"root's secret", inTree, "secret", 0, rootOnly(unix.EACCES, "secret")},
		{"root's secret by a link", inTree, "to-secret", 0, rootOnly(unix.EACCES, "secret")},
		{"root's file, to write", inTree, "public", unix.O_WRONLY, rootOnly(unix.EACCES, anything)},
		{"a directory that is closed", inTree, "closed/file", 0, rootOnly(unix.EACCES, "file")},
		{"a directory that is closed, ..", inTree, "closed/../public", 0, rootOnly(unix.EACCES, "public")},
		{"create in root's directory", inTree, "dir/new", unix.O_CREAT | unix.O_WRONLY, rootOnly(unix.EACCES, anything)},
		{"its own file", inTree, "own/file", unix.O_RDWR, "file"},
		{"its group's file", inTree, "group", 0, "group"},
		{"its own file of mode 0", inTree, "own/unreadable", 0, unix.EACCES},

		{"create", inTree, "own/new", unix.O_CREAT | unix.O_RDWR, ""},
		{"create what exists", inTree, "own/file", unix.O_CREAT | unix.O_RDWR, "file"},
		{"create only", inTree, "own/file", unix.O_CREAT | unix.O_EXCL | unix.O_RDWR, unix.EEXIST},
		{"create only, new", inTree, "own/new2", unix.O_CREAT | unix.O_EXCL | unix.O_RDWR, ""},
		{"create only, a link", inTree, "dangling", unix.O_CREAT | unix.O_EXCL | unix.O_RDWR, unix.EEXIST},
		{"a link to nowhere", inTree, "dangling", 0, unix.ENOENT},
		{"create by a link to nowhere, not followed", inTree, "dangling", unix.O_CREAT | unix.O_RDWR | unix.O_NOFOLLOW, unix.ELOOP},
		{"create by a link to nowhere", inTree, "dangling", unix.O_CREAT | unix.O_RDWR, ""},
		{"create by two", inTree, "dangling1", unix.O_CREAT | unix.O_RDWR, ""},
		{"truncate", inTree, "own/made", unix.O_TRUNC | unix.O_RDWR, ""},
		{"without a name", inTree, "own", unix.O_TMPFILE | unix.O_RDWR, ""},

		{"magic link: self", 0, "/proc/self/status", 0, ErrMagicLink},
		{"magic link: thread-self", 0, "/proc/thread-self/status", 0, ErrMagicLink},
		{"magic link: self's memory", 0, "/proc/self/mem", unix.O_RDWR, ErrMagicLink},
		{"magic link: descriptor", 0, "/proc/self/fd/0", 0, ErrMagicLink},
		{"magic link: /dev/fd", 0, "/dev/fd/0", 0, ErrMagicLink},
		{"magic link: exe", 0, "/proc/self/exe", 0, ErrMagicLink},
		{"magic link: root", 0, "/proc/self/root" + dir + "/public", 0, ErrMagicLink},
		{"magic link: cwd", 0, "/proc/self/cwd/x", 0, ErrMagicLink},
		{"magic link: mounts", 0, "/proc/mounts", 0, ErrMagicLink},
		{"magic link: net", 0, "/proc/net/dev", 0, ErrMagicLink},
		{"magic link of our process", 0, fmt.Sprintf("/proc/%d/cwd/x", pid), 0, ErrMagicLink},
		{"magic link of another process", 0, fmt.Sprintf("/proc/%d/cwd/x", g.Cmd.Process.Pid), 0, rootOnly(unix.EACCES, ErrMagicLink)}, // it changed its ids
		{"magic link by a link", inTree, "to-self", 0, ErrMagicLink},
		{"magic link by two", inTree, "to-to-self", 0, ErrMagicLink},
		{"magic link by a link, a descriptor", inTree, "to-fd", 0, ErrMagicLink},
		{"magic link, a descriptor of /proc", inProc, "self/maps", 0, ErrMagicLink},
		{"our memory", 0, fmt.Sprintf("/proc/%d/mem", pid), unix.O_RDWR, ErrOpener},
		{"our thread's memory", 0, fmt.Sprintf("/proc/%d/task/%d/mem", pid, pid), unix.O_RDWR, ErrOpener},
		{"our environment, by a descriptor", inOurs, "environ", 0, ErrOpener},
		{"our memory, by a descriptor and ..", inOurs, "task/../mem", unix.O_RDWR, ErrOpener},
		{"our memory, O_PATH", inOurs, "mem", unix.O_PATH, ErrOpener},
		{"our directory", 0, fmt.Sprintf("/proc/%d/fd", pid), 0, ErrOpener},
		{"sysctl", 0, "/proc/sys/kernel/osrelease", 0, ErrOpener},
		{"its own terminal", 0, "/dev/tty", unix.O_RDWR, ErrOpener},
		{"everybody's file of /proc", 0, "/proc/meminfo", 0, anything},
		{"everybody's file of /proc, deeper", 0, "/proc/tty/drivers", 0, anything},
		{"/proc", 0, "/proc", unix.O_DIRECTORY, isKind(unix.S_IFDIR)},
		{"/dev/null", 0, "/dev/null", unix.O_RDWR, ""},
		{"the root directory", 0, "/", 0, isKind(unix.S_IFDIR)},
	} {
		c.run(t, target, dirs)
	}
	for _, procs := range []string{"/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/unified/cgroup.procs"} {
		var fs unix.Statfs_t
		if unix.Statfs(procs, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			openCase{"a cgroup's processes, to write", 0, procs, unix.O_WRONLY, ErrOpener}.run(t, target, dirs)
			openCase{"a cgroup's processes", 0, procs, unix.O_RDONLY, anything}.run(t, target, dirs)
		}
	}
	if _, err := target.OpenAt(dirs[0], "nul\x00", unix.OpenHow{}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a NUL: %v", err)
	}
	if _, err := target.OpenAt(dirs[0], "public", unix.OpenHow{Flags: 1 << 40}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("flags that there are not: %v", err)
	}
	if fd, err := target.OpenAt(dirs[1], "../x", unix.OpenHow{Resolve: unix.RESOLVE_BENEATH}); !errors.Is(err, unix.EXDEV) || fd >= 0 {
		t.Errorf("openat2 that stays beneath: %d, %v", fd, err)
	}
	fd, err := target.OpenAt(dirs[0], "public", unix.OpenHow{})
	if err != nil {
		t.Fatal(err)
	}
	if flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
		t.Error("not close-on-exec")
	}
	_ = unix.Close(fd)
}

func openat2Works() error {
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH})
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

// What is created is the target's, and the process's own threads are as they were.
func TestOpenAtLeavesNoTrace(t *testing.T) {
	dir := tree(t)
	var args []string
	if os.Geteuid() == 0 {
		needRoot(t)
		args = []string{fmt.Sprintf("user=%d", otherUser)}
	}
	g := startTarget(t, args...)
	g.tell("umask 027")
	g.tell("chdir %s", dir)
	target := g.call()
	before := threadsSay(t)
	fds := testchild.OpenFDs(t)
	cwd, _ := os.Getwd()
	for i := range 20 {
		fd, err := target.OpenAt(unix.AT_FDCWD, fmt.Sprint("own/f", i), How(unix.O_CREAT|unix.O_WRONLY, 0o4777))
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		_ = unix.Fstat(fd, &st)
		_ = unix.Close(fd)
		if want := uint32(0o4750); st.Mode&0o7777 != want {
			t.Errorf("mode %o, want %o", st.Mode&0o7777, want)
		}
		ids, err := target.IDs()
		if err != nil || int(st.Uid) != ids.FSUID || int(st.Gid) != ids.FSGID {
			t.Errorf("it is %d:%d's, the target is %+v, %v", st.Uid, st.Gid, ids, err)
		}
	}
	if now, _ := os.Getwd(); now != cwd {
		t.Errorf("in %s, were in %s", now, cwd)
	}
	if n := testchild.OpenFDs(t); n != fds {
		t.Errorf("%d descriptors, were %d", n, fds)
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
		if threadsSay(t) == before {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("threads are\n%s\nand were\n%s", threadsSay(t), before)
		}
	}
}

// threadsSay is the sum of what threads of this process are: each different one once.
func threadsSay(t *testing.T) string {
	t.Helper()
	kinds := map[string]bool{}
	tids, err := osthread.Threads()
	if err != nil {
		t.Fatal(err)
	}
	for _, tid := range tids {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/status", tid))
		s := ""
		for line := range strings.Lines(string(b)) {
			for _, p := range []string{"Uid:", "Gid:", "Groups:", "Umask:", "CapEff:", "CapPrm:"} {
				if strings.HasPrefix(line, p) {
					s += line
				}
			}
		}
		kinds[s] = true
	}
	delete(kinds, "") // ended meanwhile
	var all strings.Builder
	for k := range kinds {
		all.WriteString(k)
	}
	if len(kinds) > 1 {
		return fmt.Sprintf("%d kinds: %s", len(kinds), all.String())
	}
	return all.String()
}

func TestOpenAtInAChroot(t *testing.T) {
	needRoot(t)
	dir := tree(t)
	g := startTarget(t, "mounts", "bind="+dir+":"+dir, "proc="+dir+"/proc", "chroot="+dir, fmt.Sprintf("user=%d,%d", otherUser, otherGroup))
	sub, _ := strconv.Atoi(g.tell("open-dir /dir/sub"))
	target := g.call()
	for _, c := range []openCase{
		{"absolute", 0, "/public", 0, "public"},
		{"out of it", 0, "/../../../../public", 0, "public"},
		{"out of it, relative", 0, "../../../public", 0, "public"},
		{"out of it, a descriptor", 1, "../../../../../public", 0, "public"},
		{"a link to the root", 0, "root-public", 0, "public"},
		{"a link to outside", 0, "absolute", 0, unix.ENOENT},
		{"a file outside", 0, "/etc/passwd", 0, unix.ENOENT},
		{"root's secret", 0, "/secret", 0, unix.EACCES},
		{"our memory", 0, fmt.Sprintf("/proc/%d/mem", os.Getpid()), unix.O_RDWR, ErrOpener},
		{"magic link", 0, "to-self", 0, ErrMagicLink},
		{"the way out by a magic link", 0, fmt.Sprintf("/proc/%d/root/etc/passwd", os.Getpid()), 0, ErrMagicLink},
		{"everybody's file of /proc", 0, "/proc/meminfo", 0, anything},
		{"create by a link to nowhere", 0, "dangling", unix.O_CREAT | unix.O_RDWR, ""},
	} {
		c.run(t, target, []int{sub})
	}
	if _, err := os.Stat(dir + "/own/made"); err != nil {
		t.Error(err)
	}
}

func TestOpenAtInAMountNamespace(t *testing.T) {
	needRoot(t)
	dir := tree(t)
	g := startTarget(t, "mounts", "tmpfs="+dir+"/mnt", fmt.Sprintf("bind=/proc/%d:%s/bound", os.Getpid(), dir), fmt.Sprintf("user=%d,%d", otherUser, otherGroup))
	mnt, _ := strconv.Atoi(g.tell("open-dir %s/mnt", dir))
	g.tell("chdir %s/bound", dir)
	target := g.call()
	for _, c := range []openCase{
		{"a mount that only it has", 0, dir + "/mnt/inside", 0, "inside"},
		{"by a descriptor", 1, "inside", 0, "inside"},
		{"above the mount", 1, "../public", 0, "public"},
		{"root's secret", 1, "../secret", 0, unix.EACCES},
		{"our memory, mounted elsewhere", 0, dir + "/bound/mem", unix.O_RDWR, ErrOpener},
		{"our memory, by cwd", 0, "mem", unix.O_RDWR, ErrOpener},
		{"our environment, by cwd", 0, "environ", 0, ErrOpener},
		{"above cwd", 0, "../public", 0, "public"},
	} {
		c.run(t, target, []int{mnt})
	}
	if _, err := os.Stat(dir + "/mnt/inside"); err == nil {
		t.Error("the mount is ours too")
	}
}

// In a pid namespace that is not ours /proc/self does not exist for us, which is no answer for the target.
func TestOpenAtInAPIDNamespace(t *testing.T) {
	needRoot(t)
	dir := tree(t)
	g := startTargetWith(t, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}, "mounts", "proc=/proc")
	g.tell("chdir %s", dir)
	target := g.call()
	for _, c := range []openCase{
		{"self", 0, "/proc/self/status", 0, ErrMagicLink},
		{"self by a link", 0, "to-to-self", 0, ErrMagicLink},
		{"itself by its number", 0, "/proc/1/status", 0, ErrOpener},
		{"nothing", 0, "/proc/nothing", 0, unix.ENOENT},
		{"everybody's", 0, "/proc/meminfo", 0, anything},
	} {
		c.run(t, target, nil)
	}
}

func TestOpenAtWithCapabilities(t *testing.T) {
	needRoot(t)
	dir := tree(t)
	open := func(g *tgt, path string, want any) {
		t.Helper()
		target := g.call()
		openCase{path, 0, dir + "/" + path, 0, want}.run(t, target, nil)
		g.answer(1)
	}
	g := startTarget(t)
	open(g, "own/unreadable", "unreadable")
	open(g, "secret", "secret")
	g = startTarget(t, "caps=0") // root by name only
	open(g, "own/unreadable", unix.EACCES)
	open(g, "secret", "secret") // the owner's
	open(g, "own/file", unix.EACCES)
	g = startTarget(t, "keep-caps", fmt.Sprintf("user=%d", otherUser), fmt.Sprintf("caps=%x", 1<<unix.CAP_DAC_READ_SEARCH))
	open(g, "secret", "secret")
	target := g.call()
	openCase{"to write", 0, dir + "/secret", unix.O_WRONLY, unix.EACCES}.run(t, target, nil)
}

// Who is root in a user namespace is nobody outside.
func TestOpenAtInAUserNamespace(t *testing.T) {
	dir := tree(t)
	if os.Geteuid() == 0 {
		needRoot(t)
	}
	if err := tryUserNamespace(); err != nil {
		t.Skip(err)
	}
	g := startTargetWith(t, ownUserNamespace(), "mounts", "bind="+dir+":"+dir, "chroot="+dir)
	sub, _ := strconv.Atoi(g.tell("open-dir /dir/sub"))
	target := g.call()
	ids, err := target.IDs()
	if err != nil || !ids.Has(unix.CAP_DAC_OVERRIDE) || ids.FSUID != userInside() {
		t.Fatalf("%+v, %v", ids, err)
	}
	cases := []openCase{
		{"absolute", 0, "/public", 0, "public"},
		{"out of it", 0, "/../../public", 0, "public"},
		{"a link to the root", 0, "/root-public", 0, "public"},
		{"beneath", 1, "y", 0, "y"},
		{"its own file", 0, "/own/file", unix.O_RDWR, "file"},
		{"outside", 0, "/etc/passwd", 0, unix.ENOENT},
	}
	if os.Geteuid() == 0 {
		cases = append(cases, openCase{"root's secret", 0, "/secret", 0, unix.EACCES}, openCase{"above a descriptor", 1, "../../public", 0, "public"})
	}
	for _, c := range cases {
		c.run(t, target, []int{sub})
	}
	if os.Geteuid() != 0 {
		_, err := target.OpenAt(sub, "../x", unix.OpenHow{})
		var e *Error
		if !errors.As(err, &e) || !e.Ours || !strings.Contains(err.Error(), "CAP_SYS_CHROOT") {
			t.Errorf("above a descriptor: %v", err)
		}
	}
}

// userInside is who is root in ownUserNamespace.
func userInside() int {
	if os.Geteuid() == 0 {
		return otherUser
	}
	return os.Geteuid()
}

// ownUserNamespace has a child in a user namespace in which somebody who is not root outside is root.
func ownUserNamespace() *syscall.SysProcAttr {
	gid := os.Getegid()
	if gid == 0 {
		gid = otherUser
	}
	sys := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: userInside(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}},
	}
	if os.Geteuid() == 0 {
		sys.Credential = &syscall.Credential{NoSetGroups: true}
	}
	return sys
}

// tryUserNamespace says whether this user may make one.
func tryUserNamespace() error {
	cmd := exec.Command("/bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("no user namespaces here: %w", err)
	}
	return nil
}

// A supervisor that is not root cannot be somebody else, and says so.
func TestOpenAtForAnotherUser(t *testing.T) {
	skipIfRoot(t)
	g := startTarget(t)
	target := g.call()
	p, err := target.place("test", unix.AT_FDCWD, true)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	for what, change := range map[string]func(*IDs){"CAP_SETUID": func(i *IDs) { i.EUID++; i.FSUID++ }, "CAP_SETGID": func(i *IDs) { i.EGID++; i.FSGID++ }} {
		other := *p
		change(&other.ids)
		var s *stepError
		if err := onThread(other.enter); !errors.As(err, &s) || !strings.Contains(s.needs, what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// An open that hangs ends with the target, and leaves no thread and no descriptor behind.
func TestOpenAtHangs(t *testing.T) {
	dir := tree(t)
	g := startTarget(t)
	target := g.call()
	fd, err := target.OpenAt(unix.AT_FDCWD, "/", unix.OpenHow{}) // so that what is opened once is
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(fd)
	fds := descriptors(t)
	const opens = 3
	done := make(chan error, opens)
	for range opens {
		go func() {
			_, err := target.OpenAt(unix.AT_FDCWD, dir+"/fifo", unix.OpenHow{})
			done <- err
		}()
	}
	// The kernel says when they wait for a writer.
	waitFor(t, "all threads wait for a writer", func() bool { return threadsIn("wait_for_partner") == opens || threadsIn("fifo_open") == opens })
	select {
	case err := <-done:
		t.Fatalf("it did not hang: %v", err)
	default:
	}
	g.kill()
	for range opens {
		if err := <-done; err != ErrGone {
			t.Error(err)
		}
	}
	waitFor(t, "the descriptors are closed and the threads gone", func() bool {
		for _, fd := range descriptors(t) {
			if !slices.Contains(fds, fd) {
				return false
			}
		}
		return threadsIn("wait_for_partner") == 0 && threadsIn("fifo_open") == 0
	})
}

// descriptors are this process's, each with what it is.
func descriptors(t *testing.T) (all []string) {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range d {
		if link, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil { // not that of the directory
			all = append(all, e.Name()+" "+link)
		}
	}
	return all
}

// threadsIn counts this process's threads that sleep in a function of the kernel, or in openat2 where it does not tell.
func threadsIn(function string) (n int) {
	tids, _ := osthread.Threads()
	for _, tid := range tids {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/wchan", tid))
		s, _ := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/syscall", tid))
		if strings.HasPrefix(string(s), fmt.Sprintf("%d ", unix.SYS_OPENAT2)) || strings.Contains(string(b), function) {
			n++
		}
	}
	return n
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestHow(t *testing.T) {
	for _, c := range []struct {
		flags, mode uint64
		want        unix.OpenHow
	}{
		{unix.O_RDWR, 0o666, unix.OpenHow{Flags: unix.O_RDWR}},
		{unix.O_RDWR | unix.O_CREAT, 0o170666, unix.OpenHow{Flags: unix.O_RDWR | unix.O_CREAT, Mode: 0o666}},
		{unix.O_TMPFILE | unix.O_RDWR, 0o600, unix.OpenHow{Flags: unix.O_TMPFILE | unix.O_RDWR, Mode: 0o600}},
		{unix.O_DIRECTORY, 0o600, unix.OpenHow{Flags: unix.O_DIRECTORY}},
		{unix.O_PATH | unix.O_RDWR | unix.O_CREAT, 0o600, unix.OpenHow{Flags: unix.O_PATH}},
		{1<<40 | 1<<30, 0, unix.OpenHow{}},
	} {
		if got := How(c.flags, c.mode); got != c.want {
			t.Errorf("%#x, %o: %+v", c.flags, c.mode, got)
		}
	}
}
