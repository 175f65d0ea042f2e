package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

// bare is the floor: a locked thread, epoll, RECV, SEND. It has a thread for each listener; as bare-pool
// one for each CPU, pinned, to which the listeners are dealt in turn.
type bare struct {
	s       Spec
	pool    bool
	ls      []*notify.Listener
	threads int
	procs   int // added to GOMAXPROCS
	stop    atomic.Bool
	done    chan error // of each thread
	tally
}

func newBare(s Spec) (Supervisor, error) { return &bare{s: s}, nil }

func newBarePool(s Spec) (Supervisor, error) { return &bare{s: s, pool: true}, nil }

func (b *bare) Serve(ls ...*notify.Listener) error {
	cpus := osthread.Allowed()
	b.threads = len(ls)
	if b.pool {
		b.threads = min(len(ls), max(1, len(cpus)))
	}
	eps := make([]int, 0, b.threads)
	closeAll := func() {
		for _, ep := range eps {
			_ = unix.Close(ep)
		}
	}
	for range b.threads {
		ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			closeAll()
			return fmt.Errorf("bare: epoll: %w", err)
		}
		eps = append(eps, ep)
	}
	for i, l := range ls {
		_ = l.SetFlags(notify.SyncWakeUp) // kernels without it are slower, not wrong
		if err := unix.EpollCtl(eps[i%b.threads], unix.EPOLL_CTL_ADD, l.FD(), &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}); err != nil {
			closeAll()
			return fmt.Errorf("bare: epoll: %w", err)
		}
	}
	b.ls, b.done = ls, make(chan error, b.threads)
	if len(ls) > 1 {
		b.procs = b.threads // threads in system calls keep their Ps for a while
		osthread.AddProcs(b.procs)
	}
	for i, ep := range eps {
		osthread.Start(func() {
			// A lone thread is where unknot's is. Threads of several listeners are the scheduler's, unless a pool's.
			if len(cpus) > 1 && (b.pool || b.threads == 1) {
				_ = osthread.Pin(cpus[len(cpus)-1-i%len(cpus)])
			}
			b.done <- b.loop(ep)
			_ = unix.Close(ep)
		})
	}
	return nil
}

func (b *bare) loop(ep int) error {
	var ev [16]unix.EpollEvent
	var n notify.Notif
	for !b.stop.Load() {
		k, err := unix.EpollWait(ep, ev[:], 100)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("bare: wait: %w", err)
		}
		for _, ev := range ev[:max(k, 0)] {
			l := b.ls[ev.Fd]
			switch {
			case ev.Events&unix.EPOLLIN != 0:
			case ev.Events&unix.EPOLLHUP != 0:
				_ = unix.EpollCtl(ep, unix.EPOLL_CTL_DEL, l.FD(), nil)
				continue
			default:
				continue
			}
			if l.RecvReady(&n) != nil {
				continue
			}
			b.s.work(n.Data.Args[5])
			if l.Send(&notify.Resp{ID: n.ID, Val: answerVal}) == nil {
				b.served.Add(1)
			} else {
				b.stale.Add(1)
			}
		}
	}
	return nil
}

// Waits is nil: nothing lies between receive and the handler.
func (b *bare) Waits() *hist.Snapshot { return nil }

func (b *bare) Stop(ctx context.Context) error {
	b.stop.Store(true)
	defer osthread.AddProcs(-b.procs)
	var err error
	for range b.threads {
		select {
		case e := <-b.done:
			err = errors.Join(err, e)
		case <-ctx.Done():
			return fmt.Errorf("bare: %w", ctx.Err())
		}
	}
	return errors.Join(err, closeListeners(b.ls))
}
