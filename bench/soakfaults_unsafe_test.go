//go:build faults

package bench

import (
	"math/rand/v2"
	"syscall"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/kernel"
	"golang.org/x/sys/unix"
)

// Under the tag faults one in three ioctls and waits of a soak is interrupted, which Linux and its tracepoints do not see.
func init() {
	kernel.Inject(func(c kernel.Call, do func() syscall.Errno) syscall.Errno {
		switch c.Name {
		case "ioctl", "epoll_wait", "ppoll":
			probes := c.Request == notify.IoctlIDValid && *(*uint64)(c.Arg) == 0 // of a new listener, which are counted
			if rand.IntN(3) == 0 && !probes {
				return unix.EINTR
			}
		}
		return do()
	})
}
