package target

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

const pagesEnd = fixedAt + 2*page

// bothWays runs a test by process_vm_readv and PROCMAP_QUERY, and by files and text.
func bothWays(t *testing.T, f func(t *testing.T)) {
	t.Run("query", f)
	noQuery = true
	defer func() { noQuery = false }()
	t.Run("text", f)
}

func TestReadMem(t *testing.T) {
	g := startTarget(t)
	g.tell("poke 4090 abcdefghijkl")
	target := g.call()
	read := func(addr uint64, n int) (string, error) {
		p := make([]byte, n)
		k, err := target.ReadMem(addr, p)
		return string(p[:k]), err
	}
	if s, err := read(fixedAt+4090, 12); s != "abcdefghijkl" || err != nil {
		t.Errorf("over a page's end: %q, %v", s, err)
	}
	if s, err := read(fixedAt, 0); s != "" || err != nil {
		t.Errorf("nothing: %q, %v", s, err)
	}
	s, err := read(pagesEnd-5, 50)
	wantErrno(t, "over the mapping's end", err, unix.EFAULT, false)
	if len(s) != 5 || !strings.Contains(err.Error(), fmt.Sprintf("address %#x", pagesEnd)) {
		t.Errorf("%d bytes, %v", len(s), err)
	}
	for _, addr := range []uint64{0, pagesEnd, fixedAt - 1, 1 << 47, 1 << 63, ^uint64(0) - 3} {
		s, err := read(addr, 8)
		wantErrno(t, fmt.Sprintf("address %#x", addr), err, unix.EFAULT, false)
		if s != "" {
			t.Errorf("%q at %#x", s, addr)
		}
	}
	all, err := read(fixedAt, 2*page)
	if len(all) != 2*page || err != nil {
		t.Errorf("%d bytes, %v", len(all), err)
	}
}

func TestReadMemDoesNotAllocate(t *testing.T) {
	g := startTarget(t)
	target := g.call()
	p := make([]byte, 64)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := target.ReadMem(fixedAt, p); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestWriteMem(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		g := startTarget(t)
		target := g.call()
		write := func(addr uint64, s string) (int, error) { return target.WriteMem(addr, []byte(s)) }
		if n, err := write(fixedAt+4094, "written"); n != 7 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		if n, err := write(fixedAt, ""); n != 0 || err != nil {
			t.Errorf("nothing: %d, %v", n, err)
		}
		n, err := write(pagesEnd-3, "too long")
		wantErrno(t, "over the end", err, unix.EFAULT, false)
		if n != 0 || !strings.Contains(err.Error(), fmt.Sprintf("address %#x", pagesEnd)) {
			t.Errorf("%d, %v", n, err)
		}
		for _, addr := range []uint64{0, pagesEnd, fixedAt - 1, 1 << 47, 1 << 63, ^uint64(0) - 3} {
			if n, err := write(addr, "nowhere"); n != 0 || !errors.Is(err, unix.EFAULT) {
				t.Errorf("%#x: %d, %v", addr, n, err)
			}
		}
		g.answer(1)
		if s := g.tell("peek 4094 7"); s != `"written"` {
			t.Error(s)
		}
		if s := g.tell("peek %d 3", 2*page-3); s != `"\x00\x00\x00"` {
			t.Errorf("part of what was refused was written: %s", s)
		}
		// The file would write into all of these.
		for _, prot := range []string{"r", "n"} {
			g.tell("protect 1 %s", prot)
			target = g.call()
			n, err = write(fixedAt+4094, "not this")
			wantErrno(t, "protected "+prot, err, unix.EFAULT, false)
			if n != 0 {
				t.Error(n)
			}
			g.answer(1)
		}
		g.tell("protect 1 r")
		if s := g.tell("peek 4094 8"); s != `"written\x00"` {
			t.Error(s)
		}
	})
}

// The thread's id may be anybody's after the check: what was opened before is the target's memory still. Here it dies.
func TestWriteMemWhenTheTargetDies(t *testing.T) {
	g := startTarget(t)
	target := g.call()
	beforeWrite = g.kill
	defer func() { beforeWrite = nil }()
	if n, err := target.WriteMem(fixedAt, []byte("to the dead")); n != 0 || err != ErrGone {
		t.Errorf("%d, %v", n, err)
	}
}

func TestMapsText(t *testing.T) {
	const text = `00001000-00003000 r--p 00000000 08:01 12 /bin/a file
00003000-00004000 rw-p 00000000 00:00 0
00004000-00006000 rw-s 00000000 00:00 0 [heap]
00007000-00008000 rw-p 00000000 00:00 0
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
`
	for _, c := range []struct {
		addr  uint64
		n     int
		what  access
		wants int
	}{
		{0x1000, 0x2000, mayRead, 0x2000}, {0x1000, 0x5000, mayRead, 0x5000}, {0x1000, 0x6000, mayRead, 0x5000},
		{0x1000, 1, mayWrite, 0}, {0x2fff, 2, mayWrite, 0}, {0x3000, 0x3000, mayWrite, 0x3000}, {0x3800, 0x4000, mayWrite, 0x2800},
		{0x0, 1, mayRead, 0}, {0x6000, 1, mayRead, 0}, {0x7fff, 1, mayWrite, 1}, {0x8000, 1, mayRead, 0},
		{0xffffffffff600000, 1, mayRead, 0}, {0x3000, 0, mayWrite, 0},
	} {
		if got, err := textUpTo(strings.NewReader(text), c.addr, c.n, c.what); got != c.wants || err != nil {
			t.Errorf("%+v: %#x, %v", c, got, err)
		}
	}
	if _, err := textUpTo(strings.NewReader("nonsense\n"), 1, 1, mayRead); err == nil {
		t.Error("nonsense was taken")
	}
}

func TestString(t *testing.T) {
	g := startTarget(t)
	g.tell("poke 100 short")
	g.tell("poke 4090 over-the-end")
	g.tell("poke %d tail", 2*page-5) // its NUL is the last byte
	target := g.call()
	for addr, want := range map[uint64]string{fixedAt + 100: "short", fixedAt + 4090: "over-the-end", pagesEnd - 5: "tail", fixedAt: ""} {
		if s, err := target.String(addr, PathMax); s != want || err != nil {
			t.Errorf("%#x: %q, %v", addr, s, err)
		}
	}
	if s, err := target.String(fixedAt+100, 6); s != "short" || err != nil {
		t.Errorf("just fits: %q, %v", s, err)
	}
	for _, max := range []int{5, 1, 0, -1} {
		_, err := target.String(fixedAt+100, max)
		wantErrno(t, fmt.Sprint("max ", max), err, unix.ENAMETOOLONG, false)
	}
	g.answer(1)
	g.tell("poke %d tail!", 2*page-5)
	g.tell("poke 0 %s", strings.Repeat("x", PathMax))
	target = g.call()
	_, err := target.String(pagesEnd-5, PathMax)
	wantErrno(t, "without an end", err, unix.EFAULT, false)
	_, err = target.String(fixedAt, PathMax)
	wantErrno(t, "longer than PATH_MAX", err, unix.ENAMETOOLONG, false)
	if s, err := target.String(fixedAt+1, PathMax); len(s) != PathMax-1 && err == nil {
		t.Errorf("as long as PATH_MAX allows: %d, %v", len(s), err)
	}
	_, err = target.String(0, PathMax)
	wantErrno(t, "null", err, unix.EFAULT, false)
}

// pointers are an array in the target's memory, of pointers of that size to its pages.
func pointers(size int, offsets ...int) (s string) {
	for _, o := range offsets {
		p := uint64(0)
		if o >= 0 {
			p = uint64(fixedAt + o)
		}
		for i := range size {
			s += fmt.Sprintf("%%%02x", byte(p>>(8*i)))
		}
	}
	return s
}

func TestStrings(t *testing.T) {
	const i386 = unix.AUDIT_ARCH_I386
	for _, abi := range []struct {
		name string
		size int
		arch uint32
		nr   int32
	}{{"native", 8, notify.NativeArch, unix.SYS_GETPPID}, {"i386", 4, i386, 11}, {"x32", 4, unix.AUDIT_ARCH_X86_64, x32Bit | 520}} {
		t.Run(abi.name, func(t *testing.T) {
			g := startTarget(t)
			g.tell("poke 16 first")
			g.tell("poke 4095 second")
			g.tell("poke 6000 %s", pointers(abi.size, 16, 8, 4095, -1))
			target := g.call()
			target.arch, target.nr = abi.arch, abi.nr
			if got := target.PointerSize(); got != abi.size {
				t.Errorf("pointers of %d bytes", got)
			}
			all, err := target.Strings(fixedAt+6000, 1<<20)
			if err != nil || !slices.Equal(all, []string{"first", "", "second"}) {
				t.Errorf("%q, %v", all, err)
			}
			need := 4*abi.size + 6 + 1 + 7
			if _, err := target.Strings(fixedAt+6000, need); err != nil {
				t.Errorf("just fits: %v", err)
			}
			for _, max := range []int{need - 1, need - abi.size, 7, 0, -1} {
				_, err := target.Strings(fixedAt+6000, max)
				wantErrno(t, fmt.Sprint("max ", max), err, unix.E2BIG, false)
			}
			if all, err := target.Strings(0, 10); all != nil || err != nil {
				t.Errorf("null: %q, %v", all, err)
			}
			if abi.size == 4 { // the upper half of the register is not the address's
				if s, err := target.String(fixedAt+16|0xabcd<<32, 10); s != "first" || err != nil {
					t.Errorf("truncated: %q, %v", s, err)
				}
			}
			g.answer(1)
			// An array that goes over a page's end, and one that goes over the mapping's.
			g.tell("poke 16 first")
			g.tell("poke %d %s", page-abi.size-2, pointers(abi.size, 16, 16, -1))
			g.tell("poke %d %s", 2*page-2*abi.size, pointers(abi.size, 16, 16))
			g.tell("poke 100 %s", pointers(abi.size, 16, 2*page, -1))
			target = g.call()
			target.arch, target.nr = abi.arch, abi.nr
			if all, err := target.Strings(fixedAt+page-uint64(abi.size)-2, 1<<20); err != nil || !slices.Equal(all, []string{"first", "first"}) {
				t.Errorf("over a page's end: %q, %v", all, err)
			}
			_, err = target.Strings(pagesEnd-2*uint64(abi.size), 1<<20)
			wantErrno(t, "without an end", err, unix.EFAULT, false)
			_, err = target.Strings(fixedAt+100, 1<<20)
			wantErrno(t, "a bad pointer", err, unix.EFAULT, false)
		})
	}
}

func TestAddressesByABI(t *testing.T) {
	for _, c := range []struct {
		arch       uint32
		nr         int32
		arg, wants uint64
	}{
		{unix.AUDIT_ARCH_X86_64, 2, 0x7fff_1234_5678, 0x7fff_1234_5678},
		{unix.AUDIT_ARCH_X86_64, x32Bit | 2, 0x7fff_1234_5678, 0x1234_5678},
		{unix.AUDIT_ARCH_I386, 5, 0xffff_ffff_8000_0000, 0x8000_0000},
		{unix.AUDIT_ARCH_ARM, 5, 0x1_0000_0010, 0x10},
		{unix.AUDIT_ARCH_AARCH64, 56, 0x5a00_7fff_1234_5678, 0x7fff_1234_5678},
		{unix.AUDIT_ARCH_AARCH64, 56, 0xffff_8000_0000_0000, 0xffff_8000_0000_0000},
	} {
		if got := (Target{arch: c.arch, nr: c.nr}).address(c.arg); got != c.wants {
			t.Errorf("%+v: %#x", c, got)
		}
	}
}

func TestSockaddr(t *testing.T) {
	port := "%1f%90" // 8080
	v6 := "%0a%00" + port + "%00%00%00%00%fe%80" + strings.Repeat("%00", 13) + "%01"
	for _, c := range []struct {
		name, bytes string
		n           uint64
		want        Sockaddr
		err         syscall.Errno
		text        string
	}{
		{name: "IPv4", bytes: "%02%00" + port + "%7f%00%00%01", n: 16, want: Sockaddr{Family: unix.AF_INET, Addr: netip.MustParseAddrPort("127.0.0.1:8080")}, text: "127.0.0.1:8080"},
		{name: "IPv4, longer", bytes: "%02%00" + port + "%7f%00%00%01", n: 128, want: Sockaddr{Family: unix.AF_INET, Addr: netip.MustParseAddrPort("127.0.0.1:8080")}, text: "127.0.0.1:8080"},
		{name: "IPv4, short", bytes: "%02%00", n: 15, err: unix.EINVAL},
		{name: "IPv6", bytes: v6 + "%03%00%00%00", n: 28, want: Sockaddr{Family: unix.AF_INET6, Addr: netip.MustParseAddrPort("[fe80::1%3]:8080")}, text: "[fe80::1%3]:8080"},
		{name: "IPv6 without a scope", bytes: v6 + "%03", n: 24, want: Sockaddr{Family: unix.AF_INET6, Addr: netip.MustParseAddrPort("[fe80::1]:8080")}, text: "[fe80::1]:8080"},
		{name: "IPv6, short", bytes: "%0a%00", n: 23, err: unix.EINVAL},
		{name: "path", bytes: "%01%00/run/x%00rest", n: 2 + 11, want: Sockaddr{Family: unix.AF_UNIX, Path: "/run/x"}, text: "unix:/run/x"},
		{name: "path without a NUL", bytes: "%01%00/run/xyz", n: 2 + 6, want: Sockaddr{Family: unix.AF_UNIX, Path: "/run/x"}, text: "unix:/run/x"},
		{name: "path of 108", bytes: "%01%00" + strings.Repeat("p", 120), n: 110, want: Sockaddr{Family: unix.AF_UNIX, Path: strings.Repeat("p", 108)}, text: "unix:" + strings.Repeat("p", 108)},
		{name: "path of 109", bytes: "%01%00" + strings.Repeat("p", 120), n: 111, err: unix.EINVAL},
		{name: "abstract", bytes: "%01%00%00a%00b", n: 2 + 4, want: Sockaddr{Family: unix.AF_UNIX, Path: "a\x00b", Abstract: true}, text: "unix:@a\x00b"},
		{name: "abstract without a name", bytes: "%01%00%00", n: 3, want: Sockaddr{Family: unix.AF_UNIX, Abstract: true}, text: "unix:@"},
		{name: "unnamed", bytes: "%01%00", n: 2, want: Sockaddr{Family: unix.AF_UNIX}, text: "unix:"},
		{name: "unspecified", bytes: "%00%00", n: 16, want: Sockaddr{}, text: "family 0"},
		{name: "netlink", bytes: "%10%00", n: 12, want: Sockaddr{Family: 16}, text: "family 16"},
		{name: "no family", bytes: "%02%00", n: 1, err: unix.EINVAL},
		{name: "empty", n: 0, err: unix.EINVAL},
		{name: "longer than any", bytes: "%02%00", n: 129, err: unix.EINVAL},
		{name: "negative", n: 1<<32 - 1, err: unix.EINVAL},
		{name: "longer by 4 GiB", bytes: "%02%00" + port + "%7f%00%00%01", n: 1<<32 + 16, want: Sockaddr{Family: unix.AF_INET, Addr: netip.MustParseAddrPort("127.0.0.1:8080")}, text: "127.0.0.1:8080"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := startTarget(t)
			if c.bytes != "" {
				g.tell("poke 0 %s", strings.ReplaceAll(c.bytes, "%%", "%"))
			}
			target := g.call()
			s, err := target.Sockaddr(fixedAt, c.n)
			if c.err != 0 {
				wantErrno(t, c.name, err, c.err, false)
				return
			}
			if err != nil || s.Family != c.want.Family || s.Addr != c.want.Addr || s.Path != c.want.Path || s.Abstract != c.want.Abstract || s.String() != c.text || len(s.Raw) != int(int32(c.n)) {
				t.Errorf("%+v (%s), %v", s, s, err)
			}
			_, err = target.Sockaddr(pagesEnd-1, c.n)
			wantErrno(t, "over the end", err, unix.EFAULT, false)
		})
	}
}

// Where process_vm_readv is refused, as by a container's seccomp profile, the file serves; where others are, errors say so.
func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name  string
		nr    int
		errno syscall.Errno
		says  []string // instead of the usual
	}{
		{"process_vm_readv EPERM", unix.SYS_PROCESS_VM_READV, unix.EPERM, nil},
		{"process_vm_readv ENOSYS", unix.SYS_PROCESS_VM_READV, unix.ENOSYS, nil},
		{"pidfd_getfd ENOSYS", unix.SYS_PIDFD_GETFD, unix.ENOSYS, []string{"getfd false", "pidfd_getfd is not available"}},
		{"pidfd_open ENOSYS", unix.SYS_PIDFD_OPEN, unix.ENOSYS, []string{"getfd false", "pidfd_open is not available"}},
		{"openat2 ENOSYS", unix.SYS_OPENAT2, unix.ENOSYS, []string{"open false", "openat2 is not available"}},
		{"unshare EPERM", unix.SYS_UNSHARE, unix.EPERM, []string{"open false", "unshare(CLONE_FS): operation not permitted", "seccomp profile"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := startTarget(t)
			g.tell("poke 16 something")
			g.tell("poke %d 0123456789", 2*page-10)
			g.tell("protect 0 r")
			s := testchild.Start(t, "refused", fmt.Sprint(c.nr), fmt.Sprint(int(c.errno)))
			if err := notify.SendListener(s.UnixConn, g.l); err != nil {
				t.Fatal(err)
			}
			// Where Yama lets only ancestors look, a brother may with this.
			g.MustSay("call %d %d %d", fixedAt+16, fixedAt+20, pagesEnd)
			for i, usual := range []string{`read 16 "something\x00\x00\x00\x00\x00\x00\x00" <nil>`, `string "thing" <nil>`, "none 0 true", "getfd true <nil>", "open true <nil>"} {
				got := s.MustHear()
				if len(c.says) > 0 && strings.HasPrefix(c.says[0], strings.Fields(usual)[0]) {
					for _, want := range c.says {
						if !strings.Contains(got, want) {
							t.Errorf("line %d: %q has no %q", i, got, want)
						}
					}
				} else if got != usual {
					t.Errorf("line %d: %q, want %q", i, got, usual)
				}
			}
			if st := s.Wait(); st.ExitStatus() != 0 {
				t.Errorf("status %d", st.ExitStatus())
			}
		})
	}
}

// What /proc/TID/mem would give out, the target may not read itself.
func TestReadThroughTheFile(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		g := startTarget(t)
		g.tell("poke 4090 abcdefgh")
		g.tell("protect 1 n")
		target := g.call()
		p := make([]byte, 8)
		n, err := target.readFile(fixedAt+4090, p)
		wantErrno(t, "over a guard page", err, unix.EFAULT, false)
		if n != 6 || string(p[:n]) != "abcdef" {
			t.Errorf("%d, %q", n, p)
		}
	})
}

func BenchmarkTarget(b *testing.B) {
	g := startTarget(b)
	g.tell("poke 16 /a/path/of/a/usual/length/that/a/program/opens")
	target := g.call()
	p := make([]byte, 64)
	for _, c := range []struct {
		name string
		do   func() error
	}{
		{"ReadMem", func() error { _, err := target.ReadMem(fixedAt, p); return err }},
		{"WriteMem", func() error { _, err := target.WriteMem(fixedAt+page, p); return err }},
		{"String", func() error { _, err := target.String(fixedAt+16, PathMax); return err }},
		{"IDs", func() error { _, err := target.IDs(); return err }},
		{"OpenAt", func() error {
			fd, err := target.OpenAt(unix.AT_FDCWD, "/dev/null", unix.OpenHow{})
			_ = unix.Close(fd)
			return err
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := c.do(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	noQuery = true
	defer func() { noQuery = false }()
	b.Run("WriteMem-text", func(b *testing.B) {
		for b.Loop() {
			if _, err := target.WriteMem(fixedAt+page, p); err != nil {
				b.Fatal(err)
			}
		}
	})
}
