package main

import (
	"os"
	"os/signal"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/unknot/unknot/cmd/unknot/internal/early"
	"github.com/unknot/unknot/engine/launch"
	"golang.org/x/sys/unix"
)

// A front stands for the command towards whoever started it: a signal that we
// are sent reaches the command exactly once, and a stop of the command stops us.
//
// Whether a signal was meant for us alone, or has reached the command as well,
// siginfo does not say. The command's guard does: a process that is in the
// command's process group and cgroup. What the guard got too went to all. The
// kernel signals the newest member of a group first, so for a group the guard
// has it before us; whoever signals a cgroup takes one process after the other,
// which is what grace is for.
type front struct {
	started launch.Inherited

	// taking is held while a signal goes from the kernel to queue: not across a stop
	// of ours, after which nobody would know when it came.
	taking sync.Mutex

	mu       sync.Mutex
	phase    phase
	queue    []*arrival
	looking  *arrival                // it has left the queue, and is not passed on yet
	more     chan struct{}           // capacity 1: queue has grown
	saws     []saw                   // those that we have not got yet
	stopped  bool                    // the command is
	went     bool                    // the guard was sent a SIGCONT since the command's last stop or start
	asked    map[syscall.Signal]bool // to end: signals that were sent while the command ran
	p        *launch.Process
	hurry    chan struct{} // closed by a signal that ends the wait for descendants
	hurrying bool
}

type phase uint8

const (
	preparing phase = iota // nothing has been started: a signal means us
	running                // there is a command, or will be
	resting                // the command is over: we wait for what it left
)

// grace is how long after us the guard may still get a signal that was sent to
// each process of a cgroup; memory is how long what it got is remembered.
const (
	grace  = 25 * time.Millisecond
	memory = 250 * time.Millisecond
)

// An arrival is a signal that we were sent.
type arrival struct {
	sent
	at      time.Time
	known   bool // the guard was sent it too
	reached bool // and so was the command
}

// match notes that the guard was sent the signal too. A command that has left the
// group misses what is sent to the group, but not what a service manager sends to
// each process.
func (a *arrival) match(inGroup bool) {
	a.known = true
	a.reached = inGroup || a.code == siUser && a.pid == 1
}

// A saw is a signal that the guard was sent.
type saw struct {
	sig     syscall.Signal
	inGroup bool
	at      time.Time
}

func newFront() *front {
	return &front{started: launch.Started(), more: make(chan struct{}, 1), asked: map[syscall.Signal]bool{}, hurry: make(chan struct{})}
}

// listen begins to take signals. Where they have not been blocked since the
// start, which takes cgo, the Go runtime hands over what it can.
func (f *front) listen() error {
	// A closed pipe on standard error must not end the supervisor; for the command
	// it is as it was.
	signal.Ignore(unix.SIGPIPE)
	// Faults are ours, but what a person sends is for the command.
	faults := []os.Signal{unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGSTKFLT}
	if early.Blocked() == 0 {
		faults = append(faults, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGTERM, unix.SIGALRM, unix.SIGWINCH, unix.SIGCONT)
	}
	c := make(chan os.Signal, 64)
	signal.Notify(c, faults...)
	go func() {
		for s := range c {
			f.got(sent{sig: s.(syscall.Signal), code: siUser})
		}
	}()
	if early.Blocked() == 0 {
		return nil
	}
	return readSignals(f.got, &f.taking)
}

// si_code of include/uapi/asm-generic/siginfo.h.
const (
	siUser   = 0
	siQueue  = -1
	siKernel = 0x80
)

var (
	// limits are signals by which the kernel tells a process of its own limits.
	limits = []syscall.Signal{unix.SIGXCPU, unix.SIGXFSZ}
	// stops are signals that stop a process and can be caught.
	stops = []syscall.Signal{unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU}
	// harmless are signals that do nothing by default.
	harmless = []syscall.Signal{unix.SIGCHLD, unix.SIGURG, unix.SIGWINCH, unix.SIGCONT}
	// endings are signals that ask a program to end.
	endings = []syscall.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM}
)

// got takes a signal that this process was sent.
func (f *front) got(s sent) {
	switch {
	case s.code == siUser && s.pid == os.Getpid():
		return // by a write of ours, to a closed pipe or past a limit
	case s.code == siKernel && slices.Contains(limits, s.sig):
		return // our limit, not the command's
	case s.sig == unix.SIGCONT && f.guard() == s.pid && s.pid != 0:
		return // see continued
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch f.phase {
	case preparing:
		switch {
		case f.started.Blocks(s.sig): // it waits for the command
			f.put(s)
		case f.started.Ignores(s.sig), slices.Contains(harmless, s.sig):
		case slices.Contains(stops, s.sig):
			f.mu.Unlock()
			stopBy(s.sig, func() bool { return true })
			f.mu.Lock()
		default:
			endBy(s.sig)
		}
	case running:
		f.put(s)
	case resting:
		if slices.Contains(endings, s.sig) && !f.started.Ignores(s.sig) {
			f.end()
		}
	}
}

func (f *front) guard() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.p == nil {
		return 0
	}
	return f.p.Guard()
}

func (f *front) put(s sent) {
	a := &arrival{sent: s, at: time.Now()}
	f.saws = slices.DeleteFunc(f.saws, func(s saw) bool { return a.at.Sub(s.at) > memory })
	if i := slices.IndexFunc(f.saws, func(s saw) bool { return s.sig == a.sig }); i >= 0 {
		a.match(f.saws[i].inGroup)
		f.saws = slices.Delete(f.saws, i, i+1)
	}
	f.queue = append(f.queue, a)
	select {
	case f.more <- struct{}{}:
	default:
	}
}

// end ends the wait for descendants.
func (f *front) end() {
	if !f.hurrying {
		f.hurrying = true
		close(f.hurry)
	}
}

// launching has all later signals go to the command.
func (f *front) launching() { f.enter(running) }

func (f *front) enter(p phase) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.phase = p
}

// event is told what happens to the command and its guard.
func (f *front) event(e launch.Event) {
	switch e.Kind {
	case launch.Saw:
		f.mu.Lock()
		f.saw(e.Signal, e.InGroup)
		f.mu.Unlock()
	case launch.Continued:
		f.continued(false)
	case launch.Stopped:
		f.continued(true)
		// A stop by SIGSTOP was meant for the command alone: its descendants go on,
		// and so do we.
		if slices.Contains(stops, e.Signal) && os.Getpid() != 1 {
			go func() {
				f.taking.Lock()
				defer f.taking.Unlock()
				stopBy(e.Signal, f.isStopped)
			}()
		}
	}
}

// saw notes that the guard got a signal. Sent twice before the guard has looked, a
// signal is one to it, as may be to the command: all that we have got is in that one.
// Only real-time signals queue. A guard that we are behind is asked for by put.
func (f *front) saw(sig syscall.Signal, inGroup bool) {
	if sig == unix.SIGCONT {
		f.went = true
	}
	const realTime = 32
	ours := f.queue
	if f.looking != nil {
		ours = append([]*arrival{f.looking}, ours...)
	}
	found := false
	for _, a := range ours {
		if a.sig == sig && !a.known {
			a.match(inGroup)
			if found = true; sig >= realTime {
				break
			}
		}
	}
	if !found || sig < realTime && f.coming(sig) {
		f.saws = append(f.saws, saw{sig, inGroup, time.Now()})
	}
}

// coming reports whether sig is on its way from the kernel to the queue.
func (f *front) coming(sig syscall.Signal) bool {
	if !f.taking.TryLock() {
		return true // it may be
	}
	defer f.taking.Unlock()
	return waits(sig)
}

// continued is told that the command goes on, or that it has stopped again, before
// which it went on if it was stopped. The guard may not have seen the SIGCONT for
// that: the kernel drops one that waits when a stop is sent.
func (f *front) continued(stopped bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if (f.stopped || !stopped) && !f.went {
		f.saw(unix.SIGCONT, true)
	}
	f.stopped, f.went = stopped, false
}

// isStopped reports whether the command is stopped now, and not only was.
func (f *front) isStopped() bool {
	f.mu.Lock()
	p := f.p
	f.mu.Unlock()
	if p != nil { // else it has just been started
		p.Sync()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stopped
}

// serve passes signals on to the command until it has ended.
func (f *front) serve(p *launch.Process) {
	f.mu.Lock()
	f.p = p
	f.mu.Unlock()
	for {
		select {
		case <-p.Ended():
			return
		case <-f.more:
		}
		for a, ok := f.next(); ok; a, ok = f.next() {
			f.pass(p, a)
		}
	}
}

// next takes the oldest signal from the queue.
func (f *front) next() (a *arrival, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.queue) == 0 {
		return nil, false
	}
	f.looking = f.queue[0]
	f.queue = f.queue[1:]
	f.asked[f.looking.sig] = true
	return f.looking, true
}

// pass passes a signal on unless it has reached the command by itself.
func (f *front) pass(p *launch.Process, a *arrival) {
	p.Sync()
	if !f.known(a) {
		select {
		case <-time.After(time.Until(a.at.Add(grace))):
		case <-p.Ended():
		}
		p.Sync()
	}
	if f.reached(a) {
		return
	}
	if a.code == siQueue {
		_ = p.Queue(a.sig, a.value)
	} else {
		_ = p.Signal(a.sig)
	}
}

func (f *front) known(a *arrival) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return a.known
}

// reached reports whether the signal is not to be passed on: it has reached the
// command, or would have been dropped there.
func (f *front) reached(a *arrival) bool {
	f.taking.Lock() // so that a signal is in the kernel, or in the queue
	defer f.taking.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looking = nil
	return a.reached || !a.known && f.undone(a)
}

// undone reports whether a is a stop that a SIGCONT came after, or a SIGCONT that a
// stop came after. Sending one has the kernel drop the other where it still waits: at
// the guard and the command too, which may not have seen a for that.
func (f *front) undone(a *arrival) bool {
	var by []syscall.Signal
	switch {
	case a.sig == unix.SIGCONT:
		by = stops
	case slices.Contains(stops, a.sig):
		by = []syscall.Signal{unix.SIGCONT}
	}
	return slices.ContainsFunc(by, func(s syscall.Signal) bool {
		return waits(s) || slices.ContainsFunc(f.queue, func(b *arrival) bool { return b.sig == s })
	})
}

// over is told how the command ended, and reports whether its descendants are
// to be waited for: not if a signal that we were sent has ended it.
func (f *front) over(ws syscall.WaitStatus) (wait bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.phase = resting
	ended := func(sig syscall.Signal) bool {
		return ws.Signaled() && ws.Signal() == sig || ws.Exited() && ws.ExitStatus() == 128+int(sig)
	}
	for _, a := range f.queue { // came too late for the command
		f.asked[a.sig] = true
	}
	for _, sig := range endings {
		if f.asked[sig] && (ended(sig) || sig != unix.SIGHUP && f.justAsked(sig)) {
			f.end()
		}
	}
	return !f.hurrying
}

// justAsked reports whether sig is among what was sent too late to be passed on.
func (f *front) justAsked(sig syscall.Signal) bool {
	return slices.ContainsFunc(f.queue, func(a *arrival) bool { return a.sig == sig })
}

// endBy ends this process by sig as the command would have been.
func endBy(sig syscall.Signal) {
	dieBy(sig)
	os.Exit(128 + int(sig)) // PID 1 of a namespace does not die of it
}

// reapOrphans collects what the kernel gives to PID 1 of a pid namespace.
func reapOrphans() {
	if os.Getpid() != 1 {
		return
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGCHLD)
	go func() {
		for range c {
			for {
				var ws syscall.WaitStatus
				if pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil); err != unix.EINTR && pid <= 0 {
					break
				}
			}
		}
	}()
}

// reserveThreads has the Go runtime make the threads that it may come to need,
// and keep them: later, at a limit of processes, it would end with a long dump
// while the command runs.
func reserveThreads(n int) {
	var all, leave sync.WaitGroup
	all.Add(n)
	leave.Add(1)
	for range n {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			all.Done()
			leave.Wait()
		}()
	}
	all.Wait()
	leave.Done()
}
