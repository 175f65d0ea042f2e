package engine

import (
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/unknot/unknot/internal/kernel"
	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/ring"
)

// A receiver is a receive thread and what belongs to it: an epoll instance, listeners, their rings, workers,
// tallies. What only the thread may touch is its loop, to which nobody else has a pointer.
type receiver struct {
	e         *Engine
	index     int
	epfd      int
	seat      seat                      // its claim to a CPU
	listeners atomic.Pointer[[]*Source] // its own, in no order; replaced, never changed; written under registry.mu
	rings     *ring.Set[uint64]         // one for each of them; nil when inline
	tallies   []tally                   // 0: the receive thread's and stops'; then one for each worker
	crew      crew
	door      door
	batch     handOff
	held      atomic.Int64 // calls dropped and not told yet
	detached  atomic.Int64 // requests that outlive their handlers and have no answer yet
	observed  observed
	ended     chan struct{} // closed when the receive thread has ended
}

// observed is what a receive thread tells of its load. Others read it.
type observed struct {
	_      [64]byte
	at     atomic.Int64  // when its last window ended
	bands  atomic.Uint32 // what that window said; see sense
	direct atomic.Bool   // it receives from its only listener without epoll
	_      [64]byte
}

// A door is how others reach a receive thread.
type door struct {
	wakefd   int
	tid      atomic.Int32
	used     atomic.Int64  // CPU time of the thread, in ns, at the last look
	cpu      atomic.Int32  // where it is kept, or placement.Anywhere; written by apply
	knocks   atomic.Uint32 // interrupts asked for
	seen     atomic.Uint32 // of knocks, those acted upon
	inRecv   atomic.Bool   // it may be blocked in RECV
	notified atomic.Bool   // a worker has woken it to tell held calls

	mu       sync.Mutex
	barriers []barrier // for the receive thread, between two batches of events
	stopping bool      // it shall end
}

// A barrier is somebody's wish that the receive thread go round its loop once.
type barrier struct {
	closeFD int     // and close this descriptor in its private file table, or noFD
	forget  *Source // and forget this listener, which goes to another receiver
	done    chan struct{}
}

const noFD = -1

// newReceiver opens a receiver, whose thread is not started yet.
func (e *Engine) newReceiver(index int) (rx *receiver, err error) {
	rx = &receiver{e: e, index: index, ended: make(chan struct{})}
	rx.listeners.Store(&[]*Source{})
	workers := []*worker{}
	rx.tallies = make([]tally, 1)
	if !e.cfg.Inline {
		rx.tallies = make([]tally, 1+e.cfg.Workers)
		rx.rings = ring.NewSet[uint64]()
	}
	for i := range rx.tallies {
		workers = append(workers, rx.newWorker(i)) // 0: the receive thread, which by the queue runs no handler
	}
	rx.crew.init(workers)
	rx.seat = takeSeat(&e.cfg, e.cpus, e.seats())
	rx.door.cpu.Store(int32(rx.seat.cpu))
	if rx.epfd, err = kernel.EpollCreate(); err != nil {
		rx.seat.leave()
		return nil, errorf("create epoll instance: %w", err)
	}
	if rx.door.wakefd, err = kernel.Eventfd(); err == nil {
		if err = rx.attach(rx.door.wakefd, wakeIndex); err == nil {
			return rx, nil
		}
		_ = kernel.Close(rx.door.wakefd)
	}
	_ = kernel.Close(rx.epfd)
	rx.seat.leave()
	return nil, errorf("create wake-up event: %w", err)
}

// close gives back what newReceiver took. The thread has ended, or never began.
func (rx *receiver) close() {
	_ = kernel.Close(rx.epfd)
	_ = kernel.Close(rx.door.wakefd)
	rx.seat.leave()
}

// start runs the receive thread and reports the outcome of its set-up; failed gets what ends it later.
func (rx *receiver) start(failed chan<- error) error {
	ready := make(chan error, 1)
	osthread.Start(func() {
		defer close(rx.ended)
		l := newLoop(rx)
		if err := l.setUp(); err != nil {
			ready <- err
			return
		}
		ready <- nil
		err := errReceiverGone // unless run returns
		defer func() {
			if err != nil {
				select {
				case failed <- err:
				default: // another one's error is there already
				}
			}
		}()
		err = l.run()
	})
	return <-ready
}

// thread is the id of the receive thread; 0 before it is up, and once it has ended, when
// the id may be another thread's.
func (rx *receiver) thread() int {
	select {
	case <-rx.ended:
		return 0
	default:
		return int(rx.door.tid.Load())
	}
}

// startWorkers starts those of the queue path.
func (rx *receiver) startWorkers() {
	for _, w := range rx.crew.all()[1:] {
		if rx.e.life.running.add() {
			w.start()
		}
	}
}

// barrier has the receive thread go round its loop and waits until it has, or ended, or is
// given up. If ctx ends before, the thread will not do what was asked.
func (rx *receiver) barrier(ctx context.Context, closeFD int, forget *Source) error {
	d := &rx.door
	b := barrier{closeFD, forget, make(chan struct{})}
	d.mu.Lock()
	d.barriers = append(d.barriers, b)
	d.mu.Unlock()
	rx.interrupt()
	select {
	case <-b.done:
	case <-rx.ended:
	case <-rx.e.life.givenUp:
	case <-ctx.Done():
		d.mu.Lock()
		defer d.mu.Unlock()
		if i := slices.Index(d.barriers, b); i >= 0 {
			d.barriers = slices.Delete(d.barriers, i, i+1)
			return ctx.Err()
		} // else it was done meanwhile
	}
	return nil
}

// end has the receive thread end.
func (rx *receiver) end() {
	rx.door.mu.Lock()
	rx.door.stopping = true
	rx.door.mu.Unlock()
	rx.interrupt()
}

// pushesNoMore waits until the receive thread, which is told to end, has, or is in an inline handler,
// after which it receives nothing more. It reports which.
func (rx *receiver) pushesNoMore() (ended bool) {
	for {
		select {
		case <-rx.ended:
			return true
		case <-time.After(100 * time.Microsecond):
			if phaseOf(rx.crew.all()[0].req.state.Load()) != idle {
				return false
			}
		}
	}
}

// interrupt makes the receive thread go round its loop: the eventfd wakes it from
// epoll, and a signal from a blocked RECV. A signal that comes just before the
// system call is lost on it, so it is repeated until the thread has seen the knock.
func (rx *receiver) interrupt() {
	d := &rx.door
	n := d.knocks.Add(1)
	rx.notify()
	for pause := 50 * time.Microsecond; d.inRecv.Load() && int32(d.seen.Load()-n) < 0; pause = min(2*pause, 2*time.Millisecond) {
		if sig := rx.e.cfg.Interrupt; sig != NoInterrupt {
			_ = osthread.AllowInterrupt(sig) // somebody may have reset it
			_ = osthread.Interrupt(int(d.tid.Load()), sig)
		}
		time.Sleep(pause)
	}
}

// notify wakes the receive thread from epoll or poll, not from RECV.
func (rx *receiver) notify() {
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], 1)
	_, _ = kernel.Write(rx.door.wakefd, b[:]) // EAGAIN: a wake is pending, which is as good
}
