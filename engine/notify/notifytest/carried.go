//go:build !fakekernel

package notifytest

import (
	"fmt"
	"sync"

	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// A system is nothing where the engine's system calls are Linux's.
//
//lint:ignore U1000 Kernel embeds it: it has parts under the tag fakekernel.
type system struct{}

// Listener returns the filter's listener. Its descriptor is one end of a pipe, which is readable while a notification can be received, and hung up
// when no target is left: for an engine, or epoll. It ends when it is closed. There is one: a second call panics.
func (f *Filter) Listener() *notify.Listener {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		panic(fmt.Sprintf("notifytest: a pipe for a listener: %v", err))
	}
	c := &carrier{f: f, r: p[0], w: p[1]}
	f.lock.Lock()
	defer f.lock.Unlock()
	if f.onChange != nil {
		panic("notifytest: a second listener of a filter")
	}
	f.onChange = c.show
	c.show()
	return notify.Carried(p[0], c, c.close)
}

// A carrier is a filter as a listener that is carried.
type carrier struct {
	f    *Filter
	r, w int // the pipe; -1 once closed

	mu   sync.Mutex
	full bool // there is a byte in it
}

// show has the pipe's end look as the listener does. The caller holds f.lock.
func (c *carrier) show() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.w < 0 {
		return
	}
	ev := c.f.poll()
	var b [1]byte
	if in := ev&unix.POLLIN != 0; in != c.full {
		if in {
			_, _ = unix.Write(c.w, b[:]) // an empty pipe has room
		} else {
			_, _ = unix.Read(c.r, b[:])
		}
		c.full = in
	}
	if ev&unix.POLLHUP != 0 {
		_ = unix.Close(c.w)
		c.w = -1
	}
}

// Recv sleeps where the real ioctl does, and a signal to the calling thread takes it out.
func (c *carrier) Recv() (notify.Notif, unix.Errno) {
	for {
		n, sleep, e := c.f.tryRecv()
		if sleep == nil {
			return n, e
		}
		fds := []unix.PollFd{{Fd: int32(c.r), Events: unix.POLLIN}}
		if _, err := unix.Ppoll(fds, nil, nil); err == unix.EINTR {
			return n, unix.EINTR
		}
		if fds[0].Revents&unix.POLLHUP != 0 && !c.f.k.Profile.RecvEnds {
			return n, unix.EINTR // nothing would wake it any more, which no test wants to wait for
		}
	}
}

func (c *carrier) Send(r notify.Resp) unix.Errno          { return c.f.Send(r) }
func (c *carrier) IDValid(id uint64) unix.Errno           { return c.f.IDValid(id) }
func (c *carrier) AddFD(a notify.AddFD) (int, unix.Errno) { return c.f.AddFD(a) }
func (c *carrier) SetFlags(flags uint64) unix.Errno       { return c.f.SetFlags(flags) }

func (c *carrier) close() {
	c.f.Close()
	c.f.lock.Lock()
	defer c.f.lock.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = unix.Close(c.r)
	if c.w >= 0 {
		_ = unix.Close(c.w)
	}
	c.r, c.w = -1, -1
}
