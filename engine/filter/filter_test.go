//go:build cgo

package filter

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/seccomp/libseccomp-golang"
	"github.com/unknot/unknot/engine/syscalls"
	"github.com/unknot/unknot/internal/testbpf"
	"golang.org/x/sys/unix"
)

const (
	allow  = uint32(unix.SECCOMP_RET_ALLOW)
	trap   = uint32(unix.SECCOMP_RET_USER_NOTIF)
	enosys = uint32(unix.SECCOMP_RET_ERRNO) | uint32(unix.ENOSYS)
)

// audits are the AUDIT_ARCH values of the ABIs.
var audits = map[seccomp.ScmpArch]uint32{
	seccomp.ArchAMD64: unix.AUDIT_ARCH_X86_64, seccomp.ArchX86: unix.AUDIT_ARCH_I386,
	seccomp.ArchARM64: unix.AUDIT_ARCH_AARCH64, seccomp.ArchARM: unix.AUDIT_ARCH_ARM,
}

func verdict(t *testing.T, prog []unix.SockFilter, c testbpf.Call) uint32 {
	t.Helper()
	v, err := testbpf.Run(prog, c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestEveryNumberOfEveryABI checks each verdict, for both machines, against the
// syscall tables by name, which is not how the program was made: there
// libseccomp translates and this package knows which calls are twins.
func TestEveryNumberOfEveryABI(t *testing.T) {
	for goarch, m := range machines {
		native := names(m.native)
		for _, traps := range [][]string{
			{"openat"},
			{"accept"},
			{"openat", "connect", "execve"},
			{"mmap", "wait4", "futex", "mseal", "statmount", "getppid", "newfstatat", "sendto", "mmap"},
			{"sendmsg", "futex", "mmap", "execve"},
			{"clone", "semop", "accept", "fchownat"},
			native,
		} {
			for _, o := range []Options{{}, {Refuse32: true}} {
				prog, err := m.compile(traps, o)
				if err != nil {
					t.Fatal(err)
				}
				checkEveryNumber(t, goarch, m, prog, traps, o)
			}
		}
	}
}

func checkEveryNumber(t *testing.T, goarch string, m abis, prog []unix.SockFilter, traps []string, o Options) {
	t.Helper()
	title := fmt.Sprintf("%s %.60v %+v", goarch, traps, o)
	twins := m.twinTable()
	want := map[string]bool{}
	for _, name := range traps {
		want[name] = true
		for _, twin := range twins[name] {
			want[twin] = true
		}
	}
	seen := map[string]bool{}
	for nr := range uint32(maxNR) {
		expect := allow
		if name := Name(m.audit, int32(nr)); slices.Contains(traps, name) {
			expect = trap
			seen[name] = true
		}
		if got := verdict(t, prog, testbpf.Call{NR: nr, Arch: m.audit}); got != expect {
			t.Errorf("%s: %d (%s): %#x, want %#x", title, nr, Name(m.audit, int32(nr)), got, expect)
		}
		if m.native == seccomp.ArchAMD64 {
			if got := verdict(t, prog, testbpf.Call{NR: nr | syscalls.X32Bit, Arch: m.audit}); got != enosys {
				t.Errorf("%s: x32 %d: %#x, want ENOSYS", title, nr, got)
			}
		}
		name := Name(audits[m.compat], int32(nr))
		expect = allow
		switch {
		case o.Refuse32:
			expect = enosys
		case want[name]:
			expect = trap
		}
		if got := verdict(t, prog, testbpf.Call{NR: nr, Arch: audits[m.compat]}); got != expect {
			t.Errorf("%s: 32-bit %d (%s): %#x, want %#x", title, nr, name, got, expect)
		}
		// ABIs that are not of this machine.
		for _, arch := range []uint32{0, 0xffffffff, unix.AUDIT_ARCH_PPC64LE, unix.AUDIT_ARCH_S390X} {
			c := testbpf.Call{NR: nr, Arch: arch}
			if got := verdict(t, prog, c); got == allow {
				t.Errorf("%s: arch %#x call %d is allowed", title, arch, nr)
			}
		}
	}
	for name := range want {
		if slices.Contains(traps, name) && !seen[name] {
			t.Errorf("%s: %s is not trapped under any number", title, name)
		}
	}
}

func TestMultiplexedCallsOfI386(t *testing.T) {
	if here().compat != seccomp.ArchX86 {
		t.Skip("only i386 has socketcall and ipc")
	}
	const socketcall, ipc = 102, 117
	for _, c := range []struct {
		trap    string
		nr      uint32
		sub     uint64
		another uint64
	}{
		{"connect", socketcall, 3, 2},
		{"accept", socketcall, 5, 18},
		{"sendto", socketcall, 11, 12},
		{"sendto", socketcall, 9, 10}, // send
		{"sendmsg", socketcall, 16, 17},
		{"semop", ipc, 1, 2},
	} {
		prog, err := Compile([]string{c.trap}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if v := verdict(t, prog, testbpf.Call{NR: c.nr, Arch: unix.AUDIT_ARCH_I386, Args: [6]uint64{c.sub}}); v != trap {
			t.Errorf("%s: sub-call %d is not trapped: %#x", c.trap, c.sub, v)
		}
		if v := verdict(t, prog, testbpf.Call{NR: c.nr, Arch: unix.AUDIT_ARCH_I386, Args: [6]uint64{c.another}}); v != allow {
			t.Errorf("%s: sub-call %d is not allowed: %#x", c.trap, c.another, v)
		}
	}
}

// TestEveryOldCallHasATwinOrNone is what keeps the table whole: a call that
// only 32-bit programs have is either trapped with another or known to be alone.
func TestEveryOldCallHasATwinOrNone(t *testing.T) {
	for goarch, m := range machines {
		table := m.twinTable()
		trapped := map[string]bool{}
		for _, twins := range table {
			for _, name := range twins {
				trapped[name] = true
			}
		}
		native := names(m.native)
		if len(native) < 250 || len(names(m.compat)) < 350 {
			t.Fatalf("%s: libseccomp knows only %d and %d calls", goarch, len(native), len(names(m.compat)))
		}
		for _, name := range names(m.compat) {
			if !slices.Contains(native, name) && trapped[name] == withoutTwin[name] {
				t.Errorf("%s: %s: has a twin: %v, is listed to have none: %v", goarch, name, trapped[name], withoutTwin[name])
			}
		}
		for name := range table {
			if !slices.Contains(native, name) {
				t.Errorf("%s: %s is not native", goarch, name)
			}
		}
	}
	amd64, arm64 := machines["amd64"].twinTable(), machines["arm64"].twinTable()
	for _, c := range []struct {
		table map[string][]string
		name  string
		want  []string
	}{
		{amd64, "mmap", []string{"mmap2"}},
		{amd64, "openat", nil}, // open is a call of its own there
		{amd64, "wait4", []string{"waitpid"}},
		{amd64, "stat", []string{"oldstat", "stat64"}},
		{amd64, "newfstatat", []string{"fstatat64"}},
		{amd64, "pselect6", []string{"pselect6_time64"}},
		{amd64, "sendto", []string{"send"}},
		{arm64, "openat", []string{"creat", "open"}},
		{arm64, "fchownat", []string{"chown", "chown32", "lchown", "lchown32"}},
		{arm64, "newfstatat", []string{"fstatat64", "lstat", "lstat64", "stat", "stat64"}},
	} {
		if !slices.Equal(c.table[c.name], c.want) {
			t.Errorf("twins of %s: %v, want %v", c.name, c.table[c.name], c.want)
		}
	}
}

func TestNamesAndNumbers(t *testing.T) {
	for _, name := range []string{"openat", "connect", "execve", "getppid", "mseal", "statmount", "file_setattr"} {
		nr, err := Number(name)
		if err != nil {
			t.Error(err)
		}
		if got := Name(here().audit, int32(nr)); got != name {
			t.Errorf("Name(Number(%s)) = %s", name, got)
		}
	}
	if nr, _ := Number("getppid"); nr != unix.SYS_GETPPID {
		t.Errorf("getppid is %d, not %d", nr, unix.SYS_GETPPID)
	}
	for _, c := range []struct {
		arch uint32
		nr   int32
		want string
	}{
		{unix.AUDIT_ARCH_X86_64, 257, "openat"},
		{unix.AUDIT_ARCH_X86_64, 257 | syscalls.X32Bit, "openat"},
		{unix.AUDIT_ARCH_X86_64, 520 | syscalls.X32Bit, "execve"},
		{unix.AUDIT_ARCH_X86_64, 462, "mseal"},
		{unix.AUDIT_ARCH_X86_64, 462 | syscalls.X32Bit, "mseal"},
		{unix.AUDIT_ARCH_I386, 295, "openat"},
		{unix.AUDIT_ARCH_I386, 102, "socketcall"},
		{unix.AUDIT_ARCH_I386, 257, "remap_file_pages"},
		{unix.AUDIT_ARCH_AARCH64, 56, "openat"},
		{unix.AUDIT_ARCH_ARM, 322, "openat"},
		{unix.AUDIT_ARCH_X86_64, 9999, "syscall 9999"},
		{unix.AUDIT_ARCH_X86_64, -1, "syscall -1"},
		{unix.AUDIT_ARCH_I386, -101, "syscall -101"}, // libseccomp's own number for socket
		{0, 1, "syscall 1"},
	} {
		if got := Name(c.arch, c.nr); got != c.want {
			t.Errorf("Name(%#x, %d) = %q, want %q", c.arch, c.nr, got, c.want)
		}
	}
	// The premise of newer.go, where libseccomp knows the number too.
	for name, nr := range newer {
		for _, m := range machines {
			for _, arch := range []seccomp.ScmpArch{m.native, m.compat} {
				if got, err := seccomp.GetSyscallFromNameByArch(name, arch); err == nil && got >= 0 && int(got) != nr {
					t.Errorf("%s is %d for %v, not %d", name, got, arch, nr)
				}
			}
		}
	}
}

func TestUnknownNames(t *testing.T) {
	for name, want := range map[string]string{
		"opnat":          `unknown system call "opnat": did you mean openat`,
		"getpppid":       `did you mean getppid`,
		"exceve":         `did you mean execve`,
		"fstatt":         `did you mean fstat`,
		"mmap2":          `"mmap2" exists only for 32-bit programs: name mmap, which traps it for them`,
		"waitpid":        `name wait4`,
		"xyzzyxyzzy":     `unknown system call "xyzzyxyzzy": syscalls(2)`,
		"socketcall":     `unknown system call "socketcall"`,
		"":               `unknown system call ""`,
		"openat\x00junk": `unknown system call "openat\x00junk"`,
		"OPENAT":         `unknown system call "OPENAT"`,
	} {
		for entry, f := range map[string]func() error{
			"Compile": func() error { _, err := Compile([]string{"openat", name}, Options{}); return err },
			"Number":  func() error { _, err := Number(name); return err },
			"Twins":   func() error { _, err := Twins(name); return err },
		} {
			err := f()
			var unknown *UnknownError
			if !errors.As(err, &unknown) || unknown.Name != name || !strings.Contains(err.Error(), want) {
				t.Errorf("%s(%q): %v, want …%s…", entry, name, err, want)
			}
		}
	}
	if _, err := Compile(nil, Options{}); !errors.Is(err, ErrNoSyscalls) {
		t.Error(err)
	}
}

func TestVersion(t *testing.T) {
	v, err := Version()
	if err != nil || v.Major < 2 || v.API < 1 || !strings.HasPrefix(v.String(), "2.") {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestEditDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"kitten", "sitting", 3}, {"opnat", "openat", 1}, {"ca", "abc", 3}} {
		if got := editDistance(c.a, c.b); got != c.want {
			t.Errorf("%s to %s: %d, want %d", c.a, c.b, got, c.want)
		}
		if got := editDistance(c.b, c.a); got != c.want {
			t.Errorf("%s to %s: %d, want %d", c.b, c.a, got, c.want)
		}
	}
}

// TestAllNamesAtOnce: every native name compiles, alone and all together.
func TestAllNamesAtOnce(t *testing.T) {
	all := append(names(here().native), slices.Collect(maps.Keys(newer))...)
	prog, err := Compile(all, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(prog) > 4096 {
		t.Errorf("%d instructions are more than the kernel takes", len(prog))
	}
	for _, name := range all {
		nr, err := Number(name)
		if err != nil {
			t.Fatal(err)
		}
		if v := verdict(t, prog, testbpf.Call{NR: uint32(nr), Arch: here().audit}); v != trap {
			t.Errorf("%s: %#x", name, v)
		}
		if _, err := Compile([]string{name}, Options{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The table that stands in for libseccomp says the same.
func TestTableAgreesWithLibseccomp(t *testing.T) {
	for abi, arch := range map[syscalls.ABI]seccomp.ScmpArch{
		syscalls.AMD64: seccomp.ArchAMD64, syscalls.X32: seccomp.ArchX32, syscalls.I386: seccomp.ArchX86,
		syscalls.ARM64: seccomp.ArchARM64, syscalls.ARM: seccomp.ArchARM,
	} {
		same := 0
		for nr := range int32(maxNR) {
			full := nr
			if abi == syscalls.X32 {
				full |= syscalls.X32Bit
			}
			ours := syscalls.Name(abi.Arch(), full)
			theirs := lookup(abi.Arch(), full)
			switch {
			case ours == theirs && ours != "":
				same++
			case ours != "" && theirs != "":
				t.Errorf("%v: call %d is %s, libseccomp says %s", abi, nr, ours, theirs)
			case theirs != "":
				t.Errorf("%v: call %d (%s) is missing", abi, nr, theirs)
			case ours != "": // younger than libseccomp, or something is wrong with it
				if their, err := seccomp.GetSyscallFromNameByArch(ours, arch); err == nil && int32(their) >= 0 {
					t.Errorf("%v: %s is %d, libseccomp says %d", abi, ours, nr, their)
				}
			}
		}
		if same < 300 {
			t.Errorf("%v: only %d calls are known to both", abi, same)
		}
	}
}

func TestNameAllocatesNothing(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { _ = Name(unix.AUDIT_ARCH_X86_64, 257) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
