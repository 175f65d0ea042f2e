package storm

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

const testDeadline = 20 * time.Second

func begin(t *testing.T, c Config) *Storm {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testDeadline)
	t.Cleanup(cancel)
	s, err := Start(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// supervise answers every call in turn: value, value, EINTR; it leaves the last
// unanswered ones to the caller and returns how many it answered of each.
func supervise(l *notify.Listener, until <-chan struct{}) (ok, eintr uint64) {
	p := []unix.PollFd{{Fd: int32(l.FD()), Events: unix.POLLIN}}
	for i := 0; ; i++ {
		select {
		case <-until:
			return ok, eintr
		default:
		}
		if n, err := unix.Poll(p, 10); n == 0 || err != nil {
			continue
		}
		if p[0].Revents&unix.POLLIN == 0 {
			if p[0].Revents&unix.POLLHUP != 0 {
				return ok, eintr
			}
			continue
		}
		var n notify.Notif
		if l.Recv(&n) != nil {
			continue
		}
		r := notify.Resp{ID: n.ID, Val: 1}
		if i%3 == 2 {
			r = notify.Resp{ID: n.ID, Error: -int32(unix.EINTR)}
		}
		if l.Send(&r) == nil {
			if r.Error == 0 {
				ok++
			} else {
				eintr++
			}
		}
	}
}

func TestCountsAreTheSupervisors(t *testing.T) {
	for _, targets := range []int{1, 16, 300} {
		s := begin(t, Config{Targets: targets})
		done := make(chan struct{})
		var ok, eintr uint64
		go func() {
			defer close(done)
			ok, eintr = supervise(s.Listener(), nil)
		}()
		if err := s.Go(); err != nil {
			t.Fatal(err)
		}
		for s.Counts().Calls() < 2000 {
			time.Sleep(time.Millisecond)
		}
		r, err := s.Stop(testDeadline)
		if err != nil {
			t.Fatal(err)
		}
		<-done
		_ = s.Listener().Close()
		if r.OK != ok || r.EINTR != eintr || r.Lost != 0 || r.Other+r.ENOSYS != 0 {
			t.Errorf("%d targets saw %+v; the supervisor sent %d values and %d EINTR", targets, r.Counts, ok, eintr)
		}
		if r.RoundTrip.Count != r.OK || r.EINTRTrip.Count != r.EINTR {
			t.Errorf("histograms hold %d and %d", r.RoundTrip.Count, r.EINTRTrip.Count)
		}
	}
}

func TestHungTargetsAreLostAndKilled(t *testing.T) {
	s := begin(t, Config{Targets: 3})
	if err := s.Go(); err != nil {
		t.Fatal(err)
	}
	for range 3 { // received, never answered
		var n notify.Notif
		if err := s.Listener().Recv(&n); err != nil {
			t.Fatal(err)
		}
	}
	r, err := s.Stop(200 * time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if r.Lost != 3 {
		t.Errorf("%d lost, want 3", r.Lost)
	}
	if err := unix.Kill(s.PID(), 0); err != unix.ESRCH {
		t.Errorf("the target process still exists: %v", err)
	}
	_ = s.Listener().Close()
}

func TestTargetsEndWithTheirSupervisor(t *testing.T) {
	s := begin(t, Config{Targets: 8, Think: time.Microsecond, CPU: OnCPU(0)})
	if err := s.Go(); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	time.AfterFunc(20*time.Millisecond, func() { close(stop) })
	supervise(s.Listener(), stop)
	_ = s.Listener().Close()
	<-s.exited
	r, err := s.Stop(testDeadline)
	if err != nil || r.ENOSYS != 8 || r.Lost != 0 {
		t.Errorf("%+v, %v", r.Counts, err)
	}
}

func TestBadConfigs(t *testing.T) {
	for _, c := range []Config{{}, {Targets: -1}, {Targets: MaxTargets + 1}, {Targets: 1, Think: -1}, {Targets: 1, CPU: OnCPU(4000)}} {
		if s, err := Start(t.Context(), c); err == nil {
			t.Errorf("%+v was accepted", c)
			s.kill()
		}
	}
}
