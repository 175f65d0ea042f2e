//go:build cgo

package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	seccomp "github.com/seccomp/libseccomp-golang"
	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/mono"
	"golang.org/x/sys/unix"
)

// channel is what people write today: libseccomp's NotifReceive in a goroutine
// for each listener,
// a buffered channel, worker goroutines. A full channel drops the oldest, one
// at a time, so that it answers for every call like the others.
type channel struct {
	s       Spec
	ls      []*notify.Listener
	c       chan chanItem
	done    chan error // of each receiving goroutine
	workers sync.WaitGroup
	stop    atomic.Bool

	clock *mono.Line
	tally
	wait hist.Hist
}

type chanItem struct {
	l          *notify.Listener
	id         uint64
	receivedAt int64
	arg        uint64 // the sixth
}

func newChan(s Spec) (Supervisor, error) {
	return &channel{s: s, clock: peerClock(), c: make(chan chanItem, s.Queue*s.listeners())}, nil
}

func (d *channel) Serve(ls ...*notify.Listener) error {
	d.ls, d.done = ls, make(chan error, len(ls))
	for range d.s.Workers {
		d.workers.Go(d.worker)
	}
	for _, l := range ls {
		go func() { d.done <- d.receive(l) }()
	}
	return nil
}

func (d *channel) receive(l *notify.Listener) error {
	fd := seccomp.ScmpFd(l.FD())
	for !d.stop.Load() {
		req, err := seccomp.NotifReceive(fd)
		if err != nil {
			if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECANCELED) {
				if hungUp(l) {
					return nil
				}
				continue
			}
			return fmt.Errorf("chan: receive: %w", err)
		}
		it := chanItem{l, req.ID, d.clock.Now(), req.Data.Args[5]}
		for sent := false; !sent; {
			select {
			case d.c <- it:
				sent = true
			default:
				select {
				case old := <-d.c: // libseccomp wants the errno positive
					d.answer(old.l, &seccomp.ScmpNotifResp{ID: old.id, Error: int32(unix.EINTR)}, &d.dropped)
				default: // a worker was faster
				}
			}
		}
	}
	return nil
}

func (d *channel) worker() {
	for it := range d.c {
		d.wait.Record(d.clock.Now() - it.receivedAt)
		if err := seccomp.NotifIDValid(seccomp.ScmpFd(it.l.FD()), it.id); errors.Is(err, unix.ENOENT) {
			d.stale.Add(1)
			continue
		}
		d.s.work(it.arg)
		d.answer(it.l, &seccomp.ScmpNotifResp{ID: it.id, Val: answerVal}, &d.served)
	}
}

func (d *channel) answer(l *notify.Listener, r *seccomp.ScmpNotifResp, count *atomic.Uint64) {
	for {
		// libseccomp says ECANCELED for every errno of the kernel's, EINTR
		// among them: ask whether the call still waits.
		if seccomp.NotifRespond(seccomp.ScmpFd(l.FD()), r) != nil {
			if l.IDValid(r.ID) == nil {
				continue
			}
			count = &d.stale
		}
		count.Add(1)
		return
	}
}

func (d *channel) Waits() *hist.Snapshot { return d.wait.Snapshot() }

func (d *channel) Stop(ctx context.Context) error {
	d.stop.Store(true)
	var err error
	for range d.ls {
		select {
		case e := <-d.done:
			err = errors.Join(err, e)
			continue
		case <-ctx.Done():
		}
		return fmt.Errorf("chan: the receiver still blocks in RECV: no notification came after the stop: %w", ctx.Err())
	}
	close(d.c)
	d.workers.Wait()
	return errors.Join(err, closeListeners(d.ls))
}
