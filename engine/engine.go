package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/internal/queuedlog"
)

// An Engine supervises the listeners that are added to it. Its methods may be
// called from any goroutine.
type Engine struct {
	cfg        Config
	cpus       []int           // where threads may run
	dropErrnos []syscall.Errno // by system call number; nil if all are Config.DropErrno
	syscalls   *syscallTable
	registry   registry
	receivers  receivers
	control    controller
	deadlines  deadlines
	life       lifecycle
	log        queuedlog.Queue
}

// A lifecycle is how far an engine is, and who must end before it is over.
type lifecycle struct {
	state    engineState   // guarded by registry.mu
	stopping bool          // no listener is added any more; guarded by registry.mu
	failed   chan error    // of a receive thread; capacity 1
	ready    chan struct{} // closed when all threads are up
	running  members       // workers
	detached pendings      // requests without one
	retirers sync.WaitGroup
	halted   atomic.Bool   // nothing more is received
	givenUp  chan struct{} // closed when the stop waits for nobody any more; all is answered
}

type engineState uint8

const (
	fresh engineState = iota
	started
	over
)

var (
	// ErrStopTimeout says that handlers still ran when the stop's time was up.
	// Their notifications were answered for them.
	ErrStopTimeout = errors.New("handlers still run after the stop timeout")
	// ErrPrivateFiles says that a running engine cannot take a listener, because
	// its receive thread has a file table of its own; see [Config.PrivateFiles].
	ErrPrivateFiles = errors.New("the receive thread has a file table of its own, which new descriptors do not reach")

	errRetiring = fmt.Errorf("it is being removed: %w", os.ErrClosed)
)

// New returns an engine that does nothing until Run. An engine that will not be
// run must be closed by Run with a context that has ended.
func New(cfg Config) (*Engine, error) {
	cpus := osthread.Allowed()
	if err := cfg.fill(cpus); err != nil {
		return nil, err
	}
	if err := notify.FeatureNotify.Probe(); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	e := newEngine(cfg, cpus)
	e.cfg.Logger = slog.New(e.log.Before(cfg.Logger.Handler()))
	for range max(1, cfg.Receivers) {
		if _, err := e.openReceiver(); err != nil {
			e.closeReceivers()
			return nil, err
		}
	}
	return e, nil
}

// newEngine returns an engine without receivers.
func newEngine(cfg Config, cpus []int) *Engine {
	e := &Engine{cfg: cfg, cpus: cpus}
	e.life.failed, e.life.givenUp, e.life.ready = make(chan error, 1), make(chan struct{}), make(chan struct{})
	e.registry.byFD = map[int]*Source{}
	e.control.init()
	e.deadlines.asks = make(chan struct{}, 1)
	if cfg.HandlerDeadline > 0 {
		e.deadlines.tighten(cfg.HandlerDeadline)
	}
	e.receivers.init(&e.cfg, cpus)
	if len(cfg.DropErrnos) > 0 {
		e.dropErrnos = make([]syscall.Errno, maxDropErrnos)
		for nr, errno := range cfg.DropErrnos {
			e.dropErrnos[nr] = errno
		}
	}
	if cfg.BySyscall {
		e.syscalls = new(syscallTable)
	}
	return e
}

// Run supervises until ctx ends, then stops: nothing more is received, the
// workers finish what was, for at most the stop timeout; what is left then is
// answered for them. Last, the listeners are closed, and with them later calls
// of the targets fail with ENOSYS. An engine runs once.
//
// Run returns when the stop timeout is up, whatever handlers do. One of an inline engine that
// never returns keeps its receive thread, and with [Config.PrivateFiles] its copies of the listeners.
//
// The error is that of a receive thread or its hook, or wraps [ErrStopTimeout].
// That ctx ended is no error.
func (e *Engine) Run(ctx context.Context) error {
	e.registry.mu.Lock()
	if e.life.state != fresh {
		e.registry.mu.Unlock()
		return errors.New("engine: run: has run already")
	}
	e.life.state = started
	var err error
	if !e.cfg.KeepProcs {
		// Before threads are there that a stop of the world would have to wait for.
		e.setProcs(e.spareProcs(e.receivers.inUse()))
	}
	for _, rx := range e.receivers.all() {
		if err = rx.start(e.life.failed); err != nil {
			break
		}
		rx.startWorkers()
	}
	e.registry.mu.Unlock()
	if err == nil {
		close(e.life.ready)
		err = e.serve(ctx)
	} else {
		e.setProcs(0)
		err = errors.Join(err, e.stop())
	}
	e.closeAll()
	e.log.Flush()
	return err
}

// Ready is closed when Run has its threads up: they receive, and hooks have run. It is never
// closed if Run fails before, so wait for Run's end beside it.
func (e *Engine) Ready() <-chan struct{} { return e.life.ready }

// serve runs everything but the receive threads until the stop is complete.
func (e *Engine) serve(ctx context.Context) error {
	side, cancel := context.WithCancel(context.Background())
	var sides sync.WaitGroup
	sides.Go(func() { e.steer(side) })
	sides.Go(func() { e.enforceDeadline(side) })
	defer sides.Wait()
	defer cancel()

	var err error
	select {
	case <-ctx.Done():
	case err = <-e.life.failed:
	}
	return errors.Join(err, e.stop())
}

// stop ends the receive threads, then the workers.
func (e *Engine) stop() error {
	e.registry.mu.Lock()
	e.life.stopping = true // no receiver is opened any more
	e.registry.mu.Unlock()
	e.life.halted.Store(true)
	all := e.receivers.all()
	for _, rx := range all {
		rx.end()
	}
	deadline := time.NewTimer(e.cfg.StopTimeout)
	defer deadline.Stop()
	inTime := true
	wait := func(c <-chan struct{}) {
		if inTime {
			select {
			case <-c:
				return
			case <-deadline.C:
				inTime = false
			}
		}
	}
	for _, rx := range all {
		wait(rx.ended)
	}
	if e.cfg.Inline {
		for _, rx := range all {
			select {
			case <-rx.ended:
			default: // its thread sees the stop when the handler returns
				return errors.Join(e.answerAll(), fmt.Errorf("engine: stop: %w: the inline handler", ErrStopTimeout))
			}
		}
		wait(e.life.detached.allGone())
		err := e.receiverError()
		if inTime {
			return err
		}
		left := e.life.detached.stopped()
		return errors.Join(err, e.answerAll(), left)
	}
	var stuck error
	for _, rx := range all {
		if !rx.pushesNoMore() {
			stuck = fmt.Errorf("engine: stop: %w: an inline handler", ErrStopTimeout)
		}
		rx.crew.finish()
		rx.rings.Close()
	}
	wait(e.life.running.allGone())
	wait(e.life.detached.allGone())
	err := e.receiverError()
	if inTime {
		return err // and no receive thread is stuck
	}
	// Whatever still waits is dropped; whatever still runs is answered for.
	e.life.running.close() // late workers are no longer replaced
	for src := range e.registry.each {
		e.dropAll(src)
	}
	left := e.life.detached.stopped()
	err = errors.Join(err, stuck, e.answerAll(), left)
	if n := e.life.running.count(); n > 0 {
		err = errors.Join(err, fmt.Errorf("engine: stop: %w: %d of them", ErrStopTimeout, n))
	}
	return err
}

// answerAll answers for all handlers. A worker may be about to start on the last
// request it took: look again until nobody works or only handlers that were answered for do.
func (e *Engine) answerAll() error {
	for giveUp := time.Now().Add(e.cfg.StopTimeout); ; time.Sleep(100 * time.Microsecond) {
		e.expireAll(now(), true)
		if e.allAnswered() {
			return nil
		}
		if time.Now().After(giveUp) {
			return fmt.Errorf("engine: stop: not every notification is accounted for: %+v", e.Counters())
		}
	}
}

// dropAll drops what is in the ring of a source that is not received from any more.
func (e *Engine) dropAll(src *Source) {
	if src.inline {
		return
	}
	rx := src.owner.Load()
	var h [1]uint64
	for src.ring.Load().TryPop(h[:]) == 1 {
		rx.held.Add(1)
		src.held.Add(1)
		c := src.slab.At(uint32(h[0]))
		d := e.drops(&c.notif, c.stats, c.receivedAt)
		rx.sendDrop(&rx.tallies[0], src, &d)
		rx.held.Add(-1)
		src.held.Add(-1)
		src.slab.Put(uint32(h[0]))
	}
}

// allAnswered reports whether every notification has had its answer.
func (e *Engine) allAnswered() bool {
	c := e.Counters()
	return c.Balance() == 0 && c.Queued+c.Held+c.InHandlers+c.Detached == 0
}

func (e *Engine) receiverError() error {
	select {
	case err := <-e.life.failed:
		return err
	default:
		return nil
	}
}

// closeAll closes what the engine owns. Nothing receives or answers any more.
func (e *Engine) closeAll() {
	e.registry.mu.Lock()
	e.life.state = over
	e.registry.mu.Unlock()
	close(e.life.givenUp) // a retirer may wait for a handler that never returns
	e.life.retirers.Wait()
	for src := range e.registry.each {
		if !src.retired {
			src.retired = true
			src.leaving.Store(true)
			_ = src.l.Close()
			close(src.ended)
		}
	}
	e.closeReceivers()
}

// closeReceivers closes what receivers have once their threads have ended. A late inline handler
// may still have one; closing its descriptors now would give their numbers to somebody else.
func (e *Engine) closeReceivers() {
	for _, rx := range e.receivers.all() {
		select {
		case <-rx.ended:
			rx.close()
		default:
			if rx.door.tid.Load() == 0 { // it was never started
				rx.close()
				continue
			}
			go func() {
				<-rx.ended
				rx.close()
			}()
		}
	}
}

// members counts the goroutines of the queue path. Unlike a sync.WaitGroup it
// can be closed to newcomers and waited for with a deadline.
type members struct {
	mu     sync.Mutex
	n      int
	closed bool
	gone   chan struct{}
}

func (m *members) add() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.n++
	return true
}

func (m *members) done() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.n--; m.n == 0 && m.gone != nil {
		close(m.gone)
		m.gone = nil
	}
}

func (m *members) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
}

func (m *members) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.n
}

// allGone returns a channel that is closed once nobody is left.
func (m *members) allGone() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := make(chan struct{})
	if m.n == 0 {
		close(c)
	} else {
		m.gone = c
	}
	return c
}
