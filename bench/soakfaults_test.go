//go:build faults

package bench

import (
	"math/rand/v2"
	"syscall"

	"github.com/unknot/unknot/internal/kernel"
	"golang.org/x/sys/unix"
)

// Under the tag faults one in three ioctls and waits of a soak is interrupted, which Linux and its tracepoints do not see.
func init() {
	kernel.Inject(func(c kernel.Call, do func() syscall.Errno) syscall.Errno {
		switch c.Name {
		case "ioctl", "epoll_wait", "ppoll":
			if rand.IntN(3) == 0 {
				return unix.EINTR
			}
		}
		return do()
	})
}
