package record

import (
	"context"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

// descriptors answers, on the thread that receives, after it has computed, and gives
// its targets a descriptor first: once without an answer, and once with one that fails.
type descriptors struct {
	work time.Duration // of CPU, before each of the two and after
	stop atomic.Bool
	done chan error
}

func (s *descriptors) Serve(ls ...*notify.Listener) error {
	l := ls[0]
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	s.done = make(chan error, 1)
	osthread.Start(func() {
		defer null.Close()
		for n := (notify.Notif{}); !s.stop.Load(); {
			if l.Recv(&n) != nil || l.IDValid(n.ID) != nil {
				continue
			}
			compute(s.work)
			fd, err := l.AddFD(&notify.AddFD{ID: n.ID, SrcFD: uint32(null.Fd()), NewFD: 100, Flags: notify.AddFDSetFD})
			if err != nil || fd != 100 {
				continue
			}
			compute(s.work)
			if _, err := l.AddFD(&notify.AddFD{ID: n.ID, SrcFD: 1 << 30, Flags: notify.AddFDSend}); err == nil {
				continue
			}
			compute(s.work)
			_ = l.Send(&notify.Resp{ID: n.ID})
			time.Sleep(time.Millisecond) // without a CPU
		}
		s.done <- l.Close()
	})
	return nil
}

func (s *descriptors) Stop(ctx context.Context) error {
	s.stop.Store(true)
	select {
	case err := <-s.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// compute takes so much of the calling thread's CPU time.
func compute(d time.Duration) {
	now := func() int64 {
		var t unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
		return t.Nano()
	}
	for end := now() + int64(d); now() < end; {
	}
}

// A descriptor without an answer, and an answer that failed, end no handler: what it
// computed is known, however long its thread had no CPU before.
func TestDescriptorsAreNoAnswers(t *testing.T) {
	const work = 50 * time.Microsecond
	r := recordedOf(t, func() supervisor { return &descriptors{work: work} }, 1, 400)
	v := r.Service()
	if v.Dispatch != Checked || v.Known < v.Served-1 {
		t.Fatalf("service known of %d of %d calls", v.Known, v.Served)
	}
	if p := v.Computing.Quantile(.01); p < .9*float64(3*work) {
		t.Errorf("1%% of the handlers computed for less than %v, each did for %v", time.Duration(p), 3*work)
	}
}
