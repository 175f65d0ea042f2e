package bench

import (
	"context"
	"fmt"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/hist"
	"github.com/unknot/unknot/engine/notify"
)

// unknot is package engine as a Supervisor.
type unknot struct {
	e    *engine.Engine
	stop context.CancelFunc
	done chan error
}

func newUnknot(s Spec) (Supervisor, error) {
	cfg := engine.Config{
		Handler: engine.HandlerFunc(func(r engine.Request) {
			s.work(r.Data().Args[5])
			_ = r.Return(answerVal) // ErrGone is counted by the engine
		}),
		Inline: s.Path == PathInline, Queue: s.Queue, Workers: s.Workers, DropBatch: s.DropBatch,
		Policy: s.Policy, Pace: s.Pace, CheckAfter: s.CheckAfter, RaisePriority: s.RaisePriority, WaitTarget: s.WaitTarget,
		StopTimeout: hangDeadline, // Stop's context is of that
	}
	if s.Confine != nil {
		if err := s.Confine.Confine(&cfg); err != nil {
			return nil, err
		}
	}
	e, err := engine.New(cfg)
	if err != nil {
		return nil, err
	}
	return &unknot{e: e}, nil
}

func (u *unknot) Serve(ls ...*notify.Listener) error {
	for _, l := range ls {
		if _, err := u.e.Add(l); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	u.stop, u.done = cancel, make(chan error, 1)
	go func() { u.done <- u.e.Run(ctx) }()
	return nil
}

func (u *unknot) Waits() *hist.Snapshot { return u.e.Latencies().Wait }

// receivers is a Supervisor with threads that receive, whose waits can be told apart.
type receivers interface {
	// receiverThreads are their thread ids, once they are all up.
	receiverThreads(context.Context) ([]int, error)
	// receiverWaits are the waits by receiver, in the same order.
	receiverWaits() []*hist.Snapshot
}

func (u *unknot) receiverThreads(ctx context.Context) (tids []int, err error) {
	select {
	case <-u.e.Ready():
	case <-ctx.Done():
		return nil, fmt.Errorf("unknot: its receive threads do not come up: %w", ctx.Err())
	}
	for _, r := range u.e.Debug().Receivers {
		tids = append(tids, r.TID)
	}
	return tids, nil
}

func (u *unknot) receiverWaits() (all []*hist.Snapshot) {
	for _, r := range u.e.Debug().Receivers {
		all = append(all, r.Latencies.Wait)
	}
	return all
}

// Services are the times from dispatch to answer so far, in ns.
func (u *unknot) Services() *hist.Snapshot { return u.e.Latencies().Service }

func (u *unknot) Stats() Stats {
	c := u.e.Counters()
	return Stats{Served: c.Answered, Dropped: c.Dropped, Stale: c.Stale}
}

func (u *unknot) Stop(ctx context.Context) error {
	u.stop()
	select {
	case err := <-u.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("unknot: stop: %w", ctx.Err())
	}
}
