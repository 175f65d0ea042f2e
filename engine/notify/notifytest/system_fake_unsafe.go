//go:build fakekernel

package notifytest

import (
	"encoding/binary"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/kernel"
	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

// A system is the rest of the kernel as the engine uses it: descriptors, epoll, eventfds, signals to threads.
type system struct {
	smu     sync.Mutex
	files   []file // by number, from firstFD on; nil: the number is free
	changed chan struct{}
	inRecv  map[int]chan struct{} // by thread
	strays  int                   // system calls on numbers that are no descriptor
}

// firstFD is the lowest descriptor, above those that the program really has. A new one is the lowest that is free, as Linux has it.
const firstFD = 1 << 20

// A file is what a descriptor stands for.
type file interface {
	// poll is called without smu.
	poll() (events int16)
	close()
}

// A listenerFile is a filter's listener.
type listenerFile struct{ f *Filter }

func (l listenerFile) poll() int16 {
	ev := l.f.Poll()
	if change := l.f.k.PollBits; change != nil {
		ev = change(ev)
	}
	return ev
}
func (l listenerFile) close() { l.f.Close() }

// An eventFile is an eventfd.
type eventFile struct {
	mu sync.Mutex
	n  uint64
}

func (e *eventFile) poll() (events int16) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.n > 0 {
		events = unix.POLLIN
	}
	return events | unix.POLLOUT
}
func (e *eventFile) close() {}

// An epollFile is an epoll instance. The file is what is watched, not the number: as in Linux it may be another's by now.
type epollFile struct {
	mu    sync.Mutex
	watch []watched
	turn  int
}

type watched struct {
	fd int
	f  file
	ev unix.EpollEvent
}

func (*epollFile) poll() int16 { return 0 }
func (*epollFile) close()      {}

// Use has the whole engine of this program use k from now on: its ioctls, epoll, eventfds and threads. Nothing of an engine may run.
func (k *Kernel) Use() {
	k.changed = make(chan struct{})
	k.inRecv = map[int]chan struct{}{}
	kernel.Use(calls{k})
}

// calls are k's as the seam wants them.
type calls struct{ *Kernel }

// Listener returns the filter's listener, with a descriptor of k, which is in Use. There is one: a second call panics.
func (f *Filter) Listener() *notify.Listener {
	f.lock.Lock()
	if f.onChange != nil {
		panic("notifytest: a second listener of a filter")
	}
	f.onChange = f.k.wakeAll
	f.lock.Unlock()
	l, err := notify.NewListener(f.k.open(listenerFile{f}))
	if err != nil {
		panic(fmt.Sprintf("notifytest: listener: %v", err))
	}
	return l
}

// wakeAll has all who sleep look again.
func (k *Kernel) wakeAll() {
	k.smu.Lock()
	defer k.smu.Unlock()
	close(k.changed)
	k.changed = make(chan struct{})
}

func (k *Kernel) sleep() <-chan struct{} {
	k.smu.Lock()
	defer k.smu.Unlock()
	return k.changed
}

func (k *Kernel) open(f file) int {
	k.smu.Lock()
	defer k.smu.Unlock()
	for i := range k.files {
		if k.files[i] == nil {
			k.files[i] = f
			return firstFD + i
		}
	}
	k.files = append(k.files, f)
	return firstFD + len(k.files) - 1
}

// Open is how many descriptors are open.
func (k *Kernel) Open() (n int) {
	k.smu.Lock()
	defer k.smu.Unlock()
	for _, f := range k.files {
		if f != nil {
			n++
		}
	}
	return n
}

// Strays is how many system calls there were on numbers that were no descriptor's, or not one of that kind.
func (k *Kernel) Strays() int {
	k.smu.Lock()
	defer k.smu.Unlock()
	return k.strays
}

func (k *Kernel) stray(e unix.Errno) unix.Errno {
	k.smu.Lock()
	defer k.smu.Unlock()
	k.strays++
	return e
}

func (k *Kernel) file(fd int) file {
	k.smu.Lock()
	defer k.smu.Unlock()
	if i := fd - firstFD; i >= 0 && i < len(k.files) {
		return k.files[i]
	}
	return nil
}

func (k calls) Sched() { k.sched() }

func (k calls) CPUs(tid int) []int {
	if k.Kernel.CPUs == nil {
		return []int{0, 1}
	}
	return k.Kernel.CPUs(tid)
}

func (k calls) Close(fd int) unix.Errno {
	f := k.file(fd)
	if f == nil {
		return k.stray(unix.EBADF)
	}
	k.smu.Lock()
	k.files[fd-firstFD] = nil
	all := append([]file(nil), k.files...)
	k.smu.Unlock()
	for _, e := range all {
		if e, ok := e.(*epollFile); ok { // eventpoll_release
			e.drop(func(w watched) bool { return w.f == f })
		}
	}
	f.close()
	k.wakeAll()
	return 0
}

func (e *epollFile) drop(which func(watched) bool) (dropped bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range e.watch {
		if which(e.watch[i]) {
			e.watch = append(e.watch[:i:i], e.watch[i+1:]...)
			return true
		}
	}
	return false
}

func (k calls) EpollCreate() (int, unix.Errno) { return k.open(new(epollFile)), 0 }
func (k calls) Eventfd() (int, unix.Errno)     { return k.open(new(eventFile)), 0 }

func (k calls) EpollCtl(epfd, op, fd int, ev *unix.EpollEvent) unix.Errno {
	e, ok := k.file(epfd).(*epollFile)
	f := k.file(fd)
	if !ok || f == nil {
		return k.stray(unix.EBADF)
	}
	same := func(w watched) bool { return w.fd == fd && w.f == f }
	switch op {
	case unix.EPOLL_CTL_ADD:
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, w := range e.watch {
			if same(w) {
				return unix.EEXIST
			}
		}
		e.watch = append(e.watch, watched{fd, f, *ev})
	case unix.EPOLL_CTL_DEL:
		if !e.drop(same) {
			return unix.ENOENT
		}
	default:
		return unix.EINVAL
	}
	k.wakeAll()
	return 0
}

// wait calls look until it is more than 0, the time is up, or for ever if that is negative.
func (k calls) wait(timeout time.Duration, look func() int) int {
	k.sched()
	var up <-chan time.Time
	if timeout > 0 {
		t := time.NewTimer(timeout)
		defer t.Stop()
		up = t.C
	}
	for {
		sleep := k.sleep()
		if n := look(); n > 0 || timeout == 0 {
			return n
		}
		select {
		case <-sleep:
			k.sched()
		case <-up:
			timeout = 0
		}
	}
}

func (k calls) EpollWait(epfd int, events []unix.EpollEvent, timeout time.Duration) (int, unix.Errno) {
	e, ok := k.file(epfd).(*epollFile)
	if !ok {
		return 0, k.stray(unix.EBADF)
	}
	return k.wait(timeout, func() (n int) {
		e.mu.Lock()
		all := append([]watched(nil), e.watch...)
		e.turn++
		first := e.turn
		e.mu.Unlock()
		for i := range all {
			w := all[(first+i)%len(all)] // each in its turn, as level triggering has it
			if ev := uint32(w.f.poll()) & (w.ev.Events | unix.EPOLLERR | unix.EPOLLHUP); ev != 0 && n < len(events) {
				events[n] = unix.EpollEvent{Events: ev, Fd: w.ev.Fd}
				n++
			}
		}
		return n
	}), 0
}

func (k calls) Poll(fds []unix.PollFd, timeout time.Duration) (int, unix.Errno) {
	return k.wait(timeout, func() (n int) {
		for i := range fds {
			ev := int16(unix.POLLNVAL)
			if f := k.file(int(fds[i].Fd)); f != nil {
				ev = f.poll() & (fds[i].Events | unix.POLLERR | unix.POLLHUP)
			}
			if fds[i].Revents = ev; ev != 0 {
				n++
			}
		}
		return n
	}), 0
}

func (k calls) Read(fd int, p []byte) (int, unix.Errno) {
	e, ok := k.file(fd).(*eventFile)
	if !ok {
		return 0, k.stray(unix.EBADF)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.n == 0 {
		return 0, unix.EAGAIN
	}
	binary.NativeEndian.PutUint64(p, e.n)
	e.n = 0
	return 8, 0
}

func (k calls) Write(fd int, p []byte) (int, unix.Errno) {
	e, ok := k.file(fd).(*eventFile)
	if !ok {
		return 0, k.stray(unix.EBADF)
	}
	e.mu.Lock()
	e.n += binary.NativeEndian.Uint64(p)
	e.mu.Unlock()
	k.wakeAll()
	return 8, 0
}

// Interrupt is a signal to a thread, whose action does not restart calls. One that is in no RECV does not notice.
func (k calls) Interrupt(tid int) {
	k.smu.Lock()
	defer k.smu.Unlock()
	if c := k.inRecv[tid]; c != nil {
		close(c)
		delete(k.inRecv, tid)
	}
}

func (k calls) Ioctl(fd, req uintptr, arg unsafe.Pointer, _ [3]uintptr) (uintptr, unix.Errno) {
	k.sched()
	defer k.sched()
	l, ok := k.file(int(fd)).(listenerFile)
	if !ok {
		if int(fd) == -1 { // a closed listener's, which is never anybody's
			return 0, unix.EBADF
		}
		if k.file(int(fd)) == nil {
			return 0, k.stray(unix.EBADF)
		}
		return 0, k.stray(unix.ENOTTY)
	}
	if req != notify.IoctlRecv || *(*notify.Notif)(arg) != (notify.Notif{}) {
		if n, ok := kernel.Number(arg); ok && req == notify.IoctlSetFlags {
			return 0, l.f.SetFlags(uint64(n))
		}
		return l.f.Ioctl(req, arg)
	}
	tid := 0
	for {
		var signalled chan struct{}
		if tid != 0 {
			k.smu.Lock()
			signalled = make(chan struct{})
			k.inRecv[tid] = signalled
			k.smu.Unlock()
		}
		n, sleep, e := l.f.tryRecv()
		if sleep == nil {
			k.endRecv(tid)
			if e == 0 {
				*(*notify.Notif)(arg) = n
			}
			return 0, e
		}
		if tid == 0 {
			tid = osthread.Self()
			continue // a signal from now on is noticed
		}
		select {
		case <-sleep:
		case <-signalled:
			return 0, unix.EINTR
		}
		k.endRecv(tid)
		k.sched()
	}
}

func (k calls) endRecv(tid int) {
	k.smu.Lock()
	defer k.smu.Unlock()
	delete(k.inRecv, tid)
}
