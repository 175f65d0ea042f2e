package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/osthread"
	"golang.org/x/sys/unix"
)

// bare is the floor: one locked, pinned thread, epoll, RECV, SEND.
type bare struct {
	s    Spec
	l    *notify.Listener
	stop atomic.Bool
	done chan error
	tally
}

func newBare(s Spec) (Supervisor, error) { return &bare{s: s}, nil }

func (b *bare) Serve(l *notify.Listener) error {
	_ = l.SetFlags(notify.SyncWakeUp) // kernels without it are slower, not wrong
	b.l, b.done = l, make(chan error, 1)
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("bare: epoll: %w", err)
	}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, l.FD(), &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
		_ = unix.Close(ep)
		return fmt.Errorf("bare: epoll: %w", err)
	}
	osthread.Start(func() {
		if cpus := osthread.Allowed(); len(cpus) > 1 {
			_ = osthread.Pin(cpus[len(cpus)-1]) // like unknot
		}
		b.done <- b.loop(ep)
		_ = unix.Close(ep)
	})
	return nil
}

func (b *bare) loop(ep int) error {
	var ev [1]unix.EpollEvent
	var n notify.Notif
	for !b.stop.Load() {
		k, err := unix.EpollWait(ep, ev[:], 100)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("bare: wait: %w", err)
		}
		if k <= 0 {
			continue
		}
		if ev[0].Events&unix.EPOLLIN == 0 {
			if ev[0].Events&unix.EPOLLHUP != 0 {
				return nil
			}
			continue
		}
		if b.l.RecvReady(&n) != nil {
			continue
		}
		b.s.work(n.Data.Args[5])
		if b.l.Send(&notify.Resp{ID: n.ID, Val: answerVal}) == nil {
			b.served.Add(1)
		} else {
			b.stale.Add(1)
		}
	}
	return nil
}

// Waits is nil: nothing lies between receive and the handler.
func (b *bare) Waits() *hist.Snapshot { return nil }

func (b *bare) Stop(ctx context.Context) error {
	b.stop.Store(true)
	select {
	case err := <-b.done:
		return errors.Join(err, b.l.Close())
	case <-ctx.Done():
		return fmt.Errorf("bare: %w", ctx.Err())
	}
}
