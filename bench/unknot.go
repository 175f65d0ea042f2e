package bench

import (
	"context"
	"os"
	"strconv"
	"syscall"
	"time"

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
	pl, _ := strconv.Atoi(os.Getenv("UNK_PLACE"))
	wu, _ := strconv.Atoi(os.Getenv("UNK_WAKE"))
	ir, _ := strconv.Atoi(os.Getenv("UNK_INT"))
	cp, _ := strconv.Atoi(os.Getenv("UNK_CPU"))
	ca, _ := time.ParseDuration(os.Getenv("UNK_CHECK"))
	e, err := engine.New(engine.Config{CheckAfter: ca, Placement: engine.Placement(pl), WakeUp: engine.WakeUp(wu), Interrupt: syscall.Signal(ir), CPU: engine.CPU(cp),
		Handler: engine.HandlerFunc(func(r *engine.Request) {
			s.Work.Do()
			_ = r.Return(answerVal) // ErrGone is counted by the engine
		}),
		Inline: s.Path == PathInline, Queue: s.Queue, Workers: s.Workers, DropBatch: s.DropBatch,
	})
	if err != nil {
		return nil, err
	}
	return &unknot{e: e}, nil
}

func (u *unknot) Serve(l *notify.Listener) error {
	if _, err := u.e.Add(l); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	u.stop, u.done = cancel, make(chan error, 1)
	go func() { u.done <- u.e.Run(ctx) }()
	return nil
}

func (u *unknot) Waits() *hist.Snapshot { return u.e.Latencies().Wait }

func (u *unknot) Stop(ctx context.Context) (Stats, error) {
	u.stop()
	select {
	case err := <-u.done:
		c := u.e.Counters()
		return Stats{Served: c.Answered, Dropped: c.Dropped, Stale: c.Stale}, err
	case <-ctx.Done():
		return Stats{}, ctx.Err()
	}
}
