//go:build cgo

package filter

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/seccomp/libseccomp-golang"
	"github.com/unknot/unknot/engine/syscalls"
	"github.com/unknot/unknot/internal/cbpf"
	"github.com/unknot/unknot/internal/seccompbpf"
	"golang.org/x/sys/unix"
)

// abis are the ABIs that one kernel serves: its own and the 32-bit one that is
// trapped with it.
type abis struct {
	native, compat seccomp.ScmpArch
	audit          uint32 // AUDIT_ARCH_* of the native one
}

var machines = map[string]abis{
	"amd64": {seccomp.ArchAMD64, seccomp.ArchX86, unix.AUDIT_ARCH_X86_64},
	"arm64": {seccomp.ArchARM64, seccomp.ArchARM, unix.AUDIT_ARCH_AARCH64},
}

// maxNR is beyond every system call number of every ABI here.
const maxNR = 1024

// names returns the calls of one ABI that libseccomp knows by number.
func names(arch seccomp.ScmpArch) []string {
	var all []string
	for nr := range maxNR {
		if name, err := seccomp.ScmpSyscall(nr).GetNameByArch(arch); err == nil {
			all = append(all, name)
		}
	}
	return all
}

// number64 is the number of name in one ABI; libseccomp's negative numbers mean
// that only other ABIs have it.
func number64(name string, arch seccomp.ScmpArch) (int, bool) {
	if strings.IndexByte(name, 0) >= 0 { // C would see a shorter name
		return 0, false
	}
	if nr, err := seccomp.GetSyscallFromNameByArch(name, arch); err == nil && nr >= 0 {
		return int(nr), true
	}
	nr, ok := newer[name]
	return nr, ok
}

// twinTable maps each native name to its 32-bit twins.
func (m abis) twinTable() map[string][]string {
	native := func(name string) bool { _, ok := number64(name, m.native); return ok }
	table := map[string][]string{}
	// send and recv have no number of their own in i386, so the list lacks them.
	for _, name := range slices.Compact(slices.Sorted(slices.Values(append(names(m.compat), "send", "recv")))) {
		if t := twinOf(name, native); t != "" && t != name {
			table[t] = append(table[t], name)
		}
	}
	return table
}

var (
	here       = sync.OnceValue(func() abis { return machines[runtime.GOARCH] })
	nativeTwin = sync.OnceValue(func() map[string][]string { return here().twinTable() })
)

func number(name string) (int, error) {
	if nr, ok := number64(name, here().native); ok {
		return nr, nil
	}
	known := names(here().native)
	for name := range newer {
		if !slices.Contains(known, name) {
			known = append(known, name)
		}
	}
	return 0, unknown(name, known)
}

func lookup(arch uint32, nr int32) string {
	var a seccomp.ScmpArch
	switch arch {
	case unix.AUDIT_ARCH_X86_64:
		a = seccomp.ArchAMD64
		if nr&syscalls.X32Bit != 0 {
			a = seccomp.ArchX32
		}
	case unix.AUDIT_ARCH_I386:
		a = seccomp.ArchX86
	case unix.AUDIT_ARCH_AARCH64:
		a = seccomp.ArchARM64
	case unix.AUDIT_ARCH_ARM:
		a = seccomp.ArchARM
	default:
		return ""
	}
	if nr < 0 { // libseccomp's own numbers for what an ABI lacks
		return ""
	}
	name, err := seccomp.ScmpSyscall(nr).GetNameByArch(a)
	if err != nil {
		return ""
	}
	return name
}

func compile(names []string, o Options) ([]unix.SockFilter, error) {
	for _, name := range names {
		if _, err := number(name); err != nil {
			return nil, err
		}
	}
	prog, err := here().compile(names, o)
	if err != nil {
		// Where libseccomp finds no notifications it refuses the rules, and calls
		// the reason by another name.
		if lack := lacksNotify(); lack != nil {
			return nil, lack
		}
	}
	return prog, err
}

// notifyAPI is the API level of libseccomp (seccomp_api_get(3)) that has notifications.
const notifyAPI = 5

// lacksNotify says why libseccomp finds no notifications here; nil if it does.
func lacksNotify() error {
	v, err := Version()
	switch {
	case err != nil:
		return err
	case v.Major < 2 || v.Major == 2 && v.Minor < 5:
		return fmt.Errorf("libseccomp %v is too old: 2.5 or newer has notifications", v)
	case v.API < notifyAPI:
		return fmt.Errorf("libseccomp finds no notifications here (API level %d): a container's seccomp profile may refuse seccomp(2): %w", v.API, errors.ErrUnsupported)
	}
	return nil
}

// compile is Compile for any machine.
func (m abis) compile(names []string, o Options) ([]unix.SockFilter, error) {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	f, err := oneABI(m.native, names)
	if err != nil {
		return nil, err
	}
	defer f.Release()
	if !o.Refuse32 {
		table := m.twinTable()
		all := slices.Clone(names)
		for _, name := range names {
			all = append(all, table[name]...)
		}
		compat, err := oneABI(m.compat, all)
		if err != nil {
			return nil, err
		}
		if err := f.Merge(compat); err != nil {
			compat.Release()
			return nil, fmt.Errorf("libseccomp: merge %v and %v: %w", m.native, m.compat, err)
		}
	}
	prog, err := seccompbpf.Export(f)
	if err != nil {
		return nil, err
	}
	var young []int
	for _, name := range names {
		if _, err := seccomp.GetSyscallFromName(name); err != nil {
			young = append(young, newer[name])
		}
	}
	return append(trapNumbers(young, m.audit, o), prog...), nil
}

// oneABI is the filter for one ABI; names that it lacks are left out.
//
// libseccomp would translate rules for several ABIs itself, but where a name has
// no number in one of them it adds a rule for a number of its own, and if that
// rule comes first, the program for that ABI is broken: libseccomp 2.5.4 leaves
// out the load of the number with it, and what should be trapped is allowed. So
// each ABI gets only rules for calls that it has.
func oneABI(arch seccomp.ScmpArch, calls []string) (*seccomp.ScmpFilter, error) {
	f, err := seccomp.NewFilter(seccomp.ActAllow)
	if err != nil {
		return nil, fmt.Errorf("libseccomp: new filter: %w", err)
	}
	err = func() error {
		if err := f.SetBadArchAction(seccomp.ActErrno.SetReturnCode(int16(unix.ENOSYS))); err != nil {
			return fmt.Errorf("libseccomp: refuse other ABIs: %w", err)
		}
		running, err := seccomp.GetNativeArch()
		if err != nil {
			return fmt.Errorf("libseccomp: native ABI: %w", err)
		}
		if arch != running {
			if err := f.AddArch(arch); err != nil {
				return fmt.Errorf("libseccomp: add %v: %w", arch, err)
			}
			if err := f.RemoveArch(running); err != nil {
				return fmt.Errorf("libseccomp: remove %v: %w", running, err)
			}
		}
		direct := names(arch)
		for _, name := range calls {
			if err := addRule(f, arch, name, slices.Contains(direct, name)); err != nil {
				return fmt.Errorf("libseccomp: trap %s of %v: %w", name, arch, err)
			}
		}
		return nil
	}()
	if err != nil {
		f.Release()
		return nil, err
	}
	return f, nil
}

// addRule traps one call; direct says that it has a number in this ABI.
func addRule(f *seccomp.ScmpFilter, arch seccomp.ScmpArch, name string, direct bool) error {
	call, err := seccomp.GetSyscallFromName(name)
	if err != nil {
		return nil // younger than libseccomp
	}
	if direct {
		// Where the call is also multiplexed, libseccomp traps that too.
		return f.AddRule(call, seccomp.ActNotify)
	}
	// Only multiplexed: libseccomp numbers these -100-n and -200-n.
	own, err := seccomp.GetSyscallFromNameByArch(name, arch)
	if err != nil || own >= 0 {
		return nil
	}
	mux, n := "socketcall", -int(own)-100
	if n > 100 {
		mux, n = "ipc", n-100
	}
	if n < 1 || n > 30 || arch != seccomp.ArchX86 {
		return nil // not there at all
	}
	call, err = seccomp.GetSyscallFromName(mux)
	if err != nil {
		return err
	}
	is, err := seccomp.MakeCondition(0, seccomp.CompareEqual, uint64(n))
	if err != nil {
		return err
	}
	return f.AddRuleConditional(call, seccomp.ActNotify, []seccomp.ScmpCondition{is})
}

// trapNumbers is the head of a program that traps calls which libseccomp does
// not know; they have one number in all ABIs. The rest of the program follows.
func trapNumbers(nrs []int, native uint32, o Options) []unix.SockFilter {
	if len(nrs) == 0 {
		return nil
	}
	var p []unix.SockFilter
	if o.Refuse32 { // over this head if the ABI is not the native one
		p = append(p,
			unix.SockFilter{Code: cbpf.Load, K: 4}, // seccomp_data.arch
			unix.SockFilter{Code: cbpf.Equal, K: native, Jf: uint8(1 + 2*len(nrs))})
	}
	p = append(p, unix.SockFilter{Code: cbpf.Load, K: 0}) // seccomp_data.nr
	for _, nr := range nrs {
		p = append(p,
			unix.SockFilter{Code: cbpf.Equal, K: uint32(nr), Jf: 1},
			unix.SockFilter{Code: cbpf.Return, K: unix.SECCOMP_RET_USER_NOTIF})
	}
	return p
}

// Version returns the version of the libseccomp in use.
func Version() (LibVersion, error) {
	api, err := seccomp.GetAPI()
	if err != nil {
		return LibVersion{}, fmt.Errorf("libseccomp: API level: %w", err)
	}
	major, minor, micro := seccomp.GetLibraryVersion()
	return LibVersion{major, minor, micro, api}, nil
}
