package confine

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/unknot/unknot/internal/testbpf"
	"golang.org/x/sys/unix"
)

// verdict is what the table says of a call: the oracle for programs.
func verdict(rules []Rule, otherwise Action, c testbpf.Call) uint32 {
	if c.Arch != auditArch || x32Bit != 0 && c.NR >= x32Bit && c.NR != ^uint32(0) {
		return unix.SECCOMP_RET_KILL_PROCESS
	}
	for _, r := range rules {
		if nr, here := r.nr(); here && nr == c.NR && !slices.ContainsFunc(r.When, func(w Cond) bool { return c.Args[w.Arg]&w.Mask != w.Value }) {
			return r.ret()
		}
	}
	return otherwise.ret()
}

// A table is one configuration's rules and programs.
type table struct {
	name      string
	rules     []Rule
	otherwise Action
	programs  map[string][]unix.SockFilter
}

func tables(t testing.TB) (all []table) {
	for _, c := range []struct {
		name string
		cfg  Config
		th   Thread
	}{
		{"private", Config{}, Thread{Listeners: []int{5}, Epoll: 6, Wake: 7}},
		{"shared", Config{Level: Shared, OnViolation: Trap}, Thread{Epoll: 6, Wake: 7, Signal: 40}},
		{"strict", Config{Signals: Strict, OnViolation: Log, Profiling: true}, Thread{Listeners: []int{300}, Epoll: -1, Wake: 1}},
		{"ids", Config{LogFD: 9, UIDs: []IDPair{{uint32(unix.Getuid()), 65534}, {uint32(unix.Getuid()), 1000}}, GIDs: []IDPair{{uint32(unix.Getgid()), 65534}}},
			Thread{Listeners: []int{5}, Epoll: 6, Wake: 7}},
	} {
		p, err := Prepare(c.cfg)
		if err != nil {
			t.Fatal(err)
		}
		tb := table{name: c.name, rules: p.Rules(c.th), otherwise: c.cfg.OnViolation}
		compiled, err := compile(tb.rules, tb.otherwise)
		if err != nil {
			t.Fatal(err)
		}
		tb.programs = map[string][]unix.SockFilter{compiler(): compiled, "assembler": assemble(tb.rules, tb.otherwise)}
		all = append(all, tb)
	}
	return all
}

// agree has all programs judge c.
func (tb *table) agree(t testing.TB, c testbpf.Call) {
	want := verdict(tb.rules, tb.otherwise, c)
	for by, prog := range tb.programs {
		if got, err := testbpf.Run(prog, c); err != nil || got != want {
			t.Fatalf("%s: %+v: the program by %s says %#x (%v), the table %#x", tb.name, c, by, got, err, want)
		}
	}
}

// near returns arguments that match a rule, each changed with some probability:
// random ones alone would match nothing.
func near(rnd *rand.Rand, tb *table) testbpf.Call {
	r := tb.rules[rnd.IntN(len(tb.rules))]
	nr, _ := r.nr()
	c := testbpf.Call{NR: nr, Arch: auditArch}
	for i := range c.Args {
		c.Args[i] = rnd.Uint64() >> rnd.IntN(64)
	}
	for _, w := range r.When {
		c.Args[w.Arg] = c.Args[w.Arg]&^w.Mask | w.Value
		if rnd.IntN(12) == 0 {
			c.Args[w.Arg] ^= 1 << rnd.IntN(64)
		}
	}
	switch rnd.IntN(16) {
	case 0:
		c.NR ^= 1 << rnd.IntN(32)
	case 1:
		c.Arch ^= 1 << rnd.IntN(32)
	}
	return c
}

func TestProgramsAndTableAgree(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, uint64(len(numbers))))
	calls := 10_000
	if thorough() {
		calls = 100_000
	}
	for _, tb := range tables(t) {
		allowed := 0
		for range calls {
			c := near(rnd, &tb)
			tb.agree(t, c)
			if verdict(tb.rules, tb.otherwise, c) == unix.SECCOMP_RET_ALLOW {
				allowed++
			}
		}
		if allowed < calls/5 {
			t.Errorf("%s: only %d of the calls were allowed ones", tb.name, allowed)
		}
		for nr := range uint32(1024) {
			for _, nr := range []uint32{nr, 0x40000000 | nr, ^nr} {
				for _, arch := range []uint32{auditArch, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_ARM, 0} {
					tb.agree(t, testbpf.Call{NR: nr, Arch: arch})
				}
			}
		}
	}
}

func FuzzProgramsAndTableAgree(f *testing.F) {
	all := tables(f)
	for _, tb := range all {
		for _, r := range tb.rules {
			nr, _ := r.nr()
			var a [6]uint64
			for _, w := range r.When {
				a[w.Arg] = w.Value
			}
			f.Add(nr, uint32(auditArch), a[0], a[1], a[2], a[3], a[4], a[5])
		}
	}
	f.Fuzz(func(t *testing.T, nr, arch uint32, a0, a1, a2, a3, a4, a5 uint64) {
		for _, tb := range all {
			tb.agree(t, testbpf.Call{NR: nr, Arch: arch, Args: [6]uint64{a0, a1, a2, a3, a4, a5}})
		}
	})
}

// TestRulesOfOneCallHaveOneAction is what libseccomp and the assembler rely on.
func TestRulesOfOneCallHaveOneAction(t *testing.T) {
	for _, tb := range append(tables(t), table{name: "all", rules: Rules()}) {
		action := map[string]string{}
		for _, r := range tb.rules {
			a := fmt.Sprint(r.ret(), len(r.When) == 0)
			if before, ok := action[r.Syscall]; ok && before != a {
				t.Errorf("%s: rules of %s differ in action, or one has no condition", tb.name, r.Syscall)
			}
			action[r.Syscall] = a
		}
	}
}

// TestNoRuleAllowsWhatMustNeverBe looks at the table rather than at a kernel.
func TestNoRuleAllowsWhatMustNeverBe(t *testing.T) {
	for _, tb := range tables(t) {
		for _, r := range tb.rules {
			for _, c := range r.When {
				if r.Syscall == "mmap" && c.Arg == 2 && (c.Mask != all64 || c.Value&unix.PROT_EXEC != 0) {
					t.Errorf("%s: %s allows executable memory", tb.name, r.Key)
				}
				if strings.HasPrefix(c.Text, "fd is") && (c.Arg != 0 || c.Mask != low32) {
					t.Errorf("%s: %s leaves out bits of the descriptor: %+v", tb.name, r.Key, c)
				}
				if c.Value&^c.Mask != 0 {
					t.Errorf("%s: %s can never match: %+v", tb.name, r.Key, c)
				}
			}
			if r.Syscall == "ioctl" || r.Key == "write/log" {
				cookies := 0
				for _, c := range r.When {
					if c.Arg >= 3 && c.Mask == all64 && c.Value != 0 {
						cookies++
					}
				}
				if cookies != 3 {
					t.Errorf("%s: %s demands %d cookies", tb.name, r.Key, cookies)
				}
			}
			if len(r.When) == 0 && slices.Contains([]string{"write", "read", "ioctl", "close", "mmap", "prctl", "tgkill", "futex", "madvise", "epoll_pwait"}, r.Syscall) {
				t.Errorf("%s: %s has no condition", tb.name, r.Key)
			}
		}
	}
}

// TestCookiesDiffer: two plans share nothing.
func TestCookiesDiffer(t *testing.T) {
	seen := map[uintptr]bool{}
	for range 3 {
		p, err := Prepare(Config{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range p.Cookies() {
			if c>>32 == 0 || seen[c] {
				t.Errorf("cookie %#x is short or came before", c)
			}
			seen[c] = true
		}
	}
}
