package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
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
	givenUp  chan struct{} // closed when the stop waits for nobody any more; all is answered

	halted atomic.Bool // nothing more is received
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
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	if err := notify.FeatureNotify.Probe(); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	e := &Engine{cfg: cfg, hangups: make(chan *Source, 64), asks: make(chan struct{}, 1), cpus: osthread.Allowed(), ended: make(chan struct{}), givenUp: make(chan struct{})}
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
// Run returns when the stop timeout is up, whatever handlers do. One of an inline engine that
// never returns keeps the receive thread, and with [Config.PrivateFiles] its copies of the listeners.
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
	e.halted.Store(true)
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
		select {
		case <-e.ended:
			return receiverError(failed)
		default: // its thread sees the stop when the handler returns
		}
		return errors.Join(e.answerAll(), fmt.Errorf("engine: stop: %w: the inline handler", ErrStopTimeout))
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
	err = errors.Join(err, e.answerAll())
	if n := e.running.count(); n > 0 {
		err = errors.Join(err, fmt.Errorf("engine: stop: %w: %d of them", ErrStopTimeout, n))
	}
	return err
}

// answerAll answers for all handlers. A worker may be about to start on the last
// request it took: look again until nobody works or only handlers that were answered for do.
func (e *Engine) answerAll() error {
	for giveUp := time.Now().Add(e.cfg.StopTimeout); ; time.Sleep(100 * time.Microsecond) {
		e.expireAll(now())
		if e.settled() {
			return nil
		}
		if time.Now().After(giveUp) {
			return fmt.Errorf("engine: stop: not every notification is accounted for: %+v", e.Counters())
		}
	}
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
	close(e.givenUp) // a retirer may wait for a handler that never returns
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
// engine's, which closes it; on error it stays the caller's. While an engine with
// [Config.PrivateFiles] runs, Add fails with [ErrPrivateFiles].
//
// It sets the listener's wake-up flag (SECCOMP_IOCTL_NOTIF_SET_FLAGS), whatever another
// supervisor left there.
func (e *Engine) Add(l *notify.Listener) (*Source, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.state == over || e.stopping {
		return nil, fmt.Errorf("engine: add listener: the engine has stopped: %w", os.ErrClosed)
	}
	if e.state == started && e.cfg.PrivateFiles {
		return nil, fmt.Errorf("engine: add listener %d: %w: add it before Run, or leave the thread the process's table", l.FD(), ErrPrivateFiles)
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
	} else {
		_ = l.SetFlags(0) // a kernel without flags is as it should be
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
	go func() { _ = e.retire(context.Background(), s, true) }()
	select {
	case <-s.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("engine: remove listener: %w", ctx.Err())
	}
}

// Release takes a listener out and hands it back open, with its flags as the kernel makes
// them, once what was received is answered: calls that nobody received keep waiting
// there for another supervisor. If ctx ends before that, the listener stays the
// engine's and is received from again. Neither Release nor Remove can
// finish while an inline handler calls it.
func (e *Engine) Release(ctx context.Context, s *Source) (*notify.Listener, error) {
	if err := e.retire(ctx, s, false); err != nil {
		return nil, fmt.Errorf("engine: release listener: %w", err)
	}
	return s.l, nil
}

// retire takes s out, once what was received from it is answered. If ctx ends
// before, s is as it was before. What is retired already is an error, but a wish
// to close it is kept for the case that it comes back.
func (e *Engine) retire(ctx context.Context, s *Source, closeIt bool) error {
	e.mu.Lock()
	if e.state == over || !s.retiring.CompareAndSwap(false, true) {
		s.unwanted = s.unwanted || closeIt
		e.mu.Unlock()
		return errRetiring
	}
	e.retirers.Add(1)
	defer e.retirers.Done()
	if !e.unwatched.CompareAndSwap(s, nil) {
		_ = unix.EpollCtl(e.epfd, unix.EPOLL_CTL_DEL, s.l.FD(), nil)
	}
	running := e.state == started
	e.mu.Unlock()
	if running {
		if err := e.drain(ctx, s); err != nil {
			e.keepOn(s)
			return err
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
	switch {
	case closeIt:
		_ = s.l.Close()
	case WakeUp(s.applied.Load()) == Sync:
		_ = s.l.SetFlags(0) // it was set, so it can be
	}
	close(s.ended)
	e.ask() // where the receive thread is, is of interest again
	return nil
}

// drain waits until the receive thread is past an event of the listener that it may
// hold, and all that it received is answered; then the thread's own copy is closed. When
// the stop gives up, all is answered, and the thread receives nothing more.
func (e *Engine) drain(ctx context.Context, s *Source) error {
	if err := e.turn(ctx, noFD); err != nil {
		return err
	}
	for s.open.Load() != 0 {
		select {
		case <-s.drained:
		case <-e.givenUp:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if e.cfg.PrivateFiles {
		return e.turn(ctx, s.l.FD())
	}
	return nil
}

// keepOn undoes what retire has begun.
func (e *Engine) keepOn(s *Source) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s.retiring.Store(false)
	if e.state == over {
		return // closeAll, which waits for us, closes it
	}
	err := e.enter(s)
	if err != nil {
		e.cfg.Logger.Error("listener is removed, as epoll does not take it back", "listener", s.l.FD(), "err", err)
	}
	if err != nil || s.unwanted {
		go func() { _ = e.retire(context.Background(), s, true) }()
	}
	e.poke() // it may wait in epoll with calls held
}

// A turn is somebody's wish that the receive thread go round its loop once.
type turn struct {
	closeFD int // and close this descriptor in its private file table, or noFD
	done    chan struct{}
}

const noFD = -1

// turn has the receive thread go round its loop and waits until it has, or ended, or is
// given up. If ctx ends before, the thread will not close the descriptor.
func (e *Engine) turn(ctx context.Context, closeFD int) error {
	t := turn{closeFD, make(chan struct{})}
	e.mu.Lock()
	e.turns = append(e.turns, t)
	e.poke()
	e.mu.Unlock()
	select {
	case <-t.done:
	case <-e.ended:
	case <-e.givenUp:
	case <-ctx.Done():
		e.mu.Lock()
		defer e.mu.Unlock()
		if i := slices.Index(e.turns, t); i >= 0 {
			e.turns = slices.Delete(e.turns, i, i+1)
			return ctx.Err()
		} // else it was done meanwhile
	}
	return nil
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
			go func() { _ = e.retire(context.Background(), s, true) }()
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
