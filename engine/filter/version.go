package filter

import "fmt"

// A LibVersion is the version of the libseccomp in use and the API level that
// it finds on this kernel (seccomp_api_get(3)); notifications need level 5 or more.
type LibVersion struct {
	Major, Minor, Micro uint
	API                 uint
}

// String is the version alone, as in "2.5.4".
func (v LibVersion) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Micro) }
