package bench

import (
	"github.com/unknot/unknot/engine/filter"
	"github.com/unknot/unknot/internal/machine"
)

// Fingerprint is that of this machine and of what this program was built with,
// and the facts that it is made of.
func Fingerprint() (hash string, facts [][2]string) {
	lib := "none"
	if v, err := filter.Version(); err == nil {
		lib = v.String()
	}
	fs := machine.Facts(machine.Fact{Name: "libseccomp", Value: lib})
	for _, f := range fs {
		facts = append(facts, [2]string{f.Name, f.Value})
	}
	return machine.Fingerprint(fs), facts
}
