//go:build fakekernel

package kernel

import (
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A System is what stands in for Linux.
type System interface {
	Ioctl(fd, req uintptr, arg unsafe.Pointer, cookies [3]uintptr) (uintptr, unix.Errno)
	EpollCreate() (int, unix.Errno)
	EpollCtl(epfd, op, fd int, ev *unix.EpollEvent) unix.Errno
	EpollWait(epfd int, events []unix.EpollEvent, timeout time.Duration) (int, unix.Errno)
	Poll(fds []unix.PollFd, timeout time.Duration) (int, unix.Errno)
	Eventfd() (int, unix.Errno)
	Read(fd int, p []byte) (int, unix.Errno)
	Write(fd int, p []byte) (int, unix.Errno)
	Close(fd int) unix.Errno
	Interrupt(tid int)
	// Sched is called where a thread may lose its CPU.
	Sched()
	// CPUs are those that a thread may run on, 0 for one of the supervisor's own.
	CPUs(tid int) []int
}

// system is one for the whole program: nothing else may use it at the same time.
var system System

// Use has everything use s from now on. Nothing of the engine may run.
func Use(s System) { system = s }

// Current is what Use set.
func Current() System { return system }

// A Mutex may be held while its holder sleeps: who waits for it waits durably, as testing/synctest has it.
type Mutex struct {
	mu     sync.Mutex
	locked bool
	gone   chan struct{}
}

// Lock locks m.
func (m *Mutex) Lock() {
	for {
		m.mu.Lock()
		if !m.locked {
			m.locked, m.gone = true, make(chan struct{})
			m.mu.Unlock()
			return
		}
		gone := m.gone
		m.mu.Unlock()
		<-gone
	}
}

// Unlock unlocks m.
func (m *Mutex) Unlock() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.locked {
		panic("unlock of an unlocked mutex")
	}
	m.locked = false
	close(m.gone)
}

func err(e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

func Ioctl(fd, req uintptr, arg unsafe.Pointer, c0, c1, c2 uintptr) (uintptr, syscall.Errno) {
	return system.Ioctl(fd, req, arg, [3]uintptr{c0, c1, c2})
}

func IoctlNow(fd, req uintptr, arg unsafe.Pointer, c0, c1, c2 uintptr) (uintptr, syscall.Errno) {
	return Ioctl(fd, req, arg, c0, c1, c2)
}

// IoctlValue's argument is a number in the place of a pointer, which nobody follows.
func IoctlValue(fd, req, arg uintptr, c0, c1, c2 uintptr) syscall.Errno {
	_, e := Ioctl(fd, req, unsafe.Pointer(&numbers[min(arg, uintptr(len(numbers)-1))]), c0, c1, c2)
	return e
}

// numbers stand for numbers in the place of pointers, by their index: Go must not see a pointer that is none. The last
// stands for all that are greater.
var numbers [1 << 12]byte

// Number is the number that arg stands for, if it is one of IoctlValue's.
func Number(arg unsafe.Pointer) (n uintptr, ok bool) {
	n = uintptr(arg) - uintptr(unsafe.Pointer(&numbers))
	return n, n < uintptr(len(numbers))
}

func EpollCreate() (int, error) { fd, e := system.EpollCreate(); return fd, err(e) }

func EpollCtl(epfd, op, fd int, ev *unix.EpollEvent) error {
	return err(system.EpollCtl(epfd, op, fd, ev))
}

func EpollWait(epfd int, events []unix.EpollEvent, ms int) (int, error) {
	n, e := system.EpollWait(epfd, events, time.Duration(ms)*time.Millisecond)
	return n, err(e)
}

func Ppoll(fds []unix.PollFd, timeout *unix.Timespec) (int, error) {
	d := time.Duration(-1)
	if timeout != nil {
		d = time.Duration(timeout.Nano())
	}
	n, e := system.Poll(fds, d)
	return n, err(e)
}

func Eventfd() (int, error)               { fd, e := system.Eventfd(); return fd, err(e) }
func Read(fd int, p []byte) (int, error)  { n, e := system.Read(fd, p); return n, err(e) }
func Write(fd int, p []byte) (int, error) { n, e := system.Write(fd, p); return n, err(e) }
func Close(fd int) error                  { return err(system.Close(fd)) }

// Yield passes time, for the time of others to come.
func Yield() { time.Sleep(time.Microsecond) }
