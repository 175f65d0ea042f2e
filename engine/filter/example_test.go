//go:build cgo

package filter_test

import (
	"errors"
	"fmt"

	"github.com/unknot/unknot/engine/filter"
)

// A filter hands the named calls to a listener; package notify installs it, package launch starts a command under it.
func ExampleCompile() {
	prog, err := filter.Compile([]string{"openat", "connect"}, filter.Options{})
	fmt.Println(len(prog) > 0, err)

	_, err = filter.Compile([]string{"opennat"}, filter.Options{})
	var unknown *filter.UnknownError
	if errors.As(err, &unknown) {
		fmt.Println("was it", unknown.Nearest[0], "that was meant?")
	}
	// Output:
	// true <nil>
	// was it openat that was meant?
}

// 32-bit programs call some calls by other names.
func ExampleTwins() {
	twins, err := filter.Twins("wait4")
	fmt.Println(twins, err)
	// Output: [waitpid] <nil>
}
