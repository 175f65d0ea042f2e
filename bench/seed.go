package bench

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/osthread"
	"github.com/unknot/unknot/ring"
	"golang.org/x/sys/unix"
)

// seed is the design that unknot descends from, the notifier thread of Syd: one
// thread blocks in RECV and pushes into a bounded queue; when it is full it pops
// one oldest request, answers EINTR at once, and tries again.
type seed struct {
	s       Spec
	l       *notify.Listener
	queue   *ring.Queue[seedItem]
	stop    atomic.Bool
	done    chan error
	workers sync.WaitGroup

	served, dropped, stale atomic.Uint64
	wait                   hist.Hist
}

type seedItem struct {
	id         uint64
	receivedAt int64
}

func newSeed(s Spec) (Supervisor, error) {
	return &seed{s: s, queue: ring.NewQueue[seedItem](s.Queue)}, nil
}

func (d *seed) Serve(l *notify.Listener) error {
	d.l, d.done = l, make(chan error, 1)
	_ = l.SetFlags(notify.SyncWakeUp) // as the original does
	for range d.s.Workers {
		d.workers.Go(d.worker)
	}
	osthread.Start(func() { d.done <- d.receive() })
	return nil
}

func (d *seed) receive() error {
	var n notify.Notif
	var old [1]seedItem
	for !d.stop.Load() {
		if err := d.l.Recv(&n); err != nil {
			// Since Linux 6.11 RECV returns ENOENT for ever when no target is
			// left, which is how this loop ends; older kernels need a stop.
			switch notify.OutcomeOf(err) {
			case notify.Retry, notify.Stale:
				if hungUp(d.l) {
					return nil
				}
				continue
			}
			return fmt.Errorf("seed: %w", err)
		}
		it := []seedItem{{n.ID, now()}}
		for d.queue.Push(it) == 0 {
			if d.queue.TryPop(old[:]) == 1 {
				d.answer(&notify.Resp{ID: old[0].id, Error: -int32(unix.EINTR)}, &d.dropped)
			}
		}
	}
	return nil
}

// hungUp reports whether no target is left.
func hungUp(l *notify.Listener) bool {
	p := []unix.PollFd{{Fd: int32(l.FD()), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&unix.POLLHUP != 0
}

func (d *seed) worker() {
	c := d.queue.Consumer()
	var it [1]seedItem
	for c.Pop(it[:]) == 1 {
		d.wait.Record(now() - it[0].receivedAt)
		if notify.OutcomeOf(d.l.IDValid(it[0].id)) == notify.Stale {
			d.stale.Add(1)
			continue
		}
		d.s.Work.Do()
		d.answer(&notify.Resp{ID: it[0].id, Val: answerVal}, &d.served)
	}
}

func (d *seed) answer(r *notify.Resp, count *atomic.Uint64) {
	if d.l.Send(r) != nil {
		count = &d.stale
	}
	count.Add(1)
}

func (d *seed) Waits() *hist.Snapshot { return d.wait.Snapshot() }

func (d *seed) Stop(ctx context.Context) (Stats, error) {
	d.stop.Store(true)
	var err error
	select {
	case err = <-d.done:
	case <-ctx.Done():
		return Stats{}, fmt.Errorf("seed: the receiver still blocks (Linux before 6.11 never wakes it): %w", ctx.Err())
	}
	d.queue.Close()
	d.workers.Wait()
	_ = d.l.Close()
	return Stats{Served: d.served.Load(), Dropped: d.dropped.Load(), Stale: d.stale.Load()}, err
}
