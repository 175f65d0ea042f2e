package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
	"github.com/unknot/unknot/engine/filter"
	"golang.org/x/sys/unix"
)

func newVersionCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "print the versions of unknot and of what it stands on",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
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
	var revision, dirty string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = " " + s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = " modified"
		}
	}
	return version + revision + dirty
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown: " + err.Error()
	}
	return unix.ByteSliceToString(u.Release[:])
}
