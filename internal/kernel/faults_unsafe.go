//go:build faults && !fakekernel

package kernel

import (
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Mutex may be held while its holder sleeps.
type Mutex = sync.Mutex

// A Call is a system call of engine or notify.
type Call struct {
	Name    string
	Request uintptr        // of ioctl
	Arg     unsafe.Pointer // of ioctl, but for SET_FLAGS
}

// A Fault stands before Linux: each call is made by do, or not at all, and returns what the Fault does.
type Fault func(c Call, do func() syscall.Errno) syscall.Errno

var (
	fault atomic.Pointer[Fault]
	// Jumped is by how many ns the engine's clock has jumped.
	Jumped atomic.Int64
)

// Inject has f stand before Linux from now on.
func Inject(f Fault) { fault.Store(&f) }

func call(c Call, do func() syscall.Errno) syscall.Errno {
	if f := fault.Load(); f != nil {
		return (*f)(c, do)
	}
	return do()
}

// try is call for what returns an error of package unix.
func try(name string, do func() error) error {
	if e := call(Call{Name: name}, func() syscall.Errno {
		e, _ := do().(syscall.Errno)
		return e
	}); e != 0 {
		return e
	}
	return nil
}

func Ioctl(fd, req uintptr, arg unsafe.Pointer, c0, c1, c2 uintptr) (r uintptr, e syscall.Errno) {
	e = call(Call{"ioctl", req, arg}, func() (e syscall.Errno) {
		r, _, e = syscall.Syscall6(syscall.SYS_IOCTL, fd, req, uintptr(arg), c0, c1, c2)
		return e
	})
	return r, e
}

func IoctlNow(fd, req uintptr, arg unsafe.Pointer, c0, c1, c2 uintptr) (r uintptr, e syscall.Errno) {
	e = call(Call{"ioctl", req, arg}, func() (e syscall.Errno) {
		r, _, e = syscall.RawSyscall6(syscall.SYS_IOCTL, fd, req, uintptr(arg), c0, c1, c2)
		return e
	})
	return r, e
}

func IoctlValue(fd, req, arg uintptr, c0, c1, c2 uintptr) syscall.Errno {
	return call(Call{Name: "ioctl", Request: req}, func() syscall.Errno {
		_, _, e := syscall.RawSyscall6(syscall.SYS_IOCTL, fd, req, arg, c0, c1, c2)
		return e
	})
}

func EpollCreate() (fd int, err error) {
	err = try("epoll_create1", func() (err error) { fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); return })
	return fd, err
}

func EpollCtl(epfd, op, fd int, ev *unix.EpollEvent) error {
	return try("epoll_ctl", func() error { return unix.EpollCtl(epfd, op, fd, ev) })
}

func EpollWait(epfd int, events []unix.EpollEvent, ms int) (n int, err error) {
	err = try("epoll_wait", func() (err error) { n, err = unix.EpollWait(epfd, events, ms); return })
	return n, err
}

func Ppoll(fds []unix.PollFd, timeout *unix.Timespec) (n int, err error) {
	err = try("ppoll", func() (err error) { n, err = unix.Ppoll(fds, timeout, nil); return })
	return n, err
}

func Eventfd() (fd int, err error) {
	err = try("eventfd2", func() (err error) { fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); return })
	return fd, err
}

func Read(fd int, p []byte) (n int, err error) {
	err = try("read", func() (err error) { n, err = unix.Read(fd, p); return })
	return n, err
}

func Write(fd int, p []byte) (n int, err error) {
	err = try("write", func() (err error) { n, err = unix.Write(fd, p); return })
	return n, err
}

func Close(fd int) error { return try("close", func() error { return unix.Close(fd) }) }

func Yield() { runtime.Gosched() }
