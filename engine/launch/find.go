package launch

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Find returns the paths that execvp(3) would try for name, without those where
// there is nothing: for a name without a slash what PATH has, in its order.
// Without PATH that is /bin and /usr/bin. An empty entry of PATH is the working
// directory. None of the paths is made absolute, so that the command sees its
// name as it was typed; none may be executable, which Start finds out.
//
// The error wraps ENOENT.
func Find(name string) ([]string, error) {
	if strings.Contains(name, "/") {
		return []string{name}, nil
	}
	notThere := &os.PathError{Op: "find", Path: name, Err: unix.ENOENT}
	if name == "" {
		return nil, notThere
	}
	path, ok := os.LookupEnv("PATH")
	if !ok {
		path = "/bin:/usr/bin"
	}
	var found []string
	for dir := range strings.SplitSeq(path, ":") {
		file := name
		if dir != "" {
			file = dir + "/" + name
		}
		// What cannot be looked at may still be run.
		var st unix.Stat_t
		err := unix.Stat(file, &st)
		if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
			found = append(found, file)
		}
	}
	if len(found) == 0 {
		return nil, notThere
	}
	return found, nil
}
