package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/unknot/unknot/engine/filter"
	"github.com/unknot/unknot/internal/machine"
	"golang.org/x/sys/unix"
)

func newVersionCmd() *cobra.Command {
	var machine bool
	c := &cobra.Command{
		Use:   "version",
		Short: "print the versions of unknot and of what it stands on",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if machine {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), machineSlug())
				return err
			}
			lib := "none"
			if v, err := filter.Version(); err != nil {
				lib += ": " + err.Error()
			} else {
				lib = v.String()
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "unknot     %s\ngo         %s %s/%s\nkernel     %s\nlibseccomp %s\n",
				buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH, kernelRelease(), lib)
			return err
		},
	}
	c.Flags().BoolVar(&machine, "machine", false, "print instead the name of this kind of machine, as in results/NAME")
	return c
}

// machineSlug names the kind of machine, not the machine: its CPU model and the
// number of its CPUs, as in "amd-epyc-2cpu". The results of one kind share a
// directory; what else they depend on stands in the files.
func machineSlug() string {
	return fmt.Sprintf("%s-%dcpu", slug(cmp.Or(machine.KernelCPU(), runtime.GOARCH)), runtime.NumCPU())
}

// slug makes a name that is fit for a directory: small letters, digits and
// single hyphens.
func slug(s string) string {
	for _, noise := range []string{"(R)", "(TM)", "(r)", "(tm)"} {
		s = strings.ReplaceAll(s, noise, "")
	}
	words := strings.FieldsFunc(strings.ToLower(s), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	})
	return strings.Join(words, "-")
}

// buildVersion is the module's version and, where the build knows it, the
// commit that it was built from.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version := info.Main.Version
	if version == "" || version == "(devel)" {
		version = "devel"
	}
	// A version that Go derives from the repository names the commit already.
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			if revision := s.Value[:min(12, len(s.Value))]; !strings.Contains(version, revision) {
				version += " " + revision
			}
		}
		if s.Key == "vcs.modified" && s.Value == "true" && !strings.Contains(version, "dirty") {
			version += " modified"
		}
	}
	return version
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown: " + err.Error()
	}
	return unix.ByteSliceToString(u.Release[:])
}
