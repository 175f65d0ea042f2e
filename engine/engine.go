package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/osthread"
	"github.com/unknot/unknot/ring"
	"golang.org/x/sys/unix"
)

// An Engine supervises the listeners that are added to it. Its methods may be
// called from any goroutine.
type Engine struct {
	cfg      Config
	epfd     int
	wakefd   int
	rings    *ring.Set[uint64] // one for each listener; nil when inline
	tallies  []tally           // 0: the receive thread and stops; then one for each worker
	workers  atomic.Pointer[[]*worker]
	held     atomic.Int64 // calls dropped and not told yet
	nudged   atomic.Bool  // a worker has woken the receive thread to tell them
	syscalls *syscallTable
	hangups  chan *Source
	running  members
	sources  atomic.Pointer[[]*Source] // by epoll index; replaced, never changed

	// How others reach the receive thread, and what they do for it.
	rxTID     atomic.Int32
	rxCPU     atomic.Int32           // where it is pinned, or -1
	home      atomic.Int32           // its own CPU, where it is unless it has joined its targets
	away      atomic.Int32           // a CPU of targets that may not run there, or nowhere, or roam
	joins     atomic.Bool            // it shall join them; the receive thread's
	joinings  atomic.Uint64          // how often it has
	gathered  atomic.Uint64          // how often many targets were to come to it
	pokes     atomic.Uint32          // requests to go round the loop
	pokesSeen atomic.Uint32          // of pokes, those acted upon
	inRecv    atomic.Bool            // it may be blocked in RECV
	staying   atomic.Bool            // it receives from one listener without epoll
	stays     atomic.Uint32          // how many times it has begun to
	unwatched atomic.Pointer[Source] // a listener that is not in epoll
	asks      chan struct{}          // capacity 1: the keeper shall look
	switches  atomic.Uint64          // of wake-up modes
	placement atomic.Int32           // where workers run: a CPU, or anywhere
	bench     bench                  // for workers that are not needed
	round     round                  // turns of the receive thread and a lone worker
	procs     atomic.Int32           // added to GOMAXPROCS; the keeper's
	spare     int32                  // of these, those that are always needed
	crowded   atomic.Bool            // many targets call, and an inline handler is short; the receive thread's
	pairUntil atomic.Int64           // until then the load is one for the pair; the receive thread's
	async     atomic.Bool            // a listener has no SYNC_WAKE_UP
	roams     bool                   // the receive thread is kept to no CPU; the keeper's
	paired    atomic.Uint64          // how often it has been so
	lulled    atomic.Uint64          // lulls so far
	takenOut  atomic.Uint64          // how many listeners were taken out of epoll
	never     atomic.Uint32          // a futex that nobody wakes
	masksAt   int64                  // when the keeper looked at the masks of targets,
	masksOf   *[]*Source             // of which listeners,
	farSeen   int                    // what it then would have away be, or unseen,
	roaming   bool                   // and what it saw; the keeper's
	kept      bool                   // the receive thread is not moved; the keeper's
	priority  atomic.Int32           // nice levels by which the receive thread is raised; the keeper's
	raised    *worker                // who is, too; the keeper's
	mayNot    bool                   // raise anybody; the keeper's
	nice      int                    // of those threads, when not raised; the keeper's
	slow      atomic.Int32           // for how many windows in a row handlers have been; the receive thread's
	batch     bool                   // the receive thread is SCHED_BATCH; the keeper's
	cpus      []int                  // where threads may run

	dropErrnos []syscall.Errno // by system call number; nil if all are Config.DropErrno

	retirers sync.WaitGroup // those who take a listener out; new ones only before state is over

	mu       sync.Mutex
	state    engineState
	stopping bool          // the receive thread shall end
	turns    []turn        // for the receive thread, between two batches of events
	ended    chan struct{} // closed when the receive thread has ended
}

type engineState uint8

const (
	fresh engineState = iota
	started
	over
)

// ErrStopTimeout says that handlers still ran when the stop's time was up.
// Their notifications were answered for them.
var ErrStopTimeout = errors.New("handlers still run after the stop timeout")

// New returns an engine that does nothing until Run. An engine that will not be
// run must be closed by Run with a context that has ended.
func New(cfg Config) (*Engine, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	if err := notify.FeatureNotify.Probe(); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	e := &Engine{cfg: cfg, hangups: make(chan *Source, 64), asks: make(chan struct{}, 1), cpus: osthread.Allowed(), ended: make(chan struct{})}
	e.sources.Store(&[]*Source{})
	var workers []*worker
	if cfg.Inline {
		e.tallies = make([]tally, 1)
		workers = []*worker{e.newWorker(0)}
	} else {
		e.tallies = make([]tally, 1+cfg.Workers)
		e.rings = ring.NewSet[uint64]()
		workers = []*worker{e.newWorker(0)} // the receive thread, which runs no handler here
		for i := range cfg.Workers {
			workers = append(workers, e.newWorker(i+1))
		}
	}
	e.workers.Store(&workers)
	e.rxCPU.Store(-1)
	e.home.Store(-1)
	e.away.Store(nowhere)
	e.bench.init()
	e.placement.Store(anywhere)
	if len(cfg.DropErrnos) > 0 {
		e.dropErrnos = make([]syscall.Errno, maxDropErrnos)
		for nr, errno := range cfg.DropErrnos {
			e.dropErrnos[nr] = errno
		}
	}
	if cfg.BySyscall {
		e.syscalls = new(syscallTable)
	}
	var err error
	if e.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("engine: create epoll instance: %w", err)
	}
	if e.wakefd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
		err = unix.EpollCtl(e.epfd, unix.EPOLL_CTL_ADD, e.wakefd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: wakeIndex})
	}
	if err != nil {
		_ = unix.Close(e.epfd)
		return nil, fmt.Errorf("engine: create wake-up event: %w", err)
	}
	return e, nil
}

// Run supervises until ctx ends, then stops: nothing more is received, the
// workers finish what was, for at most the stop timeout; what is left then is
// answered for them. Last, the listeners are closed, and with them later calls
// of the targets fail with ENOSYS. An engine runs once.
//
// The error is that of the receive thread or its hook, or wraps [ErrStopTimeout].
// That ctx ended is no error.
func (e *Engine) Run(ctx context.Context) error {
	e.mu.Lock()
	if e.state != fresh {
		e.mu.Unlock()
		return errors.New("engine: run: has run already")
	}
	e.state = started
	e.mu.Unlock()

	e.spare = e.spareProcs()
	ready, failed := make(chan error, 1), make(chan error, 1)
	rx := e.newReceiver()
	osthread.Start(func() {
		err := errReceiverGone // unless run returns
		defer func() {
			failed <- err
			close(e.ended)
		}()
		err = rx.run(ready)
	})
	err := <-ready
	if err == nil {
		err = e.serve(ctx, failed)
	}
	e.closeAll()
	return err
}

// serve runs everything but the receive thread until the stop is complete.
func (e *Engine) serve(ctx context.Context, failed <-chan error) error {
	e.setProcs(e.wantsProcs(now()))
	for _, w := range (*e.workers.Load())[1:] {
		if e.running.add() {
			w.start()
		}
	}
	side, cancel := context.WithCancel(context.Background())
	var sides sync.WaitGroup
	sides.Go(func() {
		e.keep(side)
		e.setProcs(0)
	})
	if e.cfg.HandlerDeadline > 0 {
		sides.Go(func() { e.watch(side) })
	}
	defer sides.Wait()
	defer cancel()

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	return errors.Join(err, e.stop(failed))
}

// stop ends the receive thread, then the workers.
func (e *Engine) stop(failed <-chan error) error {
	e.mu.Lock()
	e.stopping = true
	e.mu.Unlock()
	e.poke()
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
	wait(e.ended)
	if e.cfg.Inline {
		e.expireAll(now())
		select {
		case <-e.ended:
			return receiverError(failed)
		default: // its thread sees the stop when the handler returns
			return fmt.Errorf("engine: stop: %w: the inline handler", ErrStopTimeout)
		}
	}
	<-e.ended // the receive thread runs no handler here: it sees the stop at once
	e.bench.end()
	e.rings.Close()
	idle := e.running.allGone()
	wait(idle)
	err := receiverError(failed)
	if inTime {
		return err
	}
	// Whatever still waits is dropped; whatever still runs is answered for.
	e.running.close() // late workers are no longer replaced
	for _, src := range *e.sources.Load() {
		if src != nil {
			e.dropAll(src)
		}
	}
	// A worker may be about to start on the last request it took: look again
	// until nobody works or only handlers that were answered for do.
	for giveUp := time.Now().Add(e.cfg.StopTimeout); ; time.Sleep(100 * time.Microsecond) {
		e.expireAll(now())
		if e.settled() {
			break
		}
		if time.Now().After(giveUp) {
			return errors.Join(err, fmt.Errorf("engine: stop: not every notification is accounted for: %+v", e.Counters()))
		}
	}
	if n := e.running.count(); n > 0 {
		err = errors.Join(err, fmt.Errorf("engine: stop: %w: %d of them", ErrStopTimeout, n))
	}
	return err
}

// dropAll drops what is in the ring of a source that is not received from any more.
func (e *Engine) dropAll(src *Source) {
	var h [1]uint64
	for src.ring.TryPop(h[:]) == 1 {
		e.held.Add(1)
		c := src.slab.At(uint32(h[0]))
		d := e.drops(&c.notif, c.stats, c.receivedAt)
		e.sendDrop(&e.tallies[0], src, &d)
		e.held.Add(-1)
		src.slab.Put(uint32(h[0]))
	}
}

// settled reports whether every notification has had its answer.
func (e *Engine) settled() bool {
	c := e.Counters()
	return c.Balance() == 0 && c.Queued+c.Held+c.InHandlers == 0
}

func receiverError(failed <-chan error) error {
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// closeAll closes what the engine owns. Nothing receives or answers any more.
func (e *Engine) closeAll() {
	e.mu.Lock()
	e.state = over
	e.mu.Unlock()
	e.retirers.Wait()
	for _, src := range *e.sources.Load() {
		if src != nil && src.retiring.CompareAndSwap(false, true) {
			_ = src.l.Close()
			close(src.ended)
		}
	}
	closeOurs := func() {
		_ = unix.Close(e.epfd)
		_ = unix.Close(e.wakefd)
	}
	select {
	case <-e.ended:
		closeOurs()
	default:
		// A late inline handler still has the receive thread; closing its
		// descriptors now would give their numbers to somebody else.
		go func() {
			<-e.ended
			closeOurs()
		}()
	}
}

// Add has the engine supervise l, before or while it runs. On success l is the
// engine's, which closes it; on error it stays the caller's.
func (e *Engine) Add(l *notify.Listener) (*Source, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.state == over || e.stopping {
		return nil, fmt.Errorf("engine: add listener: the engine has stopped: %w", os.ErrClosed)
	}
	for _, o := range *e.sources.Load() {
		if o != nil && o.l.FD() == l.FD() {
			return nil, fmt.Errorf("engine: add listener %d: it is the engine's already: %w", l.FD(), unix.EEXIST)
		}
	}
	mode := Async
	if e.cfg.WakeUp != Async {
		err := l.SetFlags(notify.SyncWakeUp)
		switch {
		case err == nil:
			mode = Sync
		case e.cfg.WakeUp == Sync:
			return nil, fmt.Errorf("engine: add listener: %w (use another wake-up mode)", &notify.UnsupportedError{Feature: "SYNC_WAKE_UP", Since: "6.6", Err: err})
		}
	}
	if e.cfg.Cookies != [3]uintptr{} {
		l.SetCookies(e.cfg.Cookies)
	}
	all := append([]*Source(nil), *e.sources.Load()...)
	i := 0
	for i < len(all) && all[i] != nil {
		i++
	}
	s := e.newSource(l, i)
	s.wakeUp.Store(uint32(mode))
	s.asked = mode
	s.applied.Store(uint32(mode))
	if i == len(all) {
		all = append(all, s)
	} else {
		all[i] = s
	}
	old := e.sources.Swap(&all)
	if err := e.enter(s); err != nil {
		e.sources.Store(old)
		e.leave(s)
		return nil, fmt.Errorf("engine: add listener %d: %w", l.FD(), err)
	}
	if mode == Async {
		e.async.Store(true)
	}
	if e.state == started {
		e.poke() // it may be in RECV on what was the only listener
		e.ask()  // or on its targets' CPU
	}
	return s, nil
}

// Remove takes a listener out: nothing more is received from it, what was is
// answered, then it is closed. It waits for that, or until ctx ends, after
// which the rest happens without it. A source that is gone already is no error.
func (e *Engine) Remove(ctx context.Context, s *Source) error {
	go e.retire(s, true)
	select {
	case <-s.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("engine: remove listener: %w", ctx.Err())
	}
}

// Release takes a listener out and hands it back open, once what was received
// is answered: calls that nobody received keep waiting there for another
// supervisor.
func (e *Engine) Release(s *Source) (*notify.Listener, error) {
	if !e.retire(s, false) {
		return nil, fmt.Errorf("engine: release listener: it is being removed: %w", os.ErrClosed)
	}
	return s.l, nil
}

// retire takes s out and reports whether it was this call that did.
func (e *Engine) retire(s *Source, closeIt bool) bool {
	e.mu.Lock()
	if e.state == over || !s.retiring.CompareAndSwap(false, true) {
		e.mu.Unlock()
		return false
	}
	e.retirers.Add(1)
	defer e.retirers.Done()
	if !e.unwatched.CompareAndSwap(s, nil) {
		_ = unix.EpollCtl(e.epfd, unix.EPOLL_CTL_DEL, s.l.FD(), nil)
	}
	running := e.state == started
	e.mu.Unlock()
	if running {
		// The receive thread may hold an event of this listener: wait until it
		// is past it, then for what it received.
		e.turn(noFD)
		for s.open.Load() != 0 {
			<-s.drained
		}
		if e.cfg.PrivateFiles {
			e.turn(s.l.FD())
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	all := append([]*Source(nil), *e.sources.Load()...)
	if all[s.index] == s {
		all[s.index] = nil
	}
	e.sources.Store(&all)
	e.leave(s)
	if closeIt {
		_ = s.l.Close()
	}
	close(s.ended)
	e.ask() // where the receive thread is, is of interest again
	return true
}

// A turn is somebody's wish that the receive thread go round its loop once.
type turn struct {
	closeFD int // and close this descriptor in its private file table, or noFD
	done    chan struct{}
}

const noFD = -1

// turn has the receive thread go round its loop and waits until it has, or ended.
func (e *Engine) turn(closeFD int) {
	t := turn{closeFD, make(chan struct{})}
	e.mu.Lock()
	e.turns = append(e.turns, t)
	e.poke()
	e.mu.Unlock()
	select {
	case <-t.done:
	case <-e.ended:
	}
}

// leave takes a source's ring out of the set; it is empty.
func (e *Engine) leave(s *Source) {
	if s.ring != nil {
		e.rings.Remove(s.ring)
	}
}

// idleAfter is how long no call must have come for the receive thread to go back
// to epoll from a blocked RECV: there it needs no signal to be woken, and
// kernels before 6.11 tell only there that the last target is gone.
const idleAfter = 20 * time.Millisecond

// pulse bounds how long Go 1.26 may take to stop the world. A thread that enters
// a system call just as a stop begins can keep its P (reentersyscall looks at
// sched.gcwaiting before it becomes _Gsyscall), and then only the end of that call
// or sysmon frees it; sysmon sleeps until the next timer, for up to a minute. That
// may be the very call that waits for our answer. A timer is all it takes.
const pulse = 200 * time.Millisecond

// ask has the keeper look at what the receive thread wants done.
func (e *Engine) ask() {
	select {
	case e.asks <- struct{}{}:
	default: // it will look anyway
	}
}

// keep does for the receive thread what a confined thread may not, and what it
// has no time for: it retires listeners whose targets are gone, sets wake-up
// modes, and takes it out of RECV when no calls come.
func (e *Engine) keep(ctx context.Context) {
	tick := time.NewTicker(pulse)
	period := pulse
	var l lookout
	clock.Adjust()
	for {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case s := <-e.hangups:
			go e.retire(s, true)
		case <-e.asks:
			e.setWakeUps()
			e.checkMasks()
			e.adapt()
		case <-tick.C:
			clock.Adjust()
			if period != pulse {
				l.look(e, period)
				e.adapt() // it may have opened the bench
			}
		}
		if p := e.period(); p != period {
			if period == pulse {
				l = lookout{}
			}
			period = p
			tick.Reset(period)
		}
	}
}

// adapt has threads and Ps as the load wants them.
func (e *Engine) adapt() {
	if e.mayJoin() && !e.kept {
		e.lookAtMasks()
	}
	e.setJoin()
	e.bringWorker()
	e.setPair()
	e.setBatch()
	e.setPriority()
	e.setProcs(e.wantsProcs(now()))
}

// setBatch makes the receive thread a batch thread while one worker shares its CPU.
func (e *Engine) setBatch() {
	if want := e.bench.up() == alone; want != e.batch {
		e.batch = want
		if err := osthread.Batch(int(e.rxTID.Load()), want); err != nil {
			e.cfg.Logger.Debug("receive thread keeps its scheduling policy", "err", err)
		}
	}
}

// setWakeUps applies the wake-up modes that the receive thread has chosen.
func (e *Engine) setWakeUps() {
	e.mu.Lock()
	defer e.mu.Unlock() // nobody closes a listener meanwhile
	for _, s := range *e.sources.Load() {
		if s == nil || s.retiring.Load() {
			continue
		}
		mode := s.WakeUp()
		if mode == s.asked {
			continue
		}
		s.asked = mode
		var flags uint64
		if mode == Sync {
			flags = notify.SyncWakeUp
		}
		if err := s.l.SetFlags(flags); err != nil {
			e.cfg.Logger.Debug("wake-up mode stays", "listener", s.l.FD(), "err", err)
			continue
		}
		s.applied.Store(uint32(mode))
		e.switches.Add(1)
		e.cfg.Logger.Debug("wake-up mode follows the load", "listener", s.l.FD(), "sync", mode == Sync)
	}
}

// receiverAt tells where the receive thread is: its id, and the CPU that it is
// pinned to or -1.
func (e *Engine) receiverAt(tid, cpu int) {
	e.rxTID.Store(int32(tid))
	e.rxCPU.Store(int32(cpu))
	e.home.Store(int32(cpu))
	if cpu >= 0 && e.cfg.Placement != Anywhere {
		e.placement.Store(int32(cpu))
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
