package syscalls

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

func TestNames(t *testing.T) {
	for _, c := range []struct {
		arch uint32
		nr   int32
		want string
	}{
		{unix.AUDIT_ARCH_X86_64, 83, "mkdir"}, {unix.AUDIT_ARCH_I386, 39, "mkdir"}, {unix.AUDIT_ARCH_AARCH64, 34, "mkdirat"},
		{unix.AUDIT_ARCH_ARM, 39, "mkdir"}, {unix.AUDIT_ARCH_X86_64, X32Bit | 83, "mkdir"}, {unix.AUDIT_ARCH_X86_64, X32Bit | 520, "execve"},
		{unix.AUDIT_ARCH_X86_64, X32Bit | 59, ""}, {unix.AUDIT_ARCH_X86_64, 520, ""}, {unix.AUDIT_ARCH_X86_64, 262, "newfstatat"},
		{unix.AUDIT_ARCH_I386, 149, "_sysctl"}, {unix.AUDIT_ARCH_X86_64, -1, ""}, {unix.AUDIT_ARCH_X86_64, 1 << 20, ""}, {unix.AUDIT_ARCH_PPC64, 1, ""},
		{unix.AUDIT_ARCH_AARCH64, 462, "mseal"}, {unix.AUDIT_ARCH_I386, -1 << 31, ""},
	} {
		if got := Name(c.arch, c.nr); got != c.want {
			t.Errorf("call %d of %#x is %q, want %q", c.nr, c.arch, got, c.want)
		}
	}
	for a := range All {
		n := 0
		for nr, name := range a.Names {
			n++
			if back, ok := a.Number(name); !ok || back != nr || Name(a.Arch(), nr) != name {
				t.Errorf("%v: %s is %d, then %d", a, name, nr, back)
			}
		}
		if n < 320 {
			t.Errorf("%v: %d calls", a, n)
		}
	}
	if _, ok := AMD64.Number("nonsense"); ok {
		t.Error("nonsense has a number")
	}
	if nr, ok := Native().Number("getppid"); !ok || nr != unix.SYS_GETPPID {
		t.Errorf("getppid is %d", nr)
	}
}

func TestGeneratedTablesAreFresh(t *testing.T) {
	out := filepath.Join(t.TempDir(), "tables.go")
	if b, err := exec.Command("go", "run", "./internal/gen", "-o", out).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	is, _ := os.ReadFile("tables.go")
	want, err := os.ReadFile(out)
	if err != nil || !bytes.Equal(is, want) {
		t.Errorf("tables.go is not what the generator makes of this golang.org/x/sys: run go generate (%v)", err)
	}
}

func decode(t *testing.T, a ABI, name string, args ...uint64) Call {
	t.Helper()
	nr, ok := a.Number(name)
	if !ok {
		t.Fatalf("%v has no %s", a, name)
	}
	d := notify.Data{NR: nr, Arch: a.Arch()}
	copy(d.Args[:], args)
	c, ok := Decode(&d)
	if !ok || c.Name != name || c.ABI != a {
		t.Fatalf("%v %s: %+v, %t", a, name, c, ok)
	}
	return c
}

func TestDecode(t *testing.T) {
	const junk = 0xdead_beef_0000_0000
	for _, c := range []struct {
		call Call
		want string
	}{
		{decode(t, AMD64, "openat", junk|0xffffff9c, 0x7fff12345678, unix.O_RDWR, junk|0o644), "openat(dirfd=-100, path=0x7fff12345678, flags=0x2, mode=0644)"},
		{decode(t, I386, "mkdir", 0xffee1234, 0o755), "mkdir(path=0xffee1234, mode=0755)"},
		{decode(t, X32, "mkdir", junk|0xffee1234, 0o755), "mkdir(path=0xffee1234, mode=0755)"},
		{decode(t, AMD64, "connect", 3, 0x7000, 110), "connect(fd=3, sockaddr=0x7000, size=110)"},
		{decode(t, AMD64, "kill", ^uint64(0), 9), "kill(pid=-1, signal=9)"},
		{decode(t, AMD64, "pread64", 3, 0x7000, 1<<40, 1<<33), "pread64(fd=3, buffer=0x7000, size=1099511627776, offset=8589934592)"},
		{decode(t, I386, "pread64", 3, 0x7000, 16, 5, 2), "pread64(fd=3, buffer=0x7000, size=16, offset=8589934597)"},
		{decode(t, ARM, "pread64", 3, 0x7000, 16, 99, 5, 2), "pread64(fd=3, buffer=0x7000, size=16, offset=8589934597)"},
		{decode(t, ARM, "ftruncate64", 3, 99, 5, 2), "ftruncate64(fd=3, length=8589934597)"},
		{decode(t, I386, "ftruncate64", 3, 5, 2), "ftruncate64(fd=3, length=8589934597)"},
		{decode(t, AMD64, "clone", 1<<40|17, 0, 1, 2, 3), "clone(flags=0x10000000011, stack=0x0, parent=0x1, child=0x2, tls=0x3)"},
		{decode(t, ARM64, "clone", 17, 0, 1, 2, 3), "clone(flags=0x11, stack=0x0, parent=0x1, tls=0x2, child=0x3)"},
		{decode(t, AMD64, "getppid"), "getppid()"},
	} {
		if got := c.call.String(); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
	c := decode(t, AMD64, "renameat2", 3, 0x10, 4, 0x20, 1)
	if c.Arg("newdir").Int() != 4 || c.First(Path).Addr() != 0x10 || c.Arg("new").Addr() != 0x20 || c.Arg("flags").Bits() != 1 || c.Arg("x").Kind != None || c.First(Signal).Kind != None {
		t.Errorf("%v", c)
	}
	if _, ok := Decode(&notify.Data{NR: 1 << 20, Arch: unix.AUDIT_ARCH_X86_64}); ok {
		t.Error("a number that is no call")
	}
	if _, ok := Decode(&notify.Data{}); ok {
		t.Error("a spent request's call")
	}
}

func TestDecodeAllocatesNothing(t *testing.T) {
	d := &notify.Data{NR: 257, Arch: unix.AUDIT_ARCH_X86_64, Args: [6]uint64{1, 2, 3}}
	if n := testing.AllocsPerRun(100, func() {
		c, ok := Decode(d)
		if !ok || c.Arg("path").Addr() != 2 || c.First(DirFD).Int() != 1 || Name(d.Arch, d.NR) != "openat" {
			t.Fatal("not openat")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Each word of the table is understood, and each call is one of an ABI.
func TestCallsAreRight(t *testing.T) {
	if len(calls) < 60 {
		t.Errorf("%d calls", len(calls))
	}
	for call, spec := range calls {
		abi, name, own := strings.Cut(call, "/")
		if !own {
			name = call
		}
		found := false
		for a := range All {
			nr, ok := a.Number(name)
			found = found || ok && (!own || a.String() == abi)
			if ok && params[a][nr&^X32Bit] == nil {
				t.Errorf("%v lacks %s", a, name)
			}
		}
		if !found {
			t.Errorf("%s: no ABI has it", call)
		}
		seen := map[string]bool{}
		for _, p := range parse(spec, AMD64, false) {
			if seen[p.Name] {
				t.Errorf("%s: %s twice", call, p.Name)
			}
			seen[p.Name] = true
		}
		for word := range strings.FieldsSeq(spec) {
			if strings.Contains(word, ">") {
				continue
			}
			kind := word[strings.IndexByte(word, ':')+1:]
			if !slices.Contains(kindNames[:None], kind) {
				t.Errorf("%s: %q is no kind", call, kind)
			}
		}
	}
}

// The kernel's own description of its calls, where this user may read it.
func TestCallsAgainstTheKernel(t *testing.T) {
	root := ""
	for _, dir := range []string{"/sys/kernel/tracing", "/sys/kernel/debug/tracing"} {
		if _, err := os.Stat(dir + "/events/syscalls"); err == nil {
			root = dir + "/events/syscalls/sys_enter_"
			break
		}
	}
	if root == "" {
		t.Skip("no tracefs that this user may read (needs root and CONFIG_FTRACE_SYSCALLS)")
	}
	field := regexp.MustCompile(`field:(.*?)\s+\*?(\w+);\s+offset:(\d+);`)
	names := map[string]string{"stat": "newstat", "lstat": "newlstat", "umount2": "umount", "sendfile": "sendfile64"}
	checked := 0
	for call := range calls {
		nr, ok := Native().Number(call)
		if !ok {
			continue
		}
		name := call
		if n, ok := names[call]; ok {
			name = n
		}
		f, err := os.ReadFile(root + name + "/format")
		if err != nil {
			continue
		}
		var types []string
		for sc := bufio.NewScanner(bytes.NewReader(f)); sc.Scan(); {
			if m := field.FindStringSubmatch(sc.Text()); m != nil && m[3] != "0" && !strings.HasPrefix(m[2], "common_") && m[2] != "__syscall_nr" {
				types = append(types, strings.TrimSpace(sc.Text()))
			}
		}
		// Newer kernels add what strings were, behind the arguments.
		types = slices.DeleteFunc(types, func(s string) bool { return strings.Contains(s, "__data_loc") })
		ps := params[Native()][nr]
		if len(ps) != len(types) && !(call == "ptrace" || call == "keyctl" || call == "prctl") {
			t.Errorf("%s has %d arguments, the kernel says %q", call, len(ps), types)
			continue
		}
		for i := range min(len(ps), len(types)) {
			pointer := strings.Contains(types[i], "*") || strings.Contains(types[i], "uid_t *")
			if ps[i].Kind.Pointer() && !pointer || pointer && !ps[i].Kind.Pointer() && ps[i].Kind != Opaque {
				t.Errorf("%s: %s is a %v, the kernel says %q", call, ps[i].Name, ps[i].Kind, types[i])
			}
		}
		checked++
	}
	t.Log(checked, "calls checked")
	if checked < 60 {
		t.Errorf("only %d calls could be checked", checked)
	}
}

func ExampleDecode() {
	d := notify.Data{NR: 257, Arch: unix.AUDIT_ARCH_X86_64, Args: [6]uint64{0xffffff9c, 0x7ffd1000, unix.O_WRONLY | unix.O_CREAT, 0o600}}
	c, _ := Decode(&d)
	fmt.Println(c)
	fmt.Println(c.Arg("mode").Kind, c.Arg("dirfd").Int() == unix.AT_FDCWD, c.Arg("path").Kind.Pointer())
	// Output:
	// openat(dirfd=-100, path=0x7ffd1000, flags=0x41, mode=0600)
	// mode true true
}
