package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"time"

	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

// Perf repeats `perf bench sched seccomp-notify` of the kernel's tools/perf: one
// target calls gettid and does nothing else, one thread blocks in RECV and answers,
// neither is pinned. It returns how long it took to answer so many calls, from the
// target's release; perf's own figure has the target's making and its end in it.
//
// With sync the listener has SYNC_WAKE_UP (perf's --sync-mode); kernels before 6.6
// refuse it.
func Perf(ctx context.Context, calls uint64, sync bool) (time.Duration, error) {
	if sync {
		if err := notify.FeatureSyncWakeUp.Probe(); err != nil {
			return 0, err
		}
	}
	// An interrupt ends the storm in order, not by killing it under its supervisor.
	st, err := storm.Start(context.WithoutCancel(ctx), storm.Config{Targets: 1, Mix: storm.Mix{storm.Gettid: 1}, Untimed: true})
	if err != nil {
		return 0, err
	}
	defer st.Close()
	l := st.Listener()
	if sync {
		if err := l.SetFlags(notify.SyncWakeUp); err != nil {
			return 0, errors.Join(err, l.Close())
		}
	}
	// See answerGettids.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1))
	var end time.Time
	answered := make(chan error, 1)
	osthread.Start(func() {
		err := answerGettids(l, calls)
		end = time.Now()
		answered <- err
	})
	start := time.Now()
	err = st.Go()
	if err == nil {
		select {
		case err = <-answered:
			answered <- err
		case <-ctx.Done():
			err = ctx.Err()
			_, _ = st.Halt(hangDeadline) // so that the next call is Ring's
		}
	}
	serr := stopServing(storms{st}, func(ctx context.Context) error {
		select {
		case err := <-answered:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	if err == nil {
		err = serr
	}
	// Without a listener the target's next call fails, which ends it.
	if err := errors.Join(err, l.Close()); err != nil {
		return 0, err
	}
	rep, err := st.Stop(hangDeadline)
	if err != nil {
		return 0, err
	}
	if rep.OK != calls || rep.Lost > 0 {
		return 0, fmt.Errorf("%d calls were answered, the target counts %v, lost %d", calls, rep.Counts, rep.Lost)
	}
	return end.Sub(start), nil
}

// answerGettids answers so many calls. It ends early when another call comes, as
// Ring's does.
//
// It keeps its P while it blocks: with one target the scheduler would otherwise
// take the P away again and again, which costs a tenth of the rate. So there must be
// a P to spare, and nothing else to do.
func answerGettids(l *notify.Listener, calls uint64) error {
	var n notify.Notif
	for calls > 0 {
		if err := l.RecvReady(&n); err != nil {
			switch notify.OutcomeOf(err) {
			case notify.Retry, notify.Stale:
				if hungUp(l) {
					return errors.New("the target has ended")
				}
				continue
			}
			return err
		}
		if n.Data.NR != unix.SYS_GETTID {
			return fmt.Errorf("received system call %d, want gettid", n.Data.NR)
		}
		switch err := l.Send(&notify.Resp{ID: n.ID, Val: math.MaxInt32}); notify.OutcomeOf(err) {
		case notify.Done:
			calls--
		case notify.Stale:
		default:
			return err
		}
	}
	return nil
}
