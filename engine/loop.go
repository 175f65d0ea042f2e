package engine

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/unknot/unknot/engine/internal/placement"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/policy"
	"github.com/unknot/unknot/internal/kernel"
	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

// A loop is the receive thread's own state.
type loop struct {
	rx     *receiver
	t      *tally
	inline *worker
	direct bool // RECV may block: a signal can interrupt it

	table    *[]*Source // receiver.listeners as last seen
	lone     *Source    // the only one of them, or nil
	timers   []*Source  // those with calls held or aging
	seen     uint32     // door.knocks as last acted upon
	last     int64      // when the last call was received
	streak   int        // how many came in a row within streakGap
	slice    timeSlice
	senses   bool // somebody wants to know how many targets call
	sense    sense
	length   duration
	handsOff int64 // until when it does not wait for the lone worker

	polled []unix.PollFd
	polls  []*Source // polled[i] is polls[i]'s
}

// wakeIndex marks the eventfd among the epoll events; listeners have their
// index in the registry's table.
const wakeIndex = -1

const (
	// An only listener whose calls come closer together than streakGap, busyStreak in a row, is
	// received from directly; see receiveDirectly.
	streakGap  = int64(time.Millisecond)
	busyStreak = 16
	// timerBatch bounds the answers to held calls between two RECVs, so that
	// the loop is not starved by its own answers.
	timerBatch = 32
	// maskWindow calls of a listener make one whose target's CPU mask is looked at.
	maskWindow = 64
)

// errReceiverGone is what Run returns when an inline handler ended the receive
// thread by runtime.Goexit.
var errReceiverGone = errors.New("engine: the handler ended the receive thread (runtime.Goexit)")

func newLoop(rx *receiver) *loop {
	return &loop{rx: rx, t: &rx.tallies[0], inline: rx.crew.all()[0],
		senses: rx.e.cfg.RaisePriority || !rx.e.cfg.Inline || rx.e.cfg.WakeUp == AutoWakeUp}
}

// run is the receive thread, set up.
func (l *loop) run() error {
	rx := l.rx
	defer l.answerHeld()
	var events [16]unix.EpollEvent
	for {
		deadline, timed := l.runTimers()
		if src := l.only(); src != nil && !timed && l.streak >= busyStreak {
			l.receiveDirectly(src)
			deadline, timed = l.runTimers()
		}
		if l.pauses() {
			if l.poll(deadline, timed) {
				return nil
			}
			continue
		}
		n, err := kernel.EpollWait(rx.epfd, events[:], timeout(deadline, timed))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return errorf("wait for notifications: %w", err)
		}
		woken, gone := false, 0
		for i := range events[:n] {
			ev := &events[i]
			if ev.Fd == wakeIndex {
				woken = true
				continue
			}
			if rx.e.life.halted.Load() {
				continue // an inline handler ended after the stop had given it up
			}
			src := rx.e.registry.at(int(ev.Fd))
			if src == nil || src.gone.Load() || src.owner.Load() != rx {
				gone++
				continue
			}
			l.ready(src, ev.Events&unix.EPOLLIN != 0, ev.Events&unix.EPOLLHUP != 0)
		}
		if gone == n && n > 0 {
			kernel.Yield() // let the controller take them off epoll
		}
		if woken && l.woken() {
			return nil
		}
	}
}

// timeout is what is left until the deadline, in epoll_wait's whole ms, rounded up.
func timeout(deadline int64, timed bool) int {
	if !timed {
		return -1
	}
	return int((max(deadline-now(), 0) + int64(time.Millisecond) - 1) / int64(time.Millisecond))
}

// ready acts on a readiness: one RECV, because with one reader readable
// promises that one does not block, and level triggering brings the rest back
// in turn, which keeps the listeners' turns fair.
func (l *loop) ready(src *Source, in, hup bool) {
	switch {
	case in:
		src.rx.dry = false
		l.receive(src, false)
	case hup:
		// No target is left. The controller removes the listener, because a
		// confined thread may not call epoll_ctl.
		select {
		case l.rx.e.control.hangups <- src:
			src.gone.Store(true)
			l.rx.e.registry.hungUp.Add(1)
		default: // the controller is busy; the event comes again
		}
	}
	// An error alone is spurious: the kernel's lock was interrupted.
}

// receiveDirectly receives from an only listener, a busy one, by blocking RECV without epoll. Every epoll_wait walks
// the kernel's list of notifications until it has seen both a waiting and an
// answered one, which with hundreds outstanding costs more than RECV itself:
// docs/decisions/20-adaptivity.md.
//
// It comes back when somebody interrupts, as the controller does when no calls come; when
// calls are held (RECV has no timeout); and when RECV says that a target is
// gone: only epoll tells whether it was the last.
func (l *loop) receiveDirectly(src *Source) {
	rx := l.rx
	rx.observed.direct.Store(true)
	rx.e.control.reconcile() // for somebody to look whether calls still come
	for l.receive(src, true) {
		if !src.inline && (src.rx.timed || src.pause.on()) {
			break
		}
	}
	rx.observed.direct.Store(false)
	l.streak = 0
}

// only returns the receiver's only listener, if there is just one and RECV may block.
func (l *loop) only() *Source {
	if t := l.rx.listeners.Load(); t != l.table {
		l.table, l.lone = t, nil
		if len(*t) == 1 {
			l.lone = (*t)[0]
		}
	}
	if !l.direct || l.lone == nil || !l.lone.receivable() || l.lone.pause.on() {
		return nil
	}
	return l.lone
}

// pauses reports whether a listener is not to be received from now.
func (l *loop) pauses() bool {
	if l.rx.e.cfg.Inline || l.rx.e.cfg.Policy != policy.Block && len(l.timers) == 0 {
		return false
	}
	for _, s := range *l.rx.listeners.Load() {
		if s.pause.on() {
			return true
		}
	}
	return false
}

// poll waits like epoll, but not for listeners that are paused: on level-triggered epoll
// they would be ready all the time, and a confined thread may not
// change what epoll watches. It reports whether to stop.
func (l *loop) poll(deadline int64, timed bool) (stop bool) {
	l.polled, l.polls = l.polled[:0], l.polls[:0]
	l.polled = append(l.polled, unix.PollFd{Fd: int32(l.rx.door.wakefd), Events: unix.POLLIN})
	l.polls = append(l.polls, nil)
	for _, s := range *l.rx.listeners.Load() {
		if !s.receivable() {
			continue
		}
		fd := unix.PollFd{Fd: int32(s.l.FD()), Events: unix.POLLIN}
		if s.pause.on() {
			fd.Events = 0 // the end of its targets is still reported
		}
		l.polled = append(l.polled, fd)
		l.polls = append(l.polls, s)
	}
	var ts *unix.Timespec
	if timed {
		t := unix.NsecToTimespec(max(deadline-now(), 0))
		ts = &t
	}
	if n, err := kernel.Ppoll(l.polled, ts); err != nil || n == 0 {
		return false // EINTR, or the time is up
	}
	for i, src := range l.polls {
		if ev := l.polled[i].Revents; src != nil && !l.rx.e.life.halted.Load() {
			l.ready(src, ev&unix.POLLIN != 0, ev&unix.POLLHUP != 0)
		}
	}
	// Last, as it tells those who take a listener out that we are done with what we saw.
	return l.polled[0].Revents != 0 && l.woken()
}

// setUp makes this thread the receive thread.
func (l *loop) setUp() error {
	rx := l.rx
	c := &rx.e.cfg
	_ = osthread.SetName("unknot-receive") // for ps; nothing depends on it
	if cpu := rx.seat.cpu; cpu != placement.Anywhere {
		switch err := osthread.Pin(cpu); {
		case err == nil:
		case c.CPU > 0:
			return errorf("%w", err)
		default:
			c.Logger.Warn("receive thread is not pinned", "err", err)
			rx.seat.cpu, rx.seat.why = placement.Anywhere, err.Error()
			rx.door.cpu.Store(placement.Anywhere)
		}
	}
	rx.door.tid.Store(int32(osthread.Self()))
	c.Logger.Debug("receive thread", "receiver", rx.index, "cpu", rx.seat.cpu, "why", rx.seat.why)
	var sig syscall.Signal
	if c.Interrupt != NoInterrupt {
		if err := osthread.AllowInterrupt(c.Interrupt); err != nil {
			c.Logger.Info("the receive thread always waits in epoll", "err", err)
		} else {
			l.direct, sig = true, c.Interrupt
			osthread.Unblock(sig) // who started this process may have blocked it
		}
	}
	if c.ThreadHook != nil {
		th := Thread{Epoll: rx.epfd, Wake: rx.door.wakefd, Signal: sig}
		for _, s := range *rx.listeners.Load() {
			th.Listeners = append(th.Listeners, s.l.FD())
		}
		if err := c.ThreadHook(th); err != nil {
			return errorf("receive thread hook: %w", err)
		}
	}
	return nil
}

// woken answers those who set a barrier and reports whether to stop.
func (l *loop) woken() bool {
	d := &l.rx.door
	// First, so that a knock that comes while we are at it wakes us again.
	l.seen = d.knocks.Load()
	d.seen.Store(l.seen)
	d.notified.Store(false)
	var b [8]byte
	_, _ = kernel.Read(d.wakefd, b[:]) // EAGAIN: somebody else's wake came between
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.barriers {
		if t.closeFD != noFD {
			_ = kernel.Close(t.closeFD) // private: its number here is nobody else's
		}
		if t.forget != nil {
			l.forget(t.forget)
		}
		close(t.done)
	}
	d.barriers = nil
	return d.stopping
}

// receive makes one RECV, which may block if so said, and sees to what it
// brought. It reports whether the listener may have more.
func (l *loop) receive(src *Source, block bool) bool {
	rx, s := l.rx, &src.rx
	r := &l.inline.req
	n := &r.notif
	var c *cell
	if !src.inline {
		for !s.hasCell {
			if s.hasCell = src.slab.Take(s.cell[:]) == 1; !s.hasCell {
				kernel.Yield() // a worker is between taking a handle and giving its cell back
			}
		}
		c = src.slab.At(s.cell[0])
		n = &c.notif
	}
	var err error
	if block {
		// Announced before the look at knocks: whoever knocks after that look
		// sees it, and signals until we are out.
		rx.door.inRecv.Store(true)
		if rx.door.knocks.Load() != l.seen {
			rx.door.inRecv.Store(false)
			return false
		}
		err = src.l.Recv(n)
		rx.door.inRecv.Store(false)
	} else {
		err = src.l.RecvReady(n) // the only reader, and epoll said readable
	}
	if err != nil {
		l.recvFailed(src, err)
		return false
	}
	at := now()
	var stats *syscallEntry
	if rx.e.syscalls != nil {
		stats = rx.e.syscalls.received(&n.Data)
	}
	if c == nil {
		r.src, r.receivedAt, r.stats = src, at, stats
		l.received(src, n, at)
		// Received is dispatched here, and fresh: no need to ask whether it is alive.
		l.inline.serve(false, at)
		if rx.e.cfg.RaisePriority {
			l.inline.took(r.answeredFrom - at)
			l.inline.taken++
		}
		return true
	}
	c.receivedAt, c.stats = at, stats
	l.received(src, n, at)
	if src.inliner != nil && src.inliner.Inlines(src, &n.Data) {
		r.notif, r.src, r.receivedAt, r.stats = *n, src, at, stats // the cell is for the next one
		l.inline.serve(false, at)
		return true
	}
	l.admit(src, c)
	l.handOff(src, at)
	return true
}

// received counts a call and observes the load.
func (l *loop) received(src *Source, n *notify.Notif, at int64) {
	calls := src.received.Add(1)
	l.t.received.Add(1)
	if at-l.last < streakGap {
		l.streak++
	} else {
		l.streak = 0
	}
	l.last = at
	l.slice.end(at)
	if calls%maskWindow == 0 && src.caller.Swap(n.PID) == 0 && n.PID != 0 {
		l.rx.e.control.reconcile() // for somebody to look at its CPU mask
	}
	if l.senses {
		l.observe(n.PID, at)
	}
}

// observe follows how many targets call, how fast, and what handlers take, and asks the controller when
// that is in another band. It publishes each window, for the controller to know how old it is.
func (l *loop) observe(tid uint32, at int64) {
	o := &l.rx.observed
	full := l.sense.count(tid, at)
	if full {
		changed := o.bands.Swap(l.sense.bands) != l.sense.bands
		o.at.Store(at)
		if changed {
			l.rx.e.control.reconcile()
		}
	}
	if l.sense.calls%lengthWindow == 0 {
		l.handlers()
	}
}

// handlers follows what a typical handler takes.
func (l *loop) handlers() {
	ws := l.rx.crew.all()
	typical := ws[min(1, len(ws)-1)].typical.Load() // worker 1 is always active: its median stands for all
	was := l.length.length
	is := l.length.look(time.Duration(typical))
	if l.rx.crew.length.Swap(uint32(is)) != uint32(is) || is != was || is == placement.Short && l.rx.crew.parallel() {
		l.rx.e.control.reconcile()
	}
}

// recvFailed counts what went wrong with a RECV.
func (l *loop) recvFailed(src *Source, err error) {
	switch notify.OutcomeOf(err) {
	case notify.Stale: // the target died or was interrupted before we came
		l.t.recvStale.Add(1)
	case notify.Retry: // we were signalled: whoever did has knocked, or epoll comes back
	default:
		if !src.l.Carried() || notify.OutcomeOf(err) != notify.Over { // whose end is that
			l.t.recvFailed.Add(1)
			l.rx.e.cfg.Logger.Error("receive failed", "listener", src.l.FD(), "err", err)
		}
		select {
		case l.rx.e.control.hangups <- src: // it will not get better: give the listener up
			src.gone.Store(true)
		default:
		}
	}
}

func errorf(format string, args ...any) error { return fmt.Errorf("engine: "+format, args...) }
