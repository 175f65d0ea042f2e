package notifytest

import (
	"fmt"
	"sync"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// A Kernel has filters. Its methods, and theirs, may be called from any goroutine.
type Kernel struct {
	Profile Profile

	// Fault, if set, is asked before each ioctl, in the midst of it, and what it returns goes wrong instead if it is not 0: EINTR, since the caller was
	// signalled while the list was locked. It must not call the kernel.
	Fault func(op notify.Op) unix.Errno
	// Spend, if set, is told what each step costs; it is called with the filter locked, as the kernel's list is then, and may wait.
	Spend func(time.Duration)
	// Sched, if set, is called where a thread may lose its CPU, and may wait: one in [Thread.Syscall] that was woken, before each of
	// its two steps, to see why and to take the lock; under the tag fakekernel, those of the engine, too.
	Sched func()
	// PollBits, if set, may change what poll and epoll see at a listener, under the tag fakekernel: EPOLLERR alone is a caller that was signalled
	// while the list was locked.
	PollBits func(events int16) int16
	// CPUs, if set, are those that the thread may run on, 0 being any of the supervisor's. Unset: 0 and 1.
	CPUs func(tid int) []int
	// HasFD says whether the supervisor, from which ADDFD takes descriptors, has one of that number. Unset: those below 1024.
	HasFD func(fd uint32) bool
	// Result, if set, is told how each RECV, SEND, ID_VALID and answering ADDFD ended. It must not call the kernel.
	Result func(f *Filter, op notify.Op, id uint64, e unix.Errno)
	// Trace, if set, is told of each step that changed something. It must not call the kernel.
	Trace func(Event)

	mu   sync.Mutex
	tids int
	system
}

// New returns a kernel of that kind.
func New(p Profile) *Kernel { return &Kernel{Profile: p, tids: 1000} }

// An Event is a step of a notification.
type Event struct {
	Filter *Filter
	Thread *Thread
	ID     uint64
	What   What
	Resp   notify.Resp // of a Replied one
}

func (e Event) String() string {
	return fmt.Sprintf("thread %d, notification %d: %v", e.Thread.TID, e.ID, e.What)
}

// What a step does to a notification.
type What uint8

const (
	Trapped  What = iota // it is on the list, INIT
	Received             // RECV took it: SENT
	Replied              // SEND, or ADDFD with the answer: REPLIED
	Returned             // the target took its answer
	Restarts             // the target was signalled and calls again
	Broken               // the target was signalled and its call ended by EINTR
	Died                 // the target was killed
	Orphaned             // the listener was closed: ENOSYS
)

func (w What) String() string {
	return [...]string{"trapped", "received", "replied", "returned", "restarts", "broken off", "died", "orphaned"}[w]
}

// What steps cost. The slope is what was measured with thousands of notifications held: docs/decisions/24-fake-kernel.md.
const (
	costCall  = 300 * time.Nanosecond // an ioctl, its lock taken and given back
	costEntry = 10 * time.Nanosecond  // each notification that it walks past
)

// state is enum notify_state.
type state uint8

const (
	initial state = iota // SECCOMP_NOTIFY_INIT
	sent                 // SECCOMP_NOTIFY_SENT
	replied              // SECCOMP_NOTIFY_REPLIED
)

// A knotif is struct seccomp_knotif.
type knotif struct {
	id    uint64
	t     *Thread
	data  notify.Data
	state state
	resp  notify.Resp
	addfd []*kaddfd
}

// A kaddfd is struct seccomp_kaddfd.
type kaddfd struct {
	a    notify.AddFD
	fd   int
	err  unix.Errno
	done chan struct{}
}

// A Filter is a seccomp filter with a listener: it notifies of each call of its threads.
type Filter struct {
	k        *Kernel
	killable bool

	lock     lock // notify_lock: of all below
	list     []*knotif
	nextID   uint64
	requests int // notifif->requests: INIT notifications that no RECV was told of
	users    int
	flags    uint64
	closed   bool
	changed  chan struct{} // the wait queue: closed and made anew
	onChange func()        // of a carried listener
}

// A lock is a mutex for which goroutines of a synctest bubble wait durably.
type lock chan struct{}

func (l lock) Lock()   { l <- struct{}{} }
func (l lock) Unlock() { <-l }

// Install makes a filter with the given flags. It panics if the kernel does not know them: probe first, as with the real one.
func (k *Kernel) Install(flags notify.InstallFlags) *Filter {
	f, e := k.install(flags)
	if e != 0 {
		panic(fmt.Sprintf("notifytest: Linux %s does not know the flags %#x of a filter", k.Profile.Name, uint32(flags)))
	}
	return f
}

func (k *Kernel) install(flags notify.InstallFlags) (*Filter, unix.Errno) {
	if flags&notify.WaitKillableRecv != 0 && !k.Profile.WaitKillable {
		return nil, unix.EINVAL
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tids += 10 // so that ids of one filter are none of another's
	return &Filter{k: k, killable: flags&notify.WaitKillableRecv != 0, lock: make(lock, 1),
		nextID: uint64(k.tids) * 0x9e3779b97f4a7c15, changed: make(chan struct{})}, 0
}

func (k *Kernel) spend(walked int) {
	if k.Spend != nil {
		k.Spend(costCall + time.Duration(walked)*costEntry)
	}
}

func (k *Kernel) sched() {
	if k.Sched != nil {
		k.Sched()
	}
}

func (k *Kernel) has(fd uint32) bool {
	if k.HasFD == nil {
		return fd < numbers
	}
	return k.HasFD(fd)
}

func (k *Kernel) trace(n *knotif, what What) {
	if k.Trace != nil {
		k.Trace(Event{n.t.p.f, n.t, n.id, what, n.resp})
	}
}

// wake is wake_up_poll. The caller holds f.lock.
func (f *Filter) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
	if f.onChange != nil {
		f.onChange()
	}
}

// find is find_notification, and how many it walked past.
func (f *Filter) find(id uint64) (n *knotif, walked int) {
	for i, n := range f.list {
		if n.id == id {
			return n, i + 1
		}
	}
	return nil, len(f.list)
}

// fault asks what goes wrong. The caller holds f.lock.
func (f *Filter) fault(op notify.Op) unix.Errno {
	if f.k.Fault == nil {
		return 0
	}
	return f.k.Fault(op)
}

func (f *Filter) result(op notify.Op, id uint64, e unix.Errno) {
	if f.k.Result != nil {
		f.k.Result(f, op, id, e)
	}
}

// tryRecv is seccomp_notify_recv; where it would sleep it returns the channel to wait for.
func (f *Filter) tryRecv() (n notify.Notif, sleep <-chan struct{}, e unix.Errno) {
	f.lock.Lock()
	defer f.lock.Unlock()
	if e := f.fault(notify.OpRecv); e != 0 {
		return n, nil, e
	}
	switch {
	case f.closed:
		return n, nil, unix.EBADF
	case f.k.Profile.RecvEnds && f.users == 0:
	case f.requests > 0:
		f.requests--
	default:
		return n, f.changed, 0
	}
	walked := 0
	for _, cur := range f.list {
		walked++
		if cur.state != initial {
			continue
		}
		cur.state = sent
		n = notify.Notif{ID: cur.id, PID: uint32(cur.t.TID), Data: cur.data}
		f.k.spend(walked)
		f.k.trace(cur, Received)
		f.wake() // EPOLLOUT
		f.result(notify.OpRecv, n.ID, 0)
		return n, nil, 0
	}
	f.k.spend(walked)
	f.result(notify.OpRecv, 0, unix.ENOENT)
	return n, nil, unix.ENOENT
}

// TryRecv is SECCOMP_IOCTL_NOTIF_RECV, but for EAGAIN where that would sleep.
func (f *Filter) TryRecv() (notify.Notif, unix.Errno) {
	n, sleep, e := f.tryRecv()
	if sleep != nil {
		e = unix.EAGAIN
	}
	return n, e
}

// refuses is what an ioctl fails with before it looks at its argument. The caller holds f.lock.
func (f *Filter) refuses(op notify.Op) unix.Errno {
	if f.closed {
		return unix.EBADF
	}
	return f.fault(op)
}

// Send is SECCOMP_IOCTL_NOTIF_SEND.
func (f *Filter) Send(r notify.Resp) (e unix.Errno) {
	defer func() { f.result(notify.OpSend, r.ID, e) }()
	if r.Flags&^notify.RespContinue != 0 || r.Flags != 0 && !f.k.Profile.Continue {
		return unix.EINVAL
	}
	if r.Flags != 0 && (r.Error != 0 || r.Val != 0) {
		return unix.EINVAL
	}
	f.lock.Lock()
	defer f.lock.Unlock()
	if e := f.refuses(notify.OpSend); e != 0 {
		return e
	}
	n, walked := f.find(r.ID)
	f.k.spend(walked)
	switch {
	case n == nil:
		return unix.ENOENT
	case n.state != sent:
		return unix.EINPROGRESS
	}
	n.state, n.resp = replied, r
	f.k.trace(n, Replied)
	n.t.complete()
	return 0
}

// IDValid is SECCOMP_IOCTL_NOTIF_ID_VALID.
func (f *Filter) IDValid(id uint64) (e unix.Errno) {
	defer func() { f.result(notify.OpIDValid, id, e) }()
	f.lock.Lock()
	defer f.lock.Unlock()
	if e := f.refuses(notify.OpIDValid); e != 0 {
		return e
	}
	n, walked := f.find(id)
	f.k.spend(walked)
	if n == nil || n.state != sent {
		return unix.ENOENT
	}
	return 0
}

// AddFD is SECCOMP_IOCTL_NOTIF_ADDFD. It waits for the target to take the descriptor.
func (f *Filter) AddFD(a notify.AddFD) (fd int, e unix.Errno) {
	defer func() {
		if a.Flags&notify.AddFDSend != 0 {
			f.result(notify.OpAddFD, a.ID, e)
		}
	}()
	known := uint32(notify.AddFDSetFD)
	if f.k.Profile.AddFDSend {
		known |= notify.AddFDSend
	}
	if !f.k.Profile.AddFD || a.NewFDFlags&^unix.O_CLOEXEC != 0 || a.Flags&^known != 0 || a.NewFD != 0 && a.Flags&notify.AddFDSetFD == 0 {
		return -1, unix.EINVAL
	}
	f.lock.Lock()
	locked := true
	defer func() {
		if locked {
			f.lock.Unlock()
		}
	}()
	if f.closed {
		return -1, unix.EBADF
	}
	if !f.k.has(a.SrcFD) {
		return -1, unix.EBADF
	}
	if e := f.fault(notify.OpAddFD); e != 0 {
		return -1, e
	}
	n, walked := f.find(a.ID)
	f.k.spend(walked)
	switch {
	case n == nil:
		return -1, unix.ENOENT
	case n.state != sent:
		return -1, unix.EINPROGRESS
	case a.Flags&notify.AddFDSend != 0 && len(n.addfd) > 0:
		return -1, unix.EBUSY
	}
	if a.Flags&notify.AddFDSend != 0 {
		n.state, n.resp = replied, notify.Resp{ID: a.ID}
	}
	ka := &kaddfd{a: a, done: make(chan struct{})}
	n.addfd = append(n.addfd, ka)
	n.t.complete()
	f.lock.Unlock()
	locked = false
	<-ka.done
	return ka.fd, ka.err
}

// SetFlags is SECCOMP_IOCTL_NOTIF_SET_FLAGS, which takes its argument by value.
func (f *Filter) SetFlags(flags uint64) unix.Errno {
	if !f.k.Profile.SyncWakeUp || flags&^notify.SyncWakeUp != 0 {
		return unix.EINVAL
	}
	f.lock.Lock()
	defer f.lock.Unlock()
	if e := f.refuses(notify.OpSetFlags); e != 0 {
		return e
	}
	f.flags = flags
	return 0
}

// Poll is what poll(2) says of the listener: POLLIN, POLLOUT, POLLHUP. Its POLLERR, when the caller is signalled while
// the list is locked, is a matter of Fault.
func (f *Filter) Poll() (events int16) {
	f.lock.Lock()
	defer f.lock.Unlock()
	return f.poll()
}

func (f *Filter) poll() (events int16) {
	for _, n := range f.list {
		switch n.state {
		case initial:
			events |= unix.POLLIN
		case sent:
			events |= unix.POLLOUT
		}
	}
	if f.users == 0 && f.k.Profile.Hangup {
		events |= unix.POLLHUP
	}
	return events
}

// Flags are what SetFlags set.
func (f *Filter) Flags() uint64 {
	f.lock.Lock()
	defer f.lock.Unlock()
	return f.flags
}

// Outstanding is how many notifications there are, in any state.
func (f *Filter) Outstanding() int {
	f.lock.Lock()
	defer f.lock.Unlock()
	return len(f.list)
}

// Close is the end of the listener's last descriptor (seccomp_notify_detach): calls that wait, and later ones, end by ENOSYS.
func (f *Filter) Close() {
	f.lock.Lock()
	defer f.lock.Unlock()
	if f.closed {
		return
	}
	f.closed = true
	all := f.list
	f.list = nil
	for _, n := range all {
		if n.state != replied {
			n.state, n.resp = replied, notify.Resp{ID: n.id, Error: -int32(unix.ENOSYS)}
			f.k.trace(n, Orphaned)
			n.t.complete()
		}
	}
	f.wake()
}
