package confine

import (
	"fmt"
	"os"
	"strconv"
	_ "unsafe" // for go:linkname
)

// isPollDescriptor says whether fd is one of the runtime's own: the epoll
// instance or the eventfd of its poller. The runtime keeps it open to linkname
// (go.dev/issue/67401).
//
//go:linkname isPollDescriptor internal/poll.IsPollDescriptor
func isPollDescriptor(fd uintptr) bool

// A poller is the Go runtime's: any thread of it may poll it (the one that ends
// a stop of the world does) or write to its eventfd (who sets a timer does).
type poller struct{ epoll, event int }

// runtimePoller starts the runtime's poller, which is lazy, and finds its
// descriptors. They are the same for the life of the process.
func runtimePoller() (p poller, err error) {
	r, w, err := os.Pipe() // a pipe is pollable
	if err != nil {
		return p, fmt.Errorf("confine: start the runtime's poller: %w", err)
	}
	_ = r.Close()
	_ = w.Close()
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return p, fmt.Errorf("confine: find the runtime's poller: %w (is /proc mounted?)", err)
	}
	p = poller{-1, -1}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || !isPollDescriptor(uintptr(fd)) {
			continue
		}
		switch what, _ := os.Readlink(dir + "/" + e.Name()); what {
		case "anon_inode:[eventpoll]":
			p.epoll = fd
		case "anon_inode:[eventfd]":
			p.event = fd
		default:
			return p, fmt.Errorf("confine: descriptor %d of the runtime's poller is %q: this Go is not known here, update unknot", fd, what)
		}
	}
	if p.epoll < 0 || p.event < 0 {
		return p, fmt.Errorf("confine: the runtime's poller has no epoll instance and eventfd: this Go is not known here, update unknot")
	}
	return p, nil
}
