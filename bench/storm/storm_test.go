package storm

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/dist"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

const testDeadline = 2 * time.Minute

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
		for end := time.Now().Add(testDeadline); s.Counts().Calls() < 2000 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		r, err := s.Stop(testDeadline)
		if err != nil {
			t.Fatal(err)
		}
		<-done
		_ = s.Listener().Close()
		want := Counts{OK: ok}
		want.Errnos[unix.EINTR] = eintr
		if r.Counts != want || r.Lost != 0 {
			t.Errorf("%d targets saw %v; the supervisor sent %v", targets, r.Counts, want)
		}
		if r.RoundTrip.Count != r.OK || r.FailTrip.Count != eintr {
			t.Errorf("histograms hold %d and %d", r.RoundTrip.Count, r.FailTrip.Count)
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
	s := begin(t, Config{Targets: 8, Think: Think{Dist: dist.Dist{Mean: time.Microsecond}}, CPU: onCPU(0)})
	if err := s.Go(); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	time.AfterFunc(20*time.Millisecond, func() { close(stop) })
	supervise(s.Listener(), stop)
	_ = s.Listener().Close()
	await(t, s, unix.ENOSYS, 8)
	r, err := s.Stop(testDeadline)
	if err != nil || r.Failed(unix.ENOSYS) != 8 || r.Lost != 0 {
		t.Errorf("%+v, %v", r.Counts, err)
	}
}

// TestErrnosAreToldApart answers with many errnos, one after the other.
func TestErrnosAreToldApart(t *testing.T) {
	s := begin(t, Config{Targets: 1})
	if err := s.Go(); err != nil {
		t.Fatal(err)
	}
	// 200 and 4094 are errors that Linux has no name for.
	answers := []int32{0, -int32(unix.EPERM), -int32(unix.EINTR), -int32(unix.EPERM), -int32(unix.EHWPOISON), -200, -4094, 0, 0}
	for _, e := range answers {
		var n notify.Notif
		if err := s.Listener().Recv(&n); err != nil {
			t.Fatal(err)
		}
		if err := s.Listener().Send(&notify.Resp{ID: n.ID, Error: e}); err != nil {
			t.Fatal(err)
		}
	}
	_ = s.Listener().Close() // the next call ends the thread
	await(t, s, unix.ENOSYS, 1)
	r, err := s.Stop(testDeadline)
	if err != nil {
		t.Fatal(err)
	}
	const want = "answered 3, undefined errno 2, EPERM 2, EINTR 1, ENOSYS 1, EHWPOISON 1"
	if got := r.String(); got != want || r.Calls() != 10 {
		t.Errorf("%s, %d calls; want %s", got, r.Calls(), want)
	}
	if got := r.Except(unix.EINTR, unix.ENOSYS).String(); got != "undefined errno 2, EPERM 2, EHWPOISON 1" {
		t.Errorf("unexpected: %s", got)
	}
	r.Sub(r.Counts)
	if got := r.String(); got != "nothing" {
		t.Errorf("nothing is %q", got)
	}
}

// TestRingWakesABlockedReader: the threads are silent and alive, so that RECV
// blocks as it does on kernels that do not say when the last target is gone.
func TestRingWakesABlockedReader(t *testing.T) {
	s := begin(t, Config{Targets: 2})
	defer func() { _ = s.Listener().Close() }()
	defer s.Close()
	received := make(chan uint64)
	go func() {
		for {
			var n notify.Notif
			if s.Listener().Recv(&n) != nil {
				close(received)
				return
			}
			received <- n.ID
		}
	}()
	if err := s.Go(); err != nil {
		t.Fatal(err)
	}
	halted := make(chan error)
	go func() {
		_, err := s.Halt(testDeadline)
		halted <- err
	}()
	for open := true; open; {
		select {
		case id := <-received:
			_ = s.Listener().Send(&notify.Resp{ID: id, Val: 1})
		case err := <-halted:
			if err != nil {
				t.Fatal(err)
			}
			open = false
		}
	}
	for range 5000 { // more than the socket holds; all but the first do nothing
		if err := s.Ring(); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case id := <-received:
		_ = s.Listener().Send(&notify.Resp{ID: id, Error: -int32(unix.EBUSY)})
	case <-time.After(testDeadline):
		t.Fatal("the reader still blocks")
	}
	await(t, s, unix.EBUSY, 1)
}

// await waits until n calls have failed with e.
func await(t *testing.T, s *Storm, e unix.Errno, n uint64) {
	t.Helper()
	for end := time.Now().Add(testDeadline); s.Counts().Failed(e) != n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the targets saw %v, want %v %d times", s.Counts(), e, n)
		}
	}
}

func TestBadConfigs(t *testing.T) {
	for _, c := range []Config{{}, {Targets: -1}, {Targets: MaxTargets + 1}, {Targets: 1, Think: Think{Dist: dist.Dist{Mean: -1}}}, {Targets: 1, CPU: onCPU(4000)},
		{Targets: 1, Hostile: numHostile}, {Targets: 1, Hostile: Killed, Open: true}, {Targets: 1, Hostile: Killed, Untimed: true}} {
		if s, err := Start(t.Context(), c); err == nil {
			t.Errorf("%+v was accepted", c)
			s.Close()
		}
	}
}
