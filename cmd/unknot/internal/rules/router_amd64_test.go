package rules

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/agent"
	"github.com/unknot/unknot/engine/enginetest"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/syscalls"
	"golang.org/x/sys/unix"
)

// A bench is a router with targets and what was written down.
type bench struct {
	t      *testing.T
	e      *enginetest.Engine
	router *Router
	audit  *Audit
	log    bytes.Buffer
}

func newBench(t *testing.T, policy string) *bench {
	b := &bench{t: t}
	b.audit = NewAudit(&b.log, AuditOptions{})
	t.Cleanup(func() { _ = b.audit.Close() })
	b.router = NewRouter(mustParse(t, policy), b.audit)
	b.e = enginetest.New(t, b.router)
	return b
}

func (b *bench) container(s agent.State) *enginetest.Target {
	return b.e.TargetWith(engine.SourceOptions{Tag: NewTag(s)})
}

// records are what was written down, when nothing more is.
func (b *bench) records() (all []map[string]any) {
	b.t.Helper()
	if err := b.audit.Close(); err != nil {
		b.t.Error(err)
	}
	for line := range strings.Lines(b.log.String()) {
		var r map[string]any
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			b.t.Errorf("%v: %s", err, line)
		}
		all = append(all, r)
	}
	return all
}

// fdcwd is AT_FDCWD, as programs pass it.
const fdcwd = uint64(0xffffff9c)

func TestFirstMatchWins(t *testing.T) {
	b := newBench(t, `default: errno ENOSYS
rules:
- calls: mkdir
  where: {path: /a/*}
  do: deny EACCES
- calls: mkdir
  where: {mode: 0700..0777}
  do: continue
- calls: [mkdir, rmdir]
  do: errno EROFS
`)
	p := b.container(box("x"))
	for _, c := range []struct {
		path  string
		mode  uint64
		errno syscall.Errno
	}{{"/a/b", 0o755, unix.EACCES}, {"/a/b/c", 0o755, 0}, {"/a", 0o755, 0}, {"/a/../a//./b/", 0, unix.EACCES}, {"/b", 0o600, unix.EROFS}, {"/b", 0o1000, unix.EROFS}} {
		got := p.Call(unix.SYS_MKDIR, p.PutString(c.path), c.mode|0xdead<<32)
		if got.Errno != c.errno || got.Continued != (c.errno == 0) {
			t.Errorf("mkdir %s %#o: %v", c.path, c.mode, got)
		}
	}
	if got := p.Call(unix.SYS_RMDIR, 0); got.Errno != unix.EROFS {
		t.Errorf("rmdir: %v", got)
	}
	if got := p.Call(unix.SYS_CHMOD, 0); got.Errno != unix.ENOSYS {
		t.Errorf("chmod, by default: %v", got)
	}
	if got := p.Call(1 << 20); got.Errno != unix.ENOSYS {
		t.Errorf("no call at all: %v", got)
	}
	// What cannot be read is not let through.
	if got := p.Call(unix.SYS_MKDIR, 8, 0o700); got.Errno != unix.EFAULT {
		t.Errorf("a path that is not mapped: %v", got)
	}
	var hits []uint64
	for _, s := range b.router.Policy().State() {
		hits = append(hits, s.Hits)
	}
	if fmt.Sprint(hits) != "[3 2 3 2]" {
		t.Errorf("hits %v", hits)
	}
}

func TestContainers(t *testing.T) {
	b := newBench(t, `default: continue
rules:
- calls: mkdir
  container: [web-*, "db?"]
  do: errno E2BIG
- calls: mkdir
  metadata: build
  do: errno EBUSY
- calls: mkdir
  annotations: {team: "*", tier: front-*}
  do: errno EDOM
`)
	with := func(id, metadata string, annotations ...string) agent.State {
		s := agent.State{Metadata: metadata, Container: agent.Container{ID: id, Annotations: map[string]string{}}}
		for i := 0; i < len(annotations); i += 2 {
			s.Container.Annotations[annotations[i]] = annotations[i+1]
		}
		return s
	}
	for _, c := range []struct {
		state agent.State
		errno syscall.Errno
	}{
		{with("web-1", ""), unix.E2BIG}, {with("web-1/x", "build"), unix.E2BIG}, {with("web", ""), 0}, {with("db1", ""), unix.E2BIG}, {with("db", ""), 0}, {with("", ""), 0},
		{with("x", "build"), unix.EBUSY}, {with("x", "builder"), 0},
		{with("x", "", "team", "", "tier", "front-1"), unix.EDOM}, {with("x", "", "tier", "front-1"), 0}, {with("x", "", "team", "a", "tier", "back"), 0},
	} {
		for range 2 {
			if got := b.container(c.state).Call(unix.SYS_MKDIR, 0); got.Errno != c.errno {
				t.Errorf("%+v: %v", c.state, got)
			}
		}
	}
	// A listener without a tag of ours is a container without anything.
	if got := b.e.Target().Call(unix.SYS_MKDIR, 0); !got.Continued {
		t.Errorf("without a tag: %v", got)
	}
}

// sockaddr4 and the others are addresses as the kernel takes them.
func sockaddr4(port uint16, ip ...byte) []byte {
	return append(binary.BigEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, unix.AF_INET), port), append(ip, make([]byte, 8)...)...)
}

func sockaddr6(port uint16, ip [16]byte) []byte {
	b := binary.BigEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, unix.AF_INET6), port)
	return append(append(append(b, 0, 0, 0, 0), ip[:]...), 0, 0, 0, 0)
}

func sockaddrUn(path string) []byte {
	return append(binary.NativeEndian.AppendUint16(nil, unix.AF_UNIX), path...)
}

func TestAddresses(t *testing.T) {
	mapped := [16]byte{10: 0xff, 11: 0xff, 12: 10, 15: 7}
	for _, c := range []struct {
		pattern string
		addr    []byte
		match   bool
	}{
		{"10.0.0.0/8", sockaddr4(80, 10, 1, 2, 3), true}, {"10.0.0.0/8", sockaddr4(80, 11, 1, 2, 3), false},
		{"10.0.0.0/8", sockaddr6(80, mapped), true}, {"10.0.0.7:80", sockaddr6(80, mapped), true},
		{"10.0.0.0/8:443", sockaddr4(80, 10, 1, 2, 3), false}, {"10.0.0.0/8:1..443", sockaddr4(80, 10, 1, 2, 3), true},
		{"*:80", sockaddr4(80, 1, 1, 2, 3), true}, {"*:80", sockaddr6(80, [16]byte{15: 1}), true}, {"*:80", sockaddr4(81, 1, 1, 2, 3), false}, {"*:80", sockaddrUn("/x"), false},
		{"::1", sockaddr6(80, [16]byte{15: 1}), true}, {"[::1]:80", sockaddr6(80, [16]byte{15: 1}), true}, {"[::1]:81", sockaddr6(80, [16]byte{15: 1}), false},
		{"[2001:db8::/32]:80", sockaddr6(80, [16]byte{0x20, 1, 0xd, 0xb8, 9}), true}, {"2001:db8::/32", sockaddr6(80, [16]byte{0x20, 1, 0xd, 0xb9, 9}), false},
		{"unix:/run/*.sock", sockaddrUn("/run/../run/a.sock\x00"), true}, {"unix:/run/*.sock", sockaddrUn("/run/d/a.sock"), false}, {"unix:/run/**", sockaddrUn("/run/d/a.sock"), true},
		{"unix:@bus-*", sockaddrUn("\x00bus-1"), true}, {"unix:@bus-*", sockaddrUn("/bus-1"), false}, {"unix:**", sockaddrUn("\x00bus-1"), false},
		{"unix", sockaddrUn("/x"), true}, {"inet", sockaddrUn("/x"), false}, {"inet", sockaddr4(1, 1, 1, 1, 1), true}, {"inet6", sockaddr4(1, 1, 1, 1, 1), false},
		{"netlink", binary.NativeEndian.AppendUint16(nil, unix.AF_NETLINK), true}, {"unspec", make([]byte, 16), true},
	} {
		b := newBench(t, "default: continue\nrules:\n- calls: [connect, bind]\n  where: {sockaddr: \""+c.pattern+"\"}\n  do: deny ECONNREFUSED\n")
		p := b.container(box("x"))
		for _, nr := range []int{unix.SYS_CONNECT, unix.SYS_BIND} {
			got := p.Call(nr, 3, p.Put(c.addr), uint64(len(c.addr)))
			if got.Continued == c.match || got.Errno == unix.ECONNREFUSED != c.match {
				t.Errorf("%s, % x: %v", c.pattern, c.addr, got)
			}
		}
	}
	b := newBench(t, "default: continue\nrules:\n- calls: sendto\n  where: {sockaddr: inet}\n  do: deny\n")
	p := b.container(box("x"))
	a := sockaddr4(80, 1, 2, 3, 4)
	if got := p.Call(unix.SYS_SENDTO, 3, 0, 0, 0, 0, 0); !got.Continued {
		t.Errorf("sendto without an address: %v", got)
	}
	if got := p.Call(unix.SYS_SENDTO, 3, 0, 0, 0, p.Put(a), uint64(len(a))); got.Errno != unix.EPERM {
		t.Errorf("sendto: %v", got)
	}
	if got := p.Call(unix.SYS_SENDTO, 3, 0, 0, 0, p.Put(a), 3); got.Errno != unix.EINVAL {
		t.Errorf("sendto, cut: %v", got)
	}
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		calls, where string
		nr           int
		args         [3]uint64
		match        bool
	}{
		{"openat", "flags: O_CREAT", unix.SYS_OPENAT, [3]uint64{0, 0, unix.O_CREAT | unix.O_RDWR}, true},
		{"openat", "flags: O_CREAT|O_EXCL", unix.SYS_OPENAT, [3]uint64{0, 0, unix.O_CREAT | unix.O_RDWR}, false},
		{"openat", "flags: O_RDONLY", unix.SYS_OPENAT, [3]uint64{0, 0, unix.O_CLOEXEC}, true},
		{"openat", "flags: O_RDONLY", unix.SYS_OPENAT, [3]uint64{0, 0, unix.O_WRONLY}, false},
		{"openat", "flags: [O_WRONLY, O_RDWR]", unix.SYS_OPENAT, [3]uint64{0, 0, unix.O_RDWR}, true},
		{"openat", "flags: 0", unix.SYS_OPENAT, [3]uint64{0, 0, unix.O_CLOEXEC}, false},
		{"openat", "dirfd: AT_FDCWD", unix.SYS_OPENAT, [3]uint64{fdcwd}, true},
		{"openat", "dirfd: -100", unix.SYS_OPENAT, [3]uint64{0xffffffffffffff9c}, true},
		{"openat", "dirfd: 0..", unix.SYS_OPENAT, [3]uint64{fdcwd}, false},
		{"kill", "signal: SIGKILL", unix.SYS_KILL, [3]uint64{1, 9}, true},
		{"kill", "pid: -1", unix.SYS_KILL, [3]uint64{0xffffffff, 9}, true},
		{"socket", "domain: AF_PACKET", unix.SYS_SOCKET, [3]uint64{unix.AF_PACKET}, true},
		{"socket", "domain: AF_UNIX", unix.SYS_SOCKET, [3]uint64{unix.AF_INET6}, false},
		{"socket", "type: SOCK_RAW", unix.SYS_SOCKET, [3]uint64{1, unix.SOCK_RAW | unix.SOCK_CLOEXEC}, true},
		{"socket", "type: SOCK_STREAM", unix.SYS_SOCKET, [3]uint64{1, unix.SOCK_RAW}, false},
		{"mknod", "mode: S_IFCHR", unix.SYS_MKNOD, [3]uint64{0, unix.S_IFCHR | 0o600}, true},
		{"mknod", "mode: S_IFCHR", unix.SYS_MKNOD, [3]uint64{0, unix.S_IFBLK | 0o600}, false},
		{"ptrace", "request: PTRACE_TRACEME", unix.SYS_PTRACE, [3]uint64{0}, true},
		{"ptrace", "request: PTRACE_TRACEME", unix.SYS_PTRACE, [3]uint64{16}, false},
		{"unshare", "flags: CLONE_NEWUSER", unix.SYS_UNSHARE, [3]uint64{unix.CLONE_NEWUSER | unix.CLONE_NEWNS}, true},
	} {
		b := newBench(t, "default: continue\nrules:\n- calls: "+c.calls+"\n  where: {"+c.where+"}\n  do: deny\n")
		p := b.container(box("x"))
		if got := p.Call(c.nr, c.args[:]...); got.Continued == c.match {
			t.Errorf("%s %s, %x: %v", c.calls, c.where, c.args, got)
		}
		d := notify.Data{Arch: p.Arch, NR: int32(c.nr), Args: [6]uint64{c.args[0], c.args[1], c.args[2]}}
		if !b.router.Inlines(p.Source(), &d) {
			t.Errorf("%s %s is not inline", c.calls, c.where)
		}
	}
}

func TestTexts(t *testing.T) {
	b := newBench(t, "default: continue\nrules:\n- calls: execve\n  where: {argv: [--privileged, \"*evil*\"]}\n  do: deny\n- calls: setxattr\n  where: {name: security.*}\n  do: deny EACCES\n")
	p := b.container(box("x"))
	argv := func(args ...string) uint64 {
		var list []byte
		for _, a := range args {
			list = binary.NativeEndian.AppendUint64(list, p.PutString(a))
		}
		return p.Put(append(list, make([]byte, 8)...))
	}
	path := p.PutString("/bin/x")
	many := slices.Repeat([]string{strings.Repeat("long", 1000)}, 10)
	for _, c := range []struct {
		argv  uint64
		errno syscall.Errno
	}{{argv("a", "b"), 0}, {argv("a", "--privileged"), unix.EPERM}, {argv("an evil/thing"), unix.EPERM}, {0, 0}, {argv(many...), unix.E2BIG}, {argv(append([]string{"evil"}, many...)...), unix.EPERM}, {8, unix.EFAULT}} {
		if got := p.Call(unix.SYS_EXECVE, path, c.argv, 0); got.Errno != c.errno {
			t.Errorf("argv: %v, want %v", got, c.errno)
		}
	}
	if got := p.Call(unix.SYS_SETXATTR, path, p.PutString("security.selinux/x")); got.Errno != unix.EACCES {
		t.Errorf("setxattr: %v", got)
	}
	if got := p.Call(unix.SYS_SETXATTR, path, p.PutString("user.x")); !got.Continued {
		t.Errorf("setxattr: %v", got)
	}
}

// 32-bit programs reach the same rules, by their own numbers, other names and socketcall.
func Test32Bit(t *testing.T) {
	if syscalls.Native() != syscalls.AMD64 {
		t.Skip("i386 is of amd64")
	}
	b := newBench(t, `default: errno ENOSYS
rules:
- calls: connect
  where: {sockaddr: 10.0.0.0/8}
  do: deny ECONNREFUSED
  log: true
- calls: connect
  do: log
- calls: socket
  where: {domain: AF_INET}
  do: continue
- calls: chown
  where: {path: /etc/**}
  do: deny EROFS
- calls: shmget
  do: errno EBUSY
- calls: recvfrom
  do: errno EAGAIN
- calls: stat
  where: {path: /nowhere}
  do: deny EXDEV
`)
	p := b.container(box("x"))
	p.Arch = syscalls.I386.Arch()
	call := func(nr int, args ...uint64) enginetest.Result { return p.Call(nr, args...) }
	const socketcall, ipc, connect, chown32, chown = 102, 117, 362, 212, 182
	// Memory of a 32-bit program is below 4 GB.
	p.Map(0x10000, sockaddr4(80, 10, 0, 0, 1))
	p.Map(0x11000, sockaddr4(80, 11, 0, 0, 1))
	p.Map(0x12000, append([]byte("/etc/passwd"), make([]byte, 4096-11)...))
	put := func(at uint64, w ...uint32) uint64 {
		var raw []byte
		for _, v := range w {
			raw = binary.NativeEndian.AppendUint32(raw, v)
		}
		p.Map(at, raw)
		return at
	}
	for _, c := range []struct {
		name      string
		got       enginetest.Result
		errno     syscall.Errno
		continued bool
	}{
		{"connect", call(connect, 3, 0x10000, 16), unix.ECONNREFUSED, false},
		{"connect elsewhere", call(connect, 3, 0x11000, 16), 0, true},
		{"socketcall connect", call(socketcall, 3, put(0x13000, 3, 0x10000, 16)), unix.ECONNREFUSED, false},
		{"socketcall connect elsewhere", call(socketcall, 3, put(0x14000, 3, 0x11000, 16)), 0, true},
		{"socketcall not mapped", call(socketcall, 3, 0x99000), unix.EFAULT, false},
		{"socketcall socket, whose arguments are in memory", call(socketcall, 1, put(0x15000, unix.AF_INET, 1, 0)), unix.ENOSYS, false},
		{"socket", call(359, unix.AF_INET), 0, true},
		{"socketcall recv", call(socketcall, 10, 0), unix.EAGAIN, false},
		{"socketcall bind, of which no rule is", call(socketcall, 2, 0), unix.ENOSYS, false},
		{"socketcall of nothing", call(socketcall, 77, 0), unix.ENOSYS, false},
		{"chown32", call(chown32, 0x12000), unix.EROFS, false},
		{"chown", call(chown, 0x12000), unix.EROFS, false},
		{"oldstat, whose arguments are not known", call(18, 0x12000), unix.EXDEV, false},
		{"stat64, whose are", call(195, 0x12000), unix.ENOSYS, false},
		{"ipc shmget", call(ipc, 1<<16|23), unix.EBUSY, false},
		{"ipc semop", call(ipc, 1), unix.ENOSYS, false},
	} {
		if c.got.Errno != c.errno || c.got.Continued != c.continued {
			t.Errorf("%s: %v", c.name, c.got)
		}
	}
	var said []string
	for _, r := range b.records() {
		args, _ := r["args"].(map[string]any)
		said = append(said, fmt.Sprint(r["abi"], " ", r["call"], " ", args["sockaddr"], " ", r["answer"]))
	}
	want := []string{"i386 connect 10.0.0.1:80 ECONNREFUSED", "i386 connect 11.0.0.1:80 continue", "i386 connect 10.0.0.1:80 ECONNREFUSED", "i386 connect 11.0.0.1:80 continue", "i386 socketcall <nil> EFAULT"}
	if !slices.Equal(said, want) {
		t.Errorf("%q, want %q", said, want)
	}
}

// A target that is killed or interrupted at any point leaves no descriptor and no second answer.
func TestTargetsThatGo(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	policy := fmt.Sprintf("default: log\nrules:\n- calls: openat\n  where: {path: /x}\n  do: inject %s\n  log: true\n- calls: connect\n  where: {sockaddr: unix}\n  do: deny\n  log: true\n", file)
	for _, op := range []enginetest.Op{enginetest.OpAlive, enginetest.OpRead, enginetest.OpAddFD, enginetest.OpSend} {
		for name, end := range map[string]func(*enginetest.Target){"killed": (*enginetest.Target).Kill, "interrupted": (*enginetest.Target).Interrupt, "restarted": (*enginetest.Target).Restart} {
			b := newBench(t, policy)
			calls := 0
			for _, args := range [][]uint64{{unix.SYS_OPENAT, fdcwd, 1, 0}, {unix.SYS_OPENAT, fdcwd, 2, 0}, {unix.SYS_CONNECT, 3, 3, 16}, {unix.SYS_GETPPID}} {
				p := b.container(box("x"))
				for i, a := range args {
					switch a {
					case 1:
						args[i] = p.PutString("/x")
					case 2:
						args[i] = p.PutString("/y")
					case 3:
						if i == 2 {
							args[i] = p.Put(sockaddrUn("/run/x\x00\x00\x00\x00\x00\x00\x00\x00"))
						}
					}
				}
				p.Before(op, func() { end(p) })
				r := p.Call(int(args[0]), args[1:]...)
				calls += max(1, r.Tries)
			}
			c := b.e.Engine().Counters()
			if c.Balance() != 0 || c.Unanswered+c.DuplicateAnswers+c.Spent+c.Panicked > 0 {
				t.Errorf("%v, %s: %+v", op, name, c)
			}
			// Each notification is written down, whatever became of it.
			if got := len(b.records()); got != calls || uint64(calls) != c.Received {
				t.Errorf("%v, %s: %d records of %d calls, %d were received", op, name, got, calls, c.Received)
			}
		}
	}
}

// What the supervisor has no right to read is not let through, and what is only written down goes on.
func TestUnreadable(t *testing.T) {
	b := newBench(t, "default: log\nrules:\n- calls: mkdir\n  where: {path: /a}\n  do: deny EROFS\n- calls: open\n  where: {path: /a}\n  do: inject /b\n- calls: chmod\n  where: {path: /a}\n  do: log\n")
	var said bytes.Buffer
	b.router.SetLogger(slog.New(slog.NewTextHandler(&said, nil)))
	p := b.container(box("x"))
	p.TID = 0 // in a pid namespace that we do not see
	a := p.PutString("/a")
	for nr, want := range map[int]syscall.Errno{unix.SYS_MKDIR: unix.EROFS, unix.SYS_OPEN: unix.EACCES, unix.SYS_CHMOD: 0, unix.SYS_RMDIR: 0} {
		if got := p.Call(nr, a); got.Errno != want || got.Continued != (want == 0) {
			t.Errorf("call %d: %v, want %v", nr, got, want)
		}
	}
	if n := strings.Count(said.String(), "\n"); b.router.Unread() != 2 || n != 1 || !strings.Contains(said.String(), "pid namespace") {
		t.Errorf("%d unread, said %d times: %s", b.router.Unread(), n, said.String())
	}
	for _, r := range b.records() {
		if r["answer"] != "continue" || !strings.Contains(fmt.Sprint(r["unread"]), "pid namespace") || r["args"].(map[string]any)["path"] != nil {
			t.Errorf("%v", r)
		}
	}
}

// What a record holds of odd arguments.
func TestRecords(t *testing.T) {
	b := newBench(t, "default: log\nrules:\n- calls: mkdir\n  do: errno EPERM\n  log: true\n")
	p := b.container(box("a\"b"))
	pointers := func(at ...uint64) (raw []byte) {
		for _, a := range append(at, 0) {
			raw = binary.NativeEndian.AppendUint64(raw, a)
		}
		return raw
	}
	long := p.PutString(strings.Repeat("y", 3000))
	many := slices.Repeat([]uint64{long}, 20)
	how := append(binary.NativeEndian.AppendUint64(nil, unix.O_CREAT|unix.O_WRONLY), pointers(0o600)...)
	how[16] = unix.RESOLVE_BENEATH
	for _, c := range []struct {
		nr   int
		args []uint64
	}{
		{unix.SYS_MKDIR, []uint64{p.PutString("/\xff\n\"\u2028é"), 0o1755}},
		{unix.SYS_MKDIR, []uint64{8, 0}},
		{unix.SYS_OPENAT, []uint64{fdcwd, p.PutString("x"), unix.O_CREAT | unix.O_EXCL | unix.O_TMPFILE | 1<<30, 0o600}},
		{unix.SYS_OPENAT2, []uint64{3, p.PutString("x"), p.Put(how), 24}},
		{unix.SYS_EXECVE, []uint64{p.PutString("/x"), p.Put(pointers(p.PutString("a"), p.PutString(""))), p.Put(pointers(p.PutString("SECRET=1")))}},
		{unix.SYS_EXECVE, []uint64{p.PutString("/x"), p.Put(pointers(many...)), 0}},
		{unix.SYS_SOCKET, []uint64{unix.AF_NETLINK, unix.SOCK_RAW | unix.SOCK_CLOEXEC, 0}},
		{unix.SYS_SENDTO, []uint64{3, 8, 5, 0, 0, 0}},
		{unix.SYS_KILL, []uint64{^uint64(0), 9}},
		{unix.SYS_CHMOD, []uint64{p.PutString("/x"), 0o4755}},
		{unix.SYS_GETPPID, nil},
		{unix.SYS_MSYNC, []uint64{1, 2, 3}},
		{99999, []uint64{7}},
	} {
		p.Call(c.nr, c.args...)
	}
	if err := b.audit.Close(); err != nil {
		t.Error(err)
	}
	// What is of the moment, and the many bytes of a long argument.
	text := regexp.MustCompile(`"(time":"[^"]*|wait_ns":\d+|pid":\d+)`).ReplaceAllString(b.log.String(), `"…`)
	text = regexp.MustCompile(`y{1000,}`).ReplaceAllStringFunc(text, func(s string) string { return fmt.Sprintf("y*%d", len(s)) })
	text = regexp.MustCompile(`thread \d+, address 0x[0-9a-f]+`).ReplaceAllString(text, "thread …, address …")
	golden(t, "testdata/records.golden", text)
	b.records() // all of it is JSON
}

// Each call is answered by the old policy or the new one, whole.
func TestSwap(t *testing.T) {
	texts := [2]string{}
	for i, errno := range []string{"EAGAIN", "EBUSY"} {
		texts[i] = fmt.Sprintf("default: errno %s\nrules:\n- calls: mkdir\n  where: {path: /a}\n  do: deny %s\n- calls: chmod\n  container: x\n  do: errno %s\n", errno, errno, errno)
	}
	b := newBench(t, texts[0])
	policies := [2]*Policy{b.router.Policy(), mustParse(t, texts[1])}
	stop := make(chan bool)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				b.router.Swap(policies[i%2])
			}
		}
	})
	p := b.container(box("x"))
	a := p.PutString("/a")
	seen := map[syscall.Errno]int{}
	for range 2000 {
		for _, nr := range []int{unix.SYS_MKDIR, unix.SYS_CHMOD, unix.SYS_GETPPID} {
			seen[p.Call(nr, a).Errno]++
		}
	}
	close(stop)
	wg.Wait()
	if len(seen) != 2 || seen[unix.EAGAIN] == 0 || seen[unix.EBUSY] == 0 {
		t.Errorf("%v", seen)
	}
	b.router.Swap(mustParse(t, "default: errno EDOM\n"))
	if got := p.Call(unix.SYS_MKDIR, a); got.Errno != unix.EDOM {
		t.Errorf("after the swap: %v", got)
	}
}

// What needs nothing of the target is for the receive thread, and the rest is not.
func TestInlines(t *testing.T) {
	b := newBench(t, `default: continue
rules:
- calls: mkdir
  where: {path: /a}
  do: deny
- calls: openat
  where: {flags: O_CREAT}
  do: log
- calls: [openat, mknod]
  do: errno EPERM
- calls: rmdir
  container: y
  do: log
- calls: open
  do: open
`)
	x, y := b.container(box("x")).Source(), b.container(box("y")).Source()
	for _, c := range []struct {
		src    *engine.Source
		nr     int32
		flags  uint64
		inline bool
	}{{x, unix.SYS_MKDIR, 0, false}, {x, unix.SYS_OPENAT, 0, true}, {x, unix.SYS_OPENAT, unix.O_CREAT, false}, {x, unix.SYS_MKNOD, 0, true}, {x, unix.SYS_RMDIR, 0, true}, {y, unix.SYS_RMDIR, 0, false}, {x, unix.SYS_OPEN, 0, false}, {x, unix.SYS_GETPPID, 0, true}} {
		d := notify.Data{Arch: notify.NativeArch, NR: c.nr, Args: [6]uint64{2: c.flags}}
		if got := b.router.Inlines(c.src, &d); got != c.inline {
			t.Errorf("call %d, flags %#x: inline %v", c.nr, c.flags, got)
		}
	}
}

// BenchmarkInlines is what the receive thread pays for each call: the choice of the rule.
func BenchmarkInlines(b *testing.B) {
	r := NewRouter(mustParse(b, "default: continue\nrules:\n- calls: openat\n  where: {flags: O_CREAT}\n  do: deny\n- calls: openat\n  where: {path: /a}\n  do: deny\n- calls: mknod\n  do: errno EPERM\n"), nil)
	src := enginetest.New(b, r).TargetWith(engine.SourceOptions{Tag: NewTag(box("x"))}).Source()
	for name, d := range map[string]notify.Data{"default": {NR: unix.SYS_GETPPID}, "rule": {NR: unix.SYS_MKNOD}, "flags": {NR: unix.SYS_OPENAT, Args: [6]uint64{2: unix.O_CREAT}}} {
		d.Arch = notify.NativeArch
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.Inlines(src, &d)
			}
		})
	}
}
