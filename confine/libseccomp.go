//go:build cgo

package confine

import (
	"fmt"
	"io"

	"github.com/seccomp/libseccomp-golang"
	"github.com/unknot/unknot/internal/seccompbpf"
	"golang.org/x/sys/unix"
)

// compiler names what compile uses.
func compiler() string {
	major, minor, micro := seccomp.GetLibraryVersion()
	return fmt.Sprintf("libseccomp %d.%d.%d", major, minor, micro)
}

// compile has libseccomp compile the rules, as a binary tree over the numbers.
// Loading is ours: libseccomp's Load would filter all threads.
func compile(rules []Rule, otherwise Action) ([]unix.SockFilter, error) {
	f, err := build(rules, otherwise)
	if err != nil {
		return nil, err
	}
	defer f.Release()
	p, err := seccompbpf.Export(f)
	if err != nil {
		return nil, fmt.Errorf("confine: %w", err)
	}
	return p, nil
}

// writePFC writes the rules as libseccomp's pseudo filter code.
func writePFC(w io.Writer, rules []Rule, otherwise Action) error {
	f, err := build(rules, otherwise)
	if err != nil {
		return err
	}
	defer f.Release()
	text, err := seccompbpf.PFC(f)
	if err != nil {
		return fmt.Errorf("confine: %w", err)
	}
	_, err = w.Write(text)
	return err
}

// build makes libseccomp's filter of the rules, which the caller releases.
func build(rules []Rule, otherwise Action) (made *seccomp.ScmpFilter, err error) {
	fail := func(what string, err error) (*seccomp.ScmpFilter, error) {
		return nil, fmt.Errorf("confine: libseccomp: %s: %w", what, err)
	}
	f, err := seccomp.NewFilter([...]seccomp.ScmpAction{seccomp.ActKillProcess, seccomp.ActTrap, seccomp.ActLog}[otherwise])
	if err != nil {
		return fail("new filter", err)
	}
	defer func() {
		if made == nil {
			f.Release()
		}
	}()
	if err := f.SetBadArchAction(seccomp.ActKillProcess); err != nil {
		return fail("other ABIs", err)
	}
	if err := f.SetOptimize(2); err != nil { // libseccomp 2.5
		return fail("binary tree", err)
	}
	for _, r := range rules {
		nr, ok := r.nr()
		if !ok {
			continue
		}
		action := seccomp.ActAllow
		if r.Errno != 0 {
			action = seccomp.ActErrno.SetReturnCode(int16(r.Errno))
		}
		var conds []seccomp.ScmpCondition
		for _, c := range r.When {
			var cond seccomp.ScmpCondition
			if c.Mask == all64 {
				cond, err = seccomp.MakeCondition(c.Arg, seccomp.CompareEqual, c.Value)
			} else {
				cond, err = seccomp.MakeCondition(c.Arg, seccomp.CompareMaskedEqual, c.Mask, c.Value)
			}
			if err != nil {
				return fail(r.Key, err)
			}
			conds = append(conds, cond)
		}
		// By number, since libseccomp may be older than a name.
		if err := f.AddRuleConditionalExact(seccomp.ScmpSyscall(nr), action, conds); err != nil {
			return fail(r.Key, err)
		}
	}
	return f, nil
}
