//go:build cgo

package filter

import (
	"fmt"

	"github.com/seccomp/libseccomp-golang"
)

// Version returns the version of the libseccomp in use.
func Version() (LibVersion, error) {
	api, err := seccomp.GetAPI()
	if err != nil {
		return LibVersion{}, fmt.Errorf("libseccomp: API level: %w", err)
	}
	major, minor, micro := seccomp.GetLibraryVersion()
	return LibVersion{major, minor, micro, api}, nil
}
