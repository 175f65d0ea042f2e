package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/mono"
	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/ring"
	"golang.org/x/sys/unix"
)

// seed is the design that unknot descends from, the notifier thread of Syd: one
// thread blocks in RECV and pushes into a bounded queue; when it is full it pops
// one oldest request, answers EINTR at once, and tries again.
//
// Its workers are threads that sleep in a futex, as the original's are, and all its threads have a
// P of the Go scheduler; see osthread.AddProcs. Relative to the same in C, which is what makes it a
// yardstick, on two CPUs: 1.6, 1.6, 1.1, 1.06 and 1.07 times the calls/s at 1, 4, 16, 64 and 256
// targets. With goroutines as workers, and without Ps: 0.56, 1.54, 0.87, 0.70 and 0.86.
type seed struct {
	s       Spec
	ls      []*notify.Listener
	queue   *ring.Queue[seedItem]
	stop    atomic.Bool
	done    chan error // of each receive thread
	workers sync.WaitGroup

	clock *mono.Line
	tally
	wait hist.Hist
}

// seedChecks: a tracer sees the dispatch of one call in so many, as with package
// engine. The original never asks.
const seedChecks = 64

type seedItem struct {
	l          *notify.Listener
	id         uint64
	receivedAt int64
	arg        uint64 // the sixth
}

func newSeed(s Spec) (Supervisor, error) {
	return &seed{s: s, clock: peerClock(), queue: ring.NewQueue[seedItem](s.Queue * s.listeners())}, nil
}

func (d *seed) Serve(ls ...*notify.Listener) error {
	d.ls, d.done = ls, make(chan error, len(ls))
	osthread.AddProcs(d.s.Workers + len(ls))
	for range d.s.Workers {
		d.workers.Add(1)
		osthread.Start(func() {
			defer d.workers.Done()
			d.worker()
		})
	}
	for _, l := range ls {
		_ = l.SetFlags(notify.SyncWakeUp) // as the original does
		osthread.Start(func() { d.done <- d.receive(l) })
	}
	return nil
}

func (d *seed) receive(l *notify.Listener) error {
	var n notify.Notif
	var old [1]seedItem
	for !d.stop.Load() {
		if err := l.Recv(&n); err != nil {
			switch notify.OutcomeOf(err) {
			case notify.Retry, notify.Stale:
				if hungUp(l) {
					return nil // before Stop: since Linux 6.11 it would be ENOENT for ever
				}
				continue
			}
			return fmt.Errorf("seed: %w", err)
		}
		it := [1]seedItem{{l, n.ID, d.clock.Now(), n.Data.Args[5]}}
		for d.queue.Push(it[:]) == 0 {
			if d.queue.TryPop(old[:]) == 1 {
				d.answer(old[0].l, &notify.Resp{ID: old[0].id, Error: -int32(unix.EINTR)}, &d.dropped)
			}
		}
	}
	return nil
}

func (d *seed) worker() {
	c := d.queue.ThreadConsumer()
	var it [1]seedItem
	for taken := uint32(0); c.Pop(it[:]) == 1; taken++ {
		d.wait.Record(d.clock.Now() - it[0].receivedAt)
		check := d.s.CheckAfter == engine.AlwaysCheck || taken%seedChecks == 0
		if check && notify.OutcomeOf(it[0].l.IDValid(it[0].id)) == notify.Stale {
			d.stale.Add(1)
			continue
		}
		d.s.work(it[0].arg)
		d.answer(it[0].l, &notify.Resp{ID: it[0].id, Val: answerVal}, &d.served)
	}
}

func (d *seed) answer(l *notify.Listener, r *notify.Resp, count *atomic.Uint64) {
	if l.Send(r) != nil {
		count = &d.stale
	}
	count.Add(1)
}

func (d *seed) Waits() *hist.Snapshot { return d.wait.Snapshot() }

func (d *seed) Stop(ctx context.Context) error {
	defer osthread.AddProcs(-d.s.Workers - len(d.ls))
	d.stop.Store(true)
	var err error
	for range d.ls {
		select {
		case e := <-d.done:
			err = errors.Join(err, e)
			continue
		case <-ctx.Done():
		}
		return fmt.Errorf("seed: the receiver still blocks in RECV: no notification came after the stop: %w", ctx.Err())
	}
	d.queue.Close()
	d.workers.Wait()
	return errors.Join(err, closeListeners(d.ls))
}
