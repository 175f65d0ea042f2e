package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/osthread"
	"github.com/unknot/unknot/engine/policy"
	"golang.org/x/sys/unix"
)

// A receiver is the receive thread's own state.
type receiver struct {
	e      *Engine
	t      *tally
	inline *worker
	direct bool // RECV may block: a signal can interrupt it

	table  *[]*Source // of sources as last seen
	lone   *Source    // the only one of them, or nil
	tended []*Source  // those with calls held or aging
	seen   uint32     // Engine.pokes as last acted upon

	last  int64 // when the last call was received
	brisk int   // how many came in a row within briskGap
	stint stint
	tried int // calls since the trials were told

	crowds     bool // the pair, or the priority, follows how many targets call
	census     census
	censusFrom int64  // when its window began
	many, some streak // of windows with many targets, and with some
	throngs    streak // and with a multitude
	throng     bool   // they agreed last that it is one

	handsOff int64 // until when it does not wait for the lone worker
	evicted  []uint64
	polled   []unix.PollFd
	polls    []*Source // polled[i] is polls[i]'s
}

// wakeIndex marks the eventfd among the epoll events; listeners have their
// index in Engine.sources.
const wakeIndex = -1

const (
	// A lone listener whose calls come closer together than briskGap, briskCalls in a row, is
	// received from directly; see stay.
	briskGap   = int64(time.Millisecond)
	briskCalls = 16
	// tendBatch bounds the answers to held calls between two RECVs, so that
	// the loop is not starved by its own answers.
	tendBatch = 32
)

// errReceiverGone is what Run returns when an inline handler ended the receive
// thread by runtime.Goexit.
var errReceiverGone = errors.New("engine: the handler ended the receive thread (runtime.Goexit)")

func (e *Engine) newReceiver() *receiver {
	p := e.cfg.policyConfig()
	_ = p.Fill()
	return &receiver{e: e, t: &e.tallies[0], inline: (*e.workers.Load())[0], evicted: make([]uint64, p.MaxEvict()),
		crowds: e.cfg.RaisePriority || e.mayPair()}
}

// run is the receive thread. It reports the outcome of its set-up on ready.
func (rx *receiver) run(ready chan<- error) error {
	e := rx.e
	if err := rx.setUp(); err != nil {
		ready <- err
		return nil
	}
	ready <- nil
	defer rx.answerHeld()
	var events [16]unix.EpollEvent
	for {
		deadline, timed := rx.tend()
		if src := rx.alone(); src != nil && !timed && rx.brisk >= briskCalls {
			rx.stay(src)
			deadline, timed = rx.tend()
		}
		if e.unwatched.Load() != nil || rx.rests() {
			if rx.poll(deadline, timed) {
				return nil
			}
			continue
		}
		n, err := unix.EpollWait(e.epfd, events[:], timeout(deadline, timed))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("engine: wait for notifications: %w", err)
		}
		woken, gone := false, 0
		for i := range events[:n] {
			ev := &events[i]
			if ev.Fd == wakeIndex {
				woken = true
				continue
			}
			if e.halted.Load() {
				continue // an inline handler ended after the stop had given it up
			}
			src := (*e.sources.Load())[ev.Fd]
			if src == nil || src.gone.Load() {
				gone++
				continue
			}
			rx.ready(src, ev.Events&unix.EPOLLIN != 0, ev.Events&unix.EPOLLHUP != 0)
		}
		if gone == n && n > 0 {
			runtime.Gosched() // let the keeper take them off epoll
		}
		if woken && rx.woken() {
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
func (rx *receiver) ready(src *Source, in, hup bool) {
	switch {
	case in:
		src.rx.dry = false
		rx.receive(src, false)
	case hup:
		// No target is left. The keeper removes the listener, because a
		// confined thread may not call epoll_ctl.
		select {
		case rx.e.hangups <- src:
			src.gone.Store(true)
		default: // the keeper is busy; the event comes again
		}
	}
	// An error alone is spurious: the kernel's lock was interrupted.
}

// stay receives from a lone busy listener without epoll. Every epoll_wait walks
// the kernel's list of notifications until it has seen both a waiting and an
// answered one, which with hundreds outstanding costs more than RECV itself:
// measured with a bare supervisor in C, blocking RECV served 1.2, 1.7, 2.2 and
// 1.8 times what epoll did at 1, 16, 64 and 256 targets.
//
// Not taken, at 64 targets on another CPU, where both CPUs work at full load: RECV unknown to
// the Go scheduler when calls have come without a wait (1.01 to 1.02; one that does block would
// hold up a stop of the world, since Go's signals for that restart the system call), and an answer counted only after the next RECV, so that
// less lies between the two (1.00, though in a bare supervisor in C 100 ns there cost 4%).
//
// It comes back when somebody pokes, as the keeper does when no calls come; when
// calls are held (RECV has no timeout); and when RECV says that a target is
// gone: only epoll tells whether it was the last.
func (rx *receiver) stay(src *Source) {
	e := rx.e
	e.stays.Add(1)
	e.staying.Store(true)
	e.ask() // for somebody to look whether calls still come
	for rx.receive(src, true) {
		if !e.cfg.Inline && (src.rx.tended || src.rest.on()) {
			break
		}
		if rx.tried++; rx.tried == trialCalls {
			rx.tried = 0
			rx.tryOut(src)
		}
	}
	rx.endTrial(src)
	e.staying.Store(false)
	rx.brisk = 0
}

// alone returns the only listener, if there is just one and RECV may block.
func (rx *receiver) alone() *Source {
	if t := rx.e.sources.Load(); t != rx.table {
		rx.table, rx.lone = t, lone(*t)
		rx.e.joins.Store(false) // that was for the targets of others
	}
	if !rx.direct || rx.lone == nil || !rx.lone.receivable() || rx.lone.rest.on() {
		return nil
	}
	return rx.lone
}

// rests reports whether a listener is not to be received from now.
func (rx *receiver) rests() bool {
	if rx.e.cfg.Inline || rx.e.cfg.Policy != policy.Block && len(rx.tended) == 0 {
		return false
	}
	for _, s := range *rx.e.sources.Load() {
		if s != nil && s.rest.on() {
			return true
		}
	}
	return false
}

// poll waits like epoll, for listeners that are not in it, too, but not for those that
// rest: on level-triggered epoll they would be ready all the time, and a confined thread may not
// change what epoll watches. It reports whether to stop.
func (rx *receiver) poll(deadline int64, timed bool) (stop bool) {
	rx.polled, rx.polls = rx.polled[:0], rx.polls[:0]
	rx.polled = append(rx.polled, unix.PollFd{Fd: int32(rx.e.wakefd), Events: unix.POLLIN})
	rx.polls = append(rx.polls, nil)
	for _, s := range *rx.e.sources.Load() {
		if s == nil || !s.receivable() {
			continue
		}
		fd := unix.PollFd{Fd: int32(s.l.FD()), Events: unix.POLLIN}
		if s.rest.on() {
			fd.Events = 0 // the end of its targets is still reported
		}
		rx.polled = append(rx.polled, fd)
		rx.polls = append(rx.polls, s)
	}
	var ts *unix.Timespec
	if timed {
		t := unix.NsecToTimespec(max(deadline-now(), 0))
		ts = &t
	}
	if n, err := unix.Ppoll(rx.polled, ts, nil); err != nil || n == 0 {
		return false // EINTR, or the time is up
	}
	for i, src := range rx.polls {
		if ev := rx.polled[i].Revents; src != nil && !rx.e.halted.Load() {
			rx.ready(src, ev&unix.POLLIN != 0, ev&unix.POLLHUP != 0)
		}
	}
	// Last, as it tells those who take a listener out that we are done with what we saw.
	return rx.polled[0].Revents != 0 && rx.woken()
}

func (rx *receiver) setUp() error {
	e := rx.e
	_ = osthread.SetName("unknot-receive") // for ps; nothing depends on it
	cpu := -1
	switch cpus := osthread.Allowed(); {
	case e.cfg.CPU > 0:
		cpu = int(e.cfg.CPU) - 1
		if err := osthread.Pin(cpu); err != nil {
			return fmt.Errorf("engine: %w", err)
		}
	case e.cfg.CPU == AutoCPU && len(cpus) > 1:
		cpu = cpus[len(cpus)-1]
		if err := osthread.Pin(cpu); err != nil {
			e.cfg.Logger.Warn("receive thread is not pinned", "err", err)
			cpu = -1
		}
	}
	e.receiverAt(unix.Gettid(), cpu)
	var sig syscall.Signal
	if e.cfg.Interrupt != NoInterrupt {
		if err := osthread.AllowInterrupt(e.cfg.Interrupt); err != nil {
			e.cfg.Logger.Info("the receive thread always waits in epoll", "err", err)
		} else {
			rx.direct, sig = true, e.cfg.Interrupt
			osthread.Unblock(sig)   // who started this process may have blocked it
			osthread.SleepExactly() // for lulls
		}
	}
	if e.cfg.ThreadHook != nil {
		th := Thread{Epoll: e.epfd, Wake: e.wakefd, Signal: sig}
		for _, s := range *e.sources.Load() {
			if s != nil {
				th.Listeners = append(th.Listeners, s.l.FD())
			}
		}
		if err := e.cfg.ThreadHook(th); err != nil {
			return fmt.Errorf("engine: receive thread hook: %w", err)
		}
	}
	return nil
}

// woken answers those who asked for a turn of the loop and reports whether to stop.
func (rx *receiver) woken() bool {
	e := rx.e
	// First, so that a poke that comes while we are at it wakes us again.
	rx.seen = e.pokes.Load()
	e.pokesSeen.Store(rx.seen)
	e.nudged.Store(false)
	var b [8]byte
	_, _ = unix.Read(e.wakefd, b[:]) // EAGAIN: somebody else's wake came between
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range e.turns {
		if t.closeFD != noFD {
			_ = unix.Close(t.closeFD) // private: its number here is nobody else's
		}
		close(t.done)
	}
	e.turns = nil
	return e.stopping
}

// receive makes one RECV, which may block if so said, and sees to what it
// brought. It reports whether the listener may have more.
func (rx *receiver) receive(src *Source, block bool) bool {
	e, s := rx.e, &src.rx
	r := &rx.inline.req
	n := &r.notif
	var c *cell
	if !e.cfg.Inline {
		for !s.hasCell {
			if s.hasCell = src.slab.Take(s.cell[:]) == 1; !s.hasCell {
				runtime.Gosched() // a worker is between taking a handle and giving its cell back
			}
		}
		c = src.slab.At(s.cell[0])
		n = &c.notif
	}
	var err error
	if block {
		// Announced before the look at pokes: whoever pokes after that look
		// sees it, and signals until we are out.
		e.inRecv.Store(true)
		if e.pokes.Load() != rx.seen {
			e.inRecv.Store(false)
			return false
		}
		err = src.l.Recv(n)
		e.inRecv.Store(false)
	} else {
		err = src.l.RecvReady(n) // the only reader, and epoll said readable
	}
	if err != nil {
		rx.recvFailed(src, err)
		return false
	}
	at := now()
	var stats *syscallEntry
	if e.syscalls != nil {
		stats = e.syscalls.received(&n.Data)
	}
	if c == nil {
		r.src, r.receivedAt, r.stats = src, at, stats
		rx.received(src, n, at)
		// Received is dispatched here, and fresh: no need to ask whether it is alive.
		rx.inline.serve(false, at)
		if e.cfg.RaisePriority {
			rx.inline.took(r.answeredFrom - at)
			rx.inline.taken++
		}
		return true
	}
	c.receivedAt, c.stats = at, stats
	s.received++
	rx.received(src, n, at)
	rx.admit(src, c)
	rx.handOver(src, at)
	return true
}

// received counts a call and follows the load.
func (rx *receiver) received(src *Source, n *notify.Notif, at int64) {
	src.add()
	rx.t.received.Add(1)
	if at-rx.last < briskGap {
		rx.brisk++
	} else {
		rx.brisk = 0
	}
	rx.last = at
	rx.stint.end(at)
	rx.crowd(n.PID, at)
	mode, full := src.targets.count(n.PID)
	if !full {
		return
	}
	if src.caller.Swap(n.PID) == 0 && n.PID != 0 {
		rx.e.ask() // for somebody to look at its CPU mask
	}
	if rx.e.bench.up() == pair || mode == Async && src.rx.gather && src == rx.lone && rx.e.away.Load() == roam {
		mode = Sync
	}
	if rx.e.cfg.WakeUp == AutoWakeUp && mode != AutoWakeUp && mode != src.WakeUp() {
		src.wakeUp.Store(uint32(mode))
		rx.e.ask() // a confined thread may not call SET_FLAGS
	}
	rx.e.place(at)
}

// recvFailed counts what went wrong with a RECV.
func (rx *receiver) recvFailed(src *Source, err error) {
	switch notify.OutcomeOf(err) {
	case notify.Stale: // the target died or was interrupted before we came
		rx.t.recvStale.Add(1)
	case notify.Retry: // we were signalled: whoever did has poked, or epoll comes back
	default:
		rx.t.recvFailed.Add(1)
		rx.e.cfg.Logger.Error("receive failed", "listener", src.l.FD(), "err", err)
		select {
		case rx.e.hangups <- src: // it will not get better: give the listener up
			src.gone.Store(true)
		default:
		}
	}
}

// received is of, and counts.
func (t *syscallTable) received(d *notify.Data) *syscallEntry {
	s := t.of(d)
	if s != nil {
		s.received.Add(1)
	}
	return s
}

// poke makes the receive thread go round its loop: the eventfd wakes it from
// epoll, and a signal from a blocked RECV. A signal that comes just before the
// system call is lost on it, so it is repeated until the thread has seen the poke.
// It may be called with e.mu held, because the thread acknowledges before it
// takes that.
func (e *Engine) poke() {
	n := e.pokes.Add(1)
	e.nudge()
	for pause := 50 * time.Microsecond; e.inRecv.Load() && int32(e.pokesSeen.Load()-n) < 0; pause = min(2*pause, 2*time.Millisecond) {
		if e.cfg.Interrupt != NoInterrupt {
			_ = osthread.AllowInterrupt(e.cfg.Interrupt) // somebody may have reset it
			_ = osthread.Interrupt(int(e.rxTID.Load()), e.cfg.Interrupt)
		}
		time.Sleep(pause)
	}
}

// nudge wakes the receive thread from epoll or poll, not from RECV.
func (e *Engine) nudge() {
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], 1)
	_, _ = unix.Write(e.wakefd, b[:]) // EAGAIN: a wake is pending, which is as good
}
