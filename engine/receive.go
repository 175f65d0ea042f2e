package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/osthread"
	"golang.org/x/sys/unix"
)

// A cell holds a notification on its way through the ring. The receive ioctl
// writes straight into it.
type cell struct {
	notif      notify.Notif
	src        *Source
	stats      *syscallEntry
	receivedAt int64
	_          [24]byte // to 128 bytes: a worker reads one cell while RECV writes the next
}

// A receiver is the receive thread's own state.
type receiver struct {
	e       *Engine
	t       *tally
	inline  *worker
	cell    [1]uint32 // the cell that the next RECV fills
	hasCell bool
	evicted []uint32
}

// wakeIndex marks the eventfd among the epoll events; listeners have their
// index in Engine.sources.
const wakeIndex = -1

// errReceiverGone is what Run returns when an inline handler ended the receive
// thread by runtime.Goexit.
var errReceiverGone = errors.New("engine: the handler ended the receive thread (runtime.Goexit)")

// run is the receive thread. It reports the outcome of its set-up on ready.
func (rx *receiver) run(ready chan<- error) error {
	e := rx.e
	if err := rx.setUp(); err != nil {
		ready <- err
		return nil
	}
	ready <- nil
	var events [16]unix.EpollEvent
	for {
		n, err := unix.EpollWait(e.epfd, events[:], -1)
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
			src := (*e.sources.Load())[ev.Fd]
			switch {
			case src == nil || src.gone.Load():
				gone++
			case ev.Events&unix.EPOLLIN != 0:
				rx.receive(src)
			case ev.Events&unix.EPOLLHUP != 0:
				// No target is left. The keeper removes the listener, because a
				// confined thread may not call epoll_ctl.
				select {
				case e.hangups <- src:
					src.gone.Store(true)
				default: // the keeper is busy; the event comes again
				}
			}
			// EPOLLERR alone is spurious: the kernel's lock was interrupted.
		}
		if gone == n && n > 0 {
			runtime.Gosched() // let the keeper take them off epoll
		}
		if woken && rx.woken() {
			return nil
		}
	}
}

func (rx *receiver) setUp() error {
	e := rx.e
	_ = osthread.SetName("unknot-receive") // for ps; nothing depends on it
	switch cpus := osthread.Allowed(); {
	case e.cfg.CPU > 0:
		if err := osthread.Pin(int(e.cfg.CPU) - 1); err != nil {
			return fmt.Errorf("engine: %w", err)
		}
	case e.cfg.CPU == AutoCPU && len(cpus) > 1:
		if err := osthread.Pin(cpus[len(cpus)-1]); err != nil {
			e.cfg.Logger.Warn("receive thread is not pinned", "err", err)
		}
	}
	if e.cfg.ThreadHook != nil {
		if err := e.cfg.ThreadHook(); err != nil {
			return fmt.Errorf("engine: receive thread hook: %w", err)
		}
	}
	return nil
}

// woken answers those who asked for a turn of the loop and reports whether to stop.
func (rx *receiver) woken() bool {
	var b [8]byte
	_, _ = unix.Read(rx.e.wakefd, b[:]) // EAGAIN: somebody else's wake came between
	e := rx.e
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ack := range e.acks {
		close(ack)
	}
	e.acks = nil
	return e.stopping
}

// receive makes one RECV: level-triggered epoll comes back for the rest, which
// keeps the listeners' turns fair.
func (rx *receiver) receive(src *Source) {
	if rx.e.cfg.Inline {
		r := &rx.inline.req
		if !rx.recv(src, &r.notif) {
			return
		}
		r.src, r.receivedAt, r.stats = src, now(), nil
		if t := rx.e.syscalls; t != nil {
			r.stats = t.received(&r.notif.Data)
		}
		src.add()
		rx.t.received.Add(1)
		rx.inline.serve(false) // fresh from RECV: no need to ask whether it is alive
		return
	}
	e := rx.e
	for !rx.hasCell {
		if rx.hasCell = e.slab.Take(rx.cell[:]) == 1; !rx.hasCell {
			runtime.Gosched() // a worker is between taking a handle and giving its cell back
		}
	}
	c := e.slab.At(rx.cell[0])
	if !rx.recv(src, &c.notif) {
		return
	}
	c.src, c.receivedAt, c.stats = src, now(), nil
	if t := e.syscalls; t != nil {
		c.stats = t.received(&c.notif.Data)
	}
	src.add()
	rx.t.received.Add(1)
	rx.hasCell = false
	k := e.ring.PushDrop(rx.cell[:], rx.evicted)
	if k == 0 {
		return
	}
	e.held.Store(int64(k))
	for i, h := range rx.evicted[:k] {
		e.drop(rx.t, e.slab.At(h))
		e.held.Store(int64(k - i - 1))
	}
	e.slab.Keep(rx.evicted[:k]...)
}

// recv receives and counts what went wrong.
func (rx *receiver) recv(src *Source, n *notify.Notif) bool {
	// The only reader, and epoll said readable: this does not block.
	err := src.l.RecvReady(n)
	switch notify.OutcomeOf(err) {
	case notify.Done:
		return true
	case notify.Stale: // the target died or was interrupted before we came
		rx.t.recvStale.Add(1)
	case notify.Retry: // we were signalled; epoll comes back
	default:
		rx.t.recvFailed.Add(1)
		rx.e.cfg.Logger.Error("receive failed", "listener", src.l.FD(), "err", err)
		select {
		case rx.e.hangups <- src: // it will not get better: give the listener up
			src.gone.Store(true)
		default:
		}
	}
	return false
}

// received is of, and counts.
func (t *syscallTable) received(d *notify.Data) *syscallEntry {
	s := t.of(d)
	if s != nil {
		s.received.Add(1)
	}
	return s
}

// wake makes the receive thread go round its loop.
func (e *Engine) wake() {
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], 1)
	_, _ = unix.Write(e.wakefd, b[:]) // EAGAIN: a wake is pending, which is as good
}
