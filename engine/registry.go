package engine

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/unknot/unknot/engine/internal/placement"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/kernel"
	"golang.org/x/sys/unix"
)

// MaxListeners bounds the listeners of an engine.
const MaxListeners = 4096

// A registry is the listeners of an engine. A listener has an index, by which epoll and the rings' handles
// name it, for as long as it is here.
type registry struct {
	table         [MaxListeners]atomic.Pointer[Source] // by index; written under mu
	high          atomic.Int32                         // no index from here on was used yet
	added, hungUp atomic.Uint64                        // listeners, so far

	mu   kernel.Mutex
	free []int // indexes below high that are nobody's
	byFD map[int]*Source
}

// at is the source with that index. It stays there for as long as it has calls.
func (r *registry) at(index int) *Source { return r.table[index].Load() }

// each yields the sources.
func (r *registry) each(yield func(*Source) bool) {
	for i := range r.high.Load() {
		if s := r.table[i].Load(); s != nil && !yield(s) {
			return
		}
	}
}

// next is an index that is free. The caller holds r.mu.
func (r *registry) next() int {
	if n := len(r.free); n > 0 {
		return r.free[n-1]
	}
	return int(r.high.Load())
}

// place gives s, whose index is next's, its place. The caller holds r.mu.
func (r *registry) place(s *Source) {
	r.table[s.index].Store(s)
	if n := len(r.free); n > 0 {
		r.free = r.free[:n-1]
	} else {
		r.high.Add(1)
	}
	r.byFD[s.l.FD()] = s
}

// remove takes s out. The caller holds r.mu.
func (r *registry) remove(s *Source) {
	r.table[s.index].Store(nil)
	r.free = append(r.free, s.index)
	delete(r.byFD, s.l.FD())
}

// receivers are an engine's.
type receivers struct {
	list atomic.Pointer[[]*receiver] // replaced, never changed; written under registry.mu
	auto bool                        // there are as many as the listeners want
	cpus int                         // that may be used at once
}

func (r *receivers) init(c *Config, cpus []int) {
	r.list.Store(&[]*receiver{})
	// A private file table has the listeners that were there when its thread began.
	r.auto = c.Receivers == 0 && c.CPU == AutoCPU && !c.PrivateFiles
	r.cpus = min(len(cpus), usableCPUs())
}

func (r *receivers) all() []*receiver { return *r.list.Load() }

// inUse is how many have listeners; one, if none has.
func (r *receivers) inUse() int {
	n := 0
	for _, rx := range r.all() {
		if len(*rx.listeners.Load()) > 0 {
			n++
		}
	}
	return max(1, n)
}

// openReceiver adds a receiver, whose thread is not started.
func (e *Engine) openReceiver() (*receiver, error) {
	all := e.receivers.all()
	rx, err := e.newReceiver(len(all))
	if err != nil {
		return nil, err
	}
	all = append(slices.Clone(all), rx)
	e.receivers.list.Store(&all)
	return rx, nil
}

// seats are the CPUs that the receivers so far call their own.
func (e *Engine) seats() (cpus []int) {
	for _, rx := range e.receivers.all() {
		cpus = append(cpus, rx.seat.cpu)
	}
	return cpus
}

// grow opens another receiver where one more listener wants one. What cannot be had is done without. The
// caller holds registry.mu.
func (e *Engine) grow() {
	n := len(e.registry.byFD) + 1
	for e.receivers.auto && len(e.receivers.all()) < placement.Receivers(n, e.receivers.cpus) {
		rx, err := e.openReceiver()
		if err == nil && e.life.state == started {
			if err = rx.start(e.life.failed); err == nil {
				rx.startWorkers()
			} else {
				all := e.receivers.all()
				all = slices.Clone(all[:len(all)-1])
				e.receivers.list.Store(&all)
				<-rx.ended
				rx.close()
			}
		}
		if err != nil {
			e.receivers.auto = false
			e.cfg.Logger.Warn("no further receive thread: those that are there serve all listeners", "err", err)
		}
	}
}

// loads are the receivers and their listeners as placement sees them, in the order of receivers.all and
// receiver.listeners.
func (e *Engine) loads() (rs []placement.Receiver, ss [][]*Source) {
	for _, rx := range e.receivers.all() {
		r := placement.Receiver{CPU: rx.seat.cpu}
		mine := *rx.listeners.Load()
		for _, s := range mine {
			r.Listeners = append(r.Listeners, s.seen.load())
		}
		rs, ss = append(rs, r), append(ss, mine)
	}
	return rs, ss
}

// Add has the engine supervise l, before or while it runs. On success l is the
// engine's, which closes it; on error it stays the caller's. While an engine with
// [Config.PrivateFiles] runs, Add fails with [ErrPrivateFiles].
//
// It sets the listener's wake-up flag (SECCOMP_IOCTL_NOTIF_SET_FLAGS), whatever another
// supervisor left there.
func (e *Engine) Add(l *notify.Listener) (*Source, error) { return e.AddWith(l, SourceOptions{}) }

// AddWith is Add for a listener with options of its own.
func (e *Engine) AddWith(l *notify.Listener, o SourceOptions) (*Source, error) {
	s, err := e.add(l, o)
	if err == nil {
		e.cfg.Logger.Info("listener added", s.log(), "receiver", s.owner.Load().index, "inline", s.inline)
	}
	return s, err
}

// Sources are the engine's listeners, in no order, without those that are gone.
func (e *Engine) Sources() []*Source { return slices.Collect(e.registry.each) }

func (e *Engine) add(l *notify.Listener, o SourceOptions) (*Source, error) {
	r := &e.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.life.state == over || e.life.stopping {
		return nil, fmt.Errorf("engine: add listener: the engine has stopped: %w", os.ErrClosed)
	}
	if e.life.state == started && e.cfg.PrivateFiles {
		return nil, fmt.Errorf("engine: add listener %d: %w: add it before Run, or leave the thread the process's table", l.FD(), ErrPrivateFiles)
	}
	if r.byFD[l.FD()] != nil {
		return nil, fmt.Errorf("engine: add listener %d: it is the engine's already: %w", l.FD(), unix.EEXIST)
	}
	if len(r.byFD) >= MaxListeners {
		return nil, fmt.Errorf("engine: add listener %d: there are %d, the most that an engine takes; begin another: %w", l.FD(), MaxListeners, unix.ENOSPC)
	}
	if l.Carried() && (e.cfg.ThreadHook != nil || e.cfg.PrivateFiles) {
		return nil, fmt.Errorf("engine: add listener %d: what carries it needs more than a receive thread with a hook or private files may do: give it an engine without: %w", l.FD(), ErrConfined)
	}
	s, err := e.newSource(l, o, r.next())
	if err != nil {
		return nil, fmt.Errorf("engine: add listener %d: %w", l.FD(), err)
	}
	if err := e.setWakeUp(l); err != nil {
		return nil, err
	}
	if e.cfg.Cookies != [3]uintptr{} {
		l.SetCookies(e.cfg.Cookies)
	}
	e.grow()
	rs, _ := e.loads()
	rx := e.receivers.all()[placement.Deal(rs, placement.Listener{})]
	r.place(s)
	if err := s.enter(rx); err != nil {
		r.remove(s)
		return nil, fmt.Errorf("engine: add listener %d: %w", l.FD(), err)
	}
	r.added.Add(1)
	if e.life.state == started {
		rx.interrupt() // it may be in RECV on what was its only listener
		e.control.reconcile()
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
	r := &e.registry
	r.mu.Lock()
	for s.moved != nil { // to another receiver, which does not take long
		moved := s.moved
		r.mu.Unlock()
		<-moved
		r.mu.Lock()
	}
	if e.life.state == over || s.retired {
		s.unwanted = s.unwanted || closeIt
		r.mu.Unlock()
		return errRetiring
	}
	s.retired = true
	s.leaving.Store(true)
	e.life.retirers.Add(1)
	defer e.life.retirers.Done()
	s.owner.Load().detach(s)
	running := e.life.state == started
	r.mu.Unlock()
	if running {
		err := e.drain(ctx, s)
		if err == nil && e.cfg.PrivateFiles {
			err = s.owner.Load().barrier(ctx, s.l.FD(), nil)
		}
		if err != nil {
			e.keepOn(s)
			return err
		}
	}
	says := s.log() // by its descriptor
	r.mu.Lock()
	s.exit()
	r.remove(s)
	if closeIt {
		_ = s.l.Close()
	} else {
		e.resetWakeUp(s.l)
	}
	close(s.ended)
	r.mu.Unlock()
	e.control.reconcile() // who is left may want other threads
	what := "listener released"
	if closeIt {
		what = "listener removed"
	}
	e.cfg.Logger.Info(what, says, "received", s.received.Load(), "answered", s.ends.answered.Load(), "dropped", s.ends.dropped.Load())
	return nil
}

// drain waits until the receive thread is past an event of the listener that it may
// hold, and all that it received is answered. When
// the stop gives up, all is answered, and the thread receives nothing more.
func (e *Engine) drain(ctx context.Context, s *Source) error {
	if err := s.owner.Load().barrier(ctx, noFD, nil); err != nil {
		return err
	}
	for s.outstanding() != 0 {
		select {
		case <-s.drained:
		case <-e.life.givenUp:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// keepOn undoes what retire has begun.
func (e *Engine) keepOn(s *Source) {
	e.registry.mu.Lock()
	defer e.registry.mu.Unlock()
	s.retired = false
	e.resume(s)
}

// resume has a listener received from again whose owner is to keep it. The caller holds registry.mu.
func (e *Engine) resume(s *Source) {
	s.leaving.Store(false)
	if e.life.state == over {
		return // closeAll, which waits for us, closes it
	}
	rx := s.owner.Load()
	err := rx.attach(s.l.FD(), s.index)
	if err != nil {
		e.cfg.Logger.Error("listener is removed, as epoll does not take it back", "listener", s.l.FD(), "err", err)
	}
	if err != nil || s.unwanted {
		go func() { _ = e.retire(context.Background(), s, true) }()
	}
	rx.interrupt() // it may wait in epoll with calls held
}

// moveMost bounds for how long calls of a listener that goes to another receiver wait in the kernel
// while those that were received are answered. Where handlers take longer it stays.
const moveMost = 100 * time.Millisecond

// move takes s to another receiver, without losing a call: those that come meanwhile wait in the
// kernel. It reports whether it did.
func (e *Engine) move(s *Source, to *receiver) bool {
	r := &e.registry
	r.mu.Lock()
	from := s.owner.Load()
	if e.life.state != started || e.life.stopping || s.retired || s.moved != nil || s.gone.Load() || from == to {
		r.mu.Unlock()
		return false
	}
	e.life.retirers.Add(1)
	defer e.life.retirers.Done()
	s.moved = make(chan struct{})
	s.leaving.Store(true)
	from.detach(s)
	r.mu.Unlock()

	ctx, cancel := context.WithTimeout(context.Background(), moveMost)
	defer cancel()
	err := e.drain(ctx, s)
	if err == nil {
		err = from.barrier(ctx, noFD, s) // nor does it keep a timer for s
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() {
		close(s.moved)
		s.moved = nil
	}()
	if err != nil || e.life.state == over {
		e.resume(s)
		return false
	}
	s.exit()
	if err = s.enter(to); err == nil {
		s.leaving.Store(false)
		to.interrupt() // it may be in RECV on what was its only listener
		return true
	}
	e.cfg.Logger.Error("listener stays with its receiver, as the other one cannot watch it", "listener", s.l.FD(), "err", err)
	s.own(from)
	e.resume(s)
	return false
}
