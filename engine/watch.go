package engine

import "golang.org/x/sys/unix"

// A lone listener is not in epoll while the receive thread stays with it, in RECV.
//
// Whoever makes a trapped call wakes those who poll the listener, and does so holding its
// lock (seccomp_do_user_notification, notify_lock): with the listener in an epoll instance that
// is a callback and a place in a list of what is ready, for a thread that is not in epoll at
// all. Measured as calls/s without it there relative to with it, in storms of half a second: inline
// 1.02 to 1.04 at 1 target, 1.02 at 16, 1.04 to 1.05 at 64, 1.02 to 1.05 at 256, those on another
// CPU; by the queue 1.01 at 4 targets, 1.03 at 64 on another CPU.
//
// A confined thread may not call epoll_ctl, so the keeper does it, for stays that last. Nothing
// waits for it to undo that: while a listener is out, the receive thread polls all there are
// wherever it would wait in epoll.

// unwatch takes the listener out of epoll if the receive thread still stays with it. Only
// the keeper calls it, and rewatch.
func (e *Engine) unwatch() {
	e.mu.Lock() // nobody closes a listener meanwhile
	defer e.mu.Unlock()
	s := lone(*e.sources.Load())
	if s == nil || !s.receivable() {
		return
	}
	// Before the look at staying, which the receive thread ends before it looks here.
	e.unwatched.Store(s)
	if !e.staying.Load() || unix.EpollCtl(e.epfd, unix.EPOLL_CTL_DEL, s.l.FD(), nil) != nil {
		e.unwatched.Store(nil)
		return
	}
	e.takenOut.Add(1)
}

// rewatch has epoll watch what it does not. If it cannot, for want of memory, polling goes on.
func (e *Engine) rewatch() {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.unwatched.Load()
	if s == nil {
		return // it was taken out of the engine meanwhile
	}
	if s.receivable() {
		if err := e.enter(s); err != nil {
			e.cfg.Logger.Debug("listener stays out of epoll", "listener", s.l.FD(), "err", err)
			return
		}
	}
	e.unwatched.Store(nil)
}

// enter has epoll watch s.
func (e *Engine) enter(s *Source) error {
	return unix.EpollCtl(e.epfd, unix.EPOLL_CTL_ADD, s.l.FD(), &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s.index)})
}
