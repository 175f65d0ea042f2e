package engine

import "syscall"

// A Thread says what the receive thread works with, for a [Config.ThreadHook]
// that takes away everything else. All of it stays the engine's.
type Thread struct {
	Listeners []int          // descriptors of the listeners added so far
	Epoll     int            // the epoll instance on which it waits
	Wake      int            // the eventfd by which others wake it
	Signal    syscall.Signal // the signal that interrupts its receive; 0: none
}

// Thread returns what the receive thread works with. Listeners that are added
// later are not in it.
func (e *Engine) Thread() Thread {
	t := Thread{Epoll: e.epfd, Wake: e.wakefd}
	for _, s := range *e.sources.Load() {
		if s != nil {
			t.Listeners = append(t.Listeners, s.l.FD())
		}
	}
	return t
}
