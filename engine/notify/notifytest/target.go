package notifytest

import (
	"fmt"
	"slices"
	"sync"
	"syscall"

	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// A Process is threads under a filter that share descriptors.
type Process struct {
	f       *Filter
	take    Taker
	threads []*Thread
	zombie  bool // its parent does not wait for it
}

// A Taker installs a copy of a descriptor in a thread's process, as ADDFD wants it, and returns its number, or what the kernel refuses it
// with: EMFILE, EBADF for a number beyond the limit, EPERM of a security module. It is called with the filter locked.
type Taker func(t *Thread, a notify.AddFD) (int, unix.Errno)

// numbers is how many descriptors a process may have, where nobody says.
const numbers = 1024

// Counting returns a Taker without files, for a process that may have descriptors below the limit: it gives the lowest number that is free, from 3
// on, or the one that is asked for.
func Counting(limit int) Taker {
	taken := map[int]bool{}
	return func(_ *Thread, a notify.AddFD) (int, unix.Errno) {
		fd := 3 // 0 to 2 are its own
		if a.Flags&notify.AddFDSetFD != 0 {
			if fd = int(a.NewFD); fd >= limit {
				return -1, unix.EBADF
			}
		} else {
			for taken[fd] {
				fd++
			}
			if fd >= limit {
				return -1, unix.EMFILE
			}
		}
		taken[fd] = true
		return fd, 0
	}
}

// Process returns a process under the filter, without a thread.
func (f *Filter) Process() *Process { return f.ProcessWith(Counting(numbers)) }

// ProcessWith is Process with descriptors of the caller's own.
func (f *Filter) ProcessWith(t Taker) *Process { return &Process{f: f, take: t} }

// Thread returns a thread of the process, which makes calls.
func (p *Process) Thread() *Thread {
	p.f.k.mu.Lock()
	p.f.k.tids++
	t := &Thread{TID: p.f.k.tids, p: p, woken: make(chan struct{}, 1)}
	p.f.k.mu.Unlock()
	p.f.lock.Lock()
	defer p.f.lock.Unlock()
	p.threads = append(p.threads, t)
	p.f.users++
	return t
}

// Filter is what the process is under.
func (p *Process) Filter() *Filter { return p.f }

// Unreaped has the process stay a zombie when it ends, until Reap.
func (p *Process) Unreaped() {
	p.f.lock.Lock()
	defer p.f.lock.Unlock()
	p.zombie = true
}

// Reap is its parent's wait(2).
func (p *Process) Reap() {
	p.f.lock.Lock()
	defer p.f.lock.Unlock()
	if !p.zombie {
		return
	}
	p.zombie = false
	if p.f.k.Profile.ExitReleases {
		return
	}
	for _, t := range p.threads {
		if t.dead {
			p.f.released()
		}
	}
}

// released is seccomp_filter_release of a thread.
func (f *Filter) released() {
	if f.users--; f.users == 0 {
		f.wake() // EPOLLHUP
	}
}

// Kill is SIGKILL: all threads end, as soon as they run.
func (p *Process) Kill() {
	p.f.lock.Lock()
	defer p.f.lock.Unlock()
	for _, t := range p.threads {
		if t.n == nil {
			t.exit()
		}
		t.interrupt(fatal)
	}
}

// Dead reports whether all its threads have ended.
func (p *Process) Dead() bool {
	p.f.lock.Lock()
	defer p.f.lock.Unlock()
	for _, t := range p.threads {
		if !t.dead {
			return false
		}
	}
	return true
}

// Exit is the end of all threads, none of which may be at a call.
func (p *Process) Exit() { p.Kill() }

// signals, the strongest last.
type signalKind uint8

const (
	none signalKind = iota
	restarting
	breaking
	fatal
)

// A Thread makes calls, one at a time. Its TID does not change.
type Thread struct {
	TID int

	p     *Process
	n     *knotif       // its call that waits; nil: none
	end   chan struct{} // closed at its end
	last  Result
	tries int
	dead  bool
	held  bool
	woken chan struct{} // of who is in Syscall

	// What it sleeps by: n.ready, and signals. Guarded by mu, which is taken within f.lock or without.
	mu       sync.Mutex
	done     int // of the completion
	signal   signalKind
	killable bool // it sleeps so
	why      cause
	active   bool // somebody is in Syscall
}

// A cause is what took a thread out of its sleep.
type cause uint8

const (
	asleep cause = iota
	completed
	signalled
)

// A Result is how a call ended for its thread.
type Result struct {
	Val   int64         // the value returned, if Errno is 0
	Errno syscall.Errno // or the error
	// Continued says that the kernel is to run the call.
	Continued bool
	// Interrupted and Died say that the call ended without an answer: by a signal, with EINTR, or by the thread's end.
	Interrupted, Died bool
	// Tries is how many times the call was notified.
	Tries int
	// ID is the notification's, the last one's.
	ID uint64
}

// String says how it ended, as strace would.
func (r Result) String() string {
	switch {
	case r.Died:
		return "died"
	case r.Continued:
		return "continued"
	case r.Errno != 0:
		return "-1 " + unix.ErrnoName(r.Errno)
	}
	return fmt.Sprint(r.Val)
}

// Start makes a call and returns when it is notified: the thread goes on by itself from then on, as soon as an ioctl or a signal wakes it. It
// panics if the thread is at a call already, or dead.
func (t *Thread) Start(d notify.Data) { t.start(d, false) }

func (t *Thread) start(d notify.Data, active bool) (end <-chan struct{}) {
	f := t.p.f
	f.lock.Lock()
	defer f.lock.Unlock()
	if t.dead && active {
		return nil
	}
	if t.dead || t.n != nil {
		panic(fmt.Sprintf("notifytest: system call %d of thread %d, which is dead or at another call", d.NR, t.TID))
	}
	t.end, t.tries, t.active = make(chan struct{}), 0, active
	t.enter(d)
	return t.end
}

// enter is the beginning of seccomp_do_user_notification. The caller holds f.lock.
func (t *Thread) enter(d notify.Data) {
	f := t.p.f
	f.nextID++
	t.tries++
	n := &knotif{id: f.nextID, t: t, data: d}
	t.mu.Lock()
	t.done, t.signal, t.killable, t.why = 0, none, false, asleep
	t.mu.Unlock()
	t.n = n
	if f.closed {
		n.state, n.resp = replied, notify.Resp{Error: -int32(unix.ENOSYS)}
		t.leave(completed)
		return
	}
	at := 0
	if f.k.Profile.OldestFirst {
		at = len(f.list)
	}
	f.list = slices.Insert(f.list, at, n)
	f.requests++
	f.k.spend(0)
	f.k.trace(n, Trapped)
	f.wake() // EPOLLIN
}

// Wait waits for the end of the call that Start began, and returns how it ended.
func (t *Thread) Wait() Result {
	t.p.f.lock.Lock()
	end := t.end
	t.p.f.lock.Unlock()
	if end == nil {
		panic(fmt.Sprintf("notifytest: thread %d has made no call", t.TID))
	}
	<-end
	t.p.f.lock.Lock()
	defer t.p.f.lock.Unlock()
	return t.last
}

// Over is Wait if the call is over.
func (t *Thread) Over() (r Result, over bool) {
	t.p.f.lock.Lock()
	defer t.p.f.lock.Unlock()
	return t.last, t.end != nil && t.n == nil
}

// Waiting is the id of the notification that the thread waits in, if it does.
func (t *Thread) Waiting() (id uint64, waits bool) {
	t.p.f.lock.Lock()
	defer t.p.f.lock.Unlock()
	if t.n == nil {
		return 0, false
	}
	return t.n.id, true
}

// Syscall makes a call and returns how it ended, as a thread does that has a CPU of its own: between what wakes it and what it does
// then, time passes ([Kernel.Sched]), in which others find its notification as it was. A dead thread's calls end as Died.
func (t *Thread) Syscall(d notify.Data) Result {
	f := t.p.f
	end := t.start(d, true)
	if end == nil {
		return Result{Died: true}
	}
	for {
		select {
		case <-end:
			f.lock.Lock()
			defer f.lock.Unlock()
			return t.last
		case <-t.woken:
		}
		f.k.sched()
		t.wakeUp()
		f.k.sched()
		f.lock.Lock()
		t.goOn()
		f.lock.Unlock()
	}
}

// Signal has a signal come to the thread. If its handler was installed to restart calls (SA_RESTART), one that is
// interrupted comes again by another id; else it ends by EINTR. A thread that is at no call does not mind.
func (t *Thread) Signal(restart bool) {
	kind := breaking
	if restart {
		kind = restarting
	}
	t.p.f.lock.Lock()
	defer t.p.f.lock.Unlock()
	t.interrupt(kind)
}

// interrupt is signal_wake_up. The caller holds f.lock, which the kernel does not; who waits for the lock sees no difference.
func (t *Thread) interrupt(kind signalKind) {
	if t.n == nil {
		return
	}
	t.mu.Lock()
	t.signal = max(t.signal, kind)
	wakes := kind == fatal || !t.killable
	t.mu.Unlock()
	if wakes {
		t.wake()
	}
}

// complete is complete(&n.ready). The caller holds f.lock.
func (t *Thread) complete() {
	t.mu.Lock()
	t.done++
	t.mu.Unlock()
	t.wake()
}

func (t *Thread) wake() {
	switch {
	case t.active:
		select {
		case t.woken <- struct{}{}:
		default:
		}
	case !t.held:
		t.wakeUp()
		t.goOn()
	}
}

// Hold keeps a thread of Start's from running, until Run, while it is woken: its notification stays where it is, as while it waits for a CPU.
func (t *Thread) Hold() {
	t.p.f.lock.Lock()
	defer t.p.f.lock.Unlock()
	t.held = true
}

// WakeUp is the first step of a held thread that something woke: it sees whether that was an answer or a signal. An answer that
// comes between this and Run is lost, if it was a signal.
func (t *Thread) WakeUp() { t.wakeUp() }

// Run has a held thread run, and ends Hold.
func (t *Thread) Run() {
	t.wakeUp()
	t.p.f.lock.Lock()
	defer t.p.f.lock.Unlock()
	t.held = false
	t.goOn()
	if t.n != nil && t.why == asleep {
		t.wakeUp()
		t.goOn()
	}
}

// wakeUp is the end of wait_for_completion_interruptible or _killable.
func (t *Thread) wakeUp() {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.why != asleep:
	case t.done > 0: // first: then no signal counts
		t.done--
		t.why = completed
	case t.signal == fatal, t.signal != none && !t.killable:
		t.why = signalled
	}
}

// goOn is what comes after it: the loop of seccomp_do_user_notification. The caller holds f.lock.
func (t *Thread) goOn() {
	for t.n != nil {
		n, f := t.n, t.p.f
		t.mu.Lock()
		why := t.why
		t.why = asleep
		if why == signalled && !t.killable && f.killable && (n.state == sent || n.state == replied && f.k.Profile.KillableReplied) {
			t.killable = true // should_sleep_killable
			if why = asleep; n.state == replied {
				why = completed
			}
		}
		t.mu.Unlock()
		if why == signalled {
			t.leave(signalled)
			return
		}
		if why == completed && len(n.addfd) > 0 {
			ka := n.addfd[0]
			n.addfd = n.addfd[1:]
			t.handleAddFD(n, ka)
		}
		if why == completed && n.state == replied {
			t.leave(completed)
			return
		}
		if why == asleep && !t.killable {
			return
		}
		if t.wakeUp(); t.why == asleep {
			return
		}
	}
}

// handleAddFD is seccomp_handle_addfd.
func (t *Thread) handleAddFD(n *knotif, ka *kaddfd) {
	ka.fd, ka.err = t.p.take(t, ka.a)
	if ka.a.Flags&notify.AddFDSend != 0 {
		if ka.err != 0 { // the answer is taken back
			n.state = sent
		} else {
			n.resp = notify.Resp{ID: n.id, Val: int64(ka.fd)}
			t.p.f.k.trace(n, Replied)
		}
	}
	close(ka.done)
}

// leave takes the notification off the list, with an answer or without. The caller holds f.lock.
func (t *Thread) leave(why cause) {
	n, f := t.n, t.p.f
	for _, ka := range n.addfd {
		ka.fd, ka.err = -1, unix.ESRCH
		close(ka.done)
	}
	f.list = slices.DeleteFunc(f.list, func(o *knotif) bool { return o == n })
	t.n = nil
	t.mu.Lock()
	signal := t.signal
	t.mu.Unlock()
	r := Result{Tries: t.tries, ID: n.id}
	switch {
	case why == completed:
		r.Continued = n.resp.Flags&notify.RespContinue != 0
		if n.resp.Error != 0 {
			r.Errno = syscall.Errno(-n.resp.Error)
		} else {
			r.Val = n.resp.Val
		}
		f.k.trace(n, Returned)
	case signal == fatal:
		r.Died = true
		f.k.trace(n, Died)
	case signal == restarting:
		f.k.trace(n, Restarts)
		t.changed()
		t.enter(n.data)
		return
	default:
		r.Interrupted, r.Errno = true, unix.EINTR
		f.k.trace(n, Broken)
	}
	if signal == fatal {
		r.Died = true // also where it had its answer: it never saw it
		t.exit()
	}
	t.last = r
	t.changed()
	close(t.end)
}

// changed tells a carried listener that the list is another one: a real one finds out when it looks. The caller holds f.lock.
func (t *Thread) changed() {
	if f := t.p.f; f.onChange != nil {
		f.onChange()
	}
}

// exit is do_exit. The caller holds f.lock.
func (t *Thread) exit() {
	if t.dead {
		return
	}
	t.dead = true
	if t.p.f.k.Profile.ExitReleases || !t.p.zombie {
		t.p.f.released()
	}
}
