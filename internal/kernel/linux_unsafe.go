//go:build !fakekernel && !faults

package kernel

import (
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Mutex may be held while its holder sleeps.
type Mutex = sync.Mutex

// Ioctl is ioctl(2) on a listener, with three cookies in the arguments that the kernel ignores. It tells the Go scheduler that it may sleep.
// The results have names because without them it would be a little too large to be inlined.
func Ioctl(fd, req uintptr, arg unsafe.Pointer, c0, c1, c2 uintptr) (r uintptr, e syscall.Errno) {
	r, _, e = syscall.Syscall6(syscall.SYS_IOCTL, fd, req, uintptr(arg), c0, c1, c2)
	return
}

// IoctlNow is Ioctl for what does not sleep: it keeps the goroutine's P.
func IoctlNow(fd, req uintptr, arg unsafe.Pointer, c0, c1, c2 uintptr) (r uintptr, e syscall.Errno) {
	r, _, e = syscall.RawSyscall6(syscall.SYS_IOCTL, fd, req, uintptr(arg), c0, c1, c2)
	return
}

// IoctlValue is IoctlNow with an argument by value.
func IoctlValue(fd, req, arg uintptr, c0, c1, c2 uintptr) (e syscall.Errno) {
	_, _, e = syscall.RawSyscall6(syscall.SYS_IOCTL, fd, req, arg, c0, c1, c2)
	return
}

// EpollCreate is epoll_create1(2).
func EpollCreate() (int, error) { return unix.EpollCreate1(unix.EPOLL_CLOEXEC) }

// EpollCtl is epoll_ctl(2).
func EpollCtl(epfd, op, fd int, ev *unix.EpollEvent) error { return unix.EpollCtl(epfd, op, fd, ev) }

// EpollWait is epoll_wait(2).
func EpollWait(epfd int, events []unix.EpollEvent, ms int) (int, error) {
	return unix.EpollWait(epfd, events, ms)
}

// Ppoll is ppoll(2).
func Ppoll(fds []unix.PollFd, timeout *unix.Timespec) (int, error) {
	return unix.Ppoll(fds, timeout, nil)
}

// Eventfd is eventfd2(2), close-on-exec and non-blocking.
func Eventfd() (int, error) { return unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK) }

// Read is read(2).
func Read(fd int, p []byte) (int, error) { return unix.Read(fd, p) }

// Write is write(2).
func Write(fd int, p []byte) (int, error) { return unix.Write(fd, p) }

// Close is close(2).
func Close(fd int) error { return unix.Close(fd) }

// Yield lets other goroutines run, in a loop that waits for one.
func Yield() { runtime.Gosched() }
