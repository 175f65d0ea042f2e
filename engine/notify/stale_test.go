package notify

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// targetFlags are those that change how a target waits, as far as the kernel
// has them.
func targetFlags() []InstallFlags {
	if FeatureWaitKillable.Probe() != nil {
		return []InstallFlags{0}
	}
	return []InstallFlags{0, WaitKillableRecv}
}

func TestStaleWhenTheTargetIsKilledAfterRecv(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for name, op := range map[string]func(l *Listener, id uint64) error{
		"send":     func(l *Listener, id uint64) error { return l.Send(&Resp{ID: id}) },
		"continue": func(l *Listener, id uint64) error { return l.Send(&Resp{ID: id, Flags: RespContinue}) },
		"id valid": func(l *Listener, id uint64) error { return l.IDValid(id) },
		"addfd": func(l *Listener, id uint64) error {
			_, err := l.AddFD(&AddFD{ID: id, SrcFD: uint32(null.Fd())})
			return err
		},
		"addfd send": func(l *Listener, id uint64) error {
			_, err := l.AddFD(&AddFD{ID: id, SrcFD: uint32(null.Fd()), Flags: AddFDSend})
			return err
		},
	} {
		if name == "addfd send" && FeatureAddFDSend.Probe() != nil {
			continue // refused, whoever the target is
		}
		for _, flags := range targetFlags() {
			g := startTarget(t, flags)
			n := g.call()
			if err := g.l.IDValid(n.ID); err != nil {
				t.Error(err)
			}
			g.kill()
			wantErr(t, name, op(g.l, n.ID), unix.ENOENT, Stale)
		}
	}
}

func TestSignalBeforeRecvInterrupts(t *testing.T) {
	for _, flags := range targetFlags() {
		g := startTarget(t, flags)
		first := g.call() // learn where the ids are
		if err := g.l.Send(&Resp{ID: first.ID}); err != nil {
			t.Fatal(err)
		}
		g.Expect("0 0")

		g.MustSay("call")
		g.pending()
		// Pending but not received: it is nobody's to answer.
		wantErr(t, "id valid", g.l.IDValid(first.ID+1), unix.ENOENT, Stale)
		wantErr(t, "answer", g.l.Send(&Resp{ID: first.ID + 1}), unix.EINPROGRESS, Bug)
		g.signal(unix.SIGUSR1)
		g.becomes("the call is made again", func() bool { return OutcomeOf(g.l.Send(&Resp{ID: first.ID + 1})) == Stale })
		// The first attempt has left its wake-up behind: of two receptions one
		// finds the call made again, the other finds nothing.
		var again Notif
		stale := 0
		for range 2 {
			var n Notif
			if err := g.l.Recv(&n); err != nil {
				wantErr(t, "recv", err, unix.ENOENT, Stale)
				stale++
				continue
			}
			again = n
		}
		if stale != 1 || again.ID != first.ID+2 {
			t.Errorf("flags %#x: %d stale receptions, id +%d after the signal, want 1 and +2", uint32(flags), stale, again.ID-first.ID)
		}
		if err := g.l.Send(&Resp{ID: again.ID, Val: 7}); err != nil {
			t.Error(err)
		}
		g.Expect("7 0")
		g.MustSay("signal")
		g.Expect("1")
	}
}

func TestSignalAfterRecvInterruptsUnlessWaitKillable(t *testing.T) {
	t.Run("default", func(t *testing.T) {
		g := startTarget(t, 0)
		n := g.call()
		g.signal(unix.SIGUSR1)
		g.becomes("the id is stale", func() bool { return OutcomeOf(g.l.IDValid(n.ID)) == Stale })
		wantErr(t, "answer", g.l.Send(&Resp{ID: n.ID, Val: 1}), unix.ENOENT, Stale)
		again := g.recv()
		if again.ID != n.ID+1 || again.Data != n.Data || again.PID != n.PID {
			t.Errorf("after the signal %+v, before %+v", again, n)
		}
		if err := g.l.Send(&Resp{ID: again.ID, Val: 2}); err != nil {
			t.Error(err)
		}
		g.Expect("2 0")
	})
	t.Run("WAIT_KILLABLE_RECV", func(t *testing.T) {
		if err := FeatureWaitKillable.Probe(); err != nil {
			t.Skip(err)
		}
		g := startTarget(t, WaitKillableRecv)
		n := g.call()
		for range 5 {
			g.signal(unix.SIGUSR1)
		}
		if err := g.l.Send(&Resp{ID: n.ID, Val: 3}); err != nil {
			t.Error(err)
		}
		g.Expect("3 0")
		g.MustSay("signal") // it has waited
		g.Expect("1")
		// Had the call been made again, its id would be this one's.
		next := g.call()
		if next.ID != n.ID+1 {
			t.Errorf("the next call has id +%d, want +1", next.ID-n.ID)
		}
		g.kill() // a fatal signal still interrupts
		wantErr(t, "answer", g.l.Send(&Resp{ID: next.ID}), unix.ENOENT, Stale)
	})
}

// TestSecondAnswerBeforeTheTargetTookTheFirst needs a target that is slow to
// run: it gets the lowest class on the CPU that the supervisor keeps busy.
func TestSecondAnswerBeforeTheTargetTookTheFirst(t *testing.T) {
	g := startTarget(t, 0)
	if err := unix.SchedSetAttr(g.tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0); err != nil {
		t.Fatal(err)
	}
	pinBoth(t, g.tid)
	seen := 0
	for range 1000 {
		n := g.call()
		if err := g.l.Send(&Resp{ID: n.ID, Val: 1}); err != nil {
			t.Fatal(err)
		}
		switch err := g.l.Send(&Resp{ID: n.ID, Val: 2}); OutcomeOf(err) {
		case Stale: // it was quick
		case Bug:
			wantErr(t, "second answer", err, unix.EINPROGRESS, Bug)
			seen++
		default:
			t.Fatalf("second answer: %v", err)
		}
		g.Expect("1 0")
		if seen == 10 {
			return
		}
	}
	t.Errorf("EINPROGRESS seen %d times in 1000", seen)
}

func TestCloseGivesENOSYS(t *testing.T) {
	g := startTarget(t, 0)
	g.call() // received
	if err := g.l.Close(); err != nil {
		t.Fatal(err)
	}
	g.Expect("-1 %d", unix.ENOSYS)
	g.MustSay("call") // later calls
	g.Expect("-1 %d", unix.ENOSYS)

	g = startTarget(t, 0)
	g.MustSay("call")
	g.pending() // not received
	if err := g.l.Close(); err != nil {
		t.Fatal(err)
	}
	g.Expect("-1 %d", unix.ENOSYS)
}

func TestACopyKeepsTargetsWaiting(t *testing.T) {
	g := startTarget(t, 0)
	n := g.call()
	fd, err := unix.Dup(g.l.FD())
	if err != nil {
		t.Fatal(err)
	}
	if isCloexec(t, fd) {
		t.Error("dup is close-on-exec: the next check means nothing")
	}
	other, err := NewListener(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if !isCloexec(t, fd) {
		t.Error("NewListener leaves the descriptor to children")
	}
	if err := g.l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := other.Send(&Resp{ID: n.ID, Val: 9}); err != nil {
		t.Error(err)
	}
	g.Expect("9 0")
}

func TestHangup(t *testing.T) {
	g := startTarget(t, 0)
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ep)
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, g.l.FD(), &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
		t.Fatal(err)
	}
	wait := func() uint32 {
		t.Helper()
		var ev [1]unix.EpollEvent
		for range 120 {
			if n, err := unix.EpollWait(ep, ev[:], 1000); n == 1 && err == nil {
				return ev[0].Events
			}
		}
		t.Fatal("no event")
		return 0
	}
	n := g.call()
	var ev [1]unix.EpollEvent
	if k, err := unix.EpollWait(ep, ev[:], 0); err != nil || k != 0 && ev[0].Events&(unix.EPOLLIN|unix.EPOLLHUP) != 0 {
		t.Errorf("all is received, yet epoll says %#x, %v", ev[0].Events, err)
	}
	if err := g.l.Send(&Resp{ID: n.ID}); err != nil {
		t.Fatal(err)
	}
	g.Expect("0 0")
	g.MustSay("call")
	if e := wait(); e&unix.EPOLLIN == 0 {
		t.Errorf("epoll %#x for a pending notification", e)
	}
	g.kill()
	for range 3 { // and stays
		g.becomes("EPOLLHUP", func() bool { return wait()&unix.EPOLLHUP != 0 })
	}
	if e := wait(); e&unix.EPOLLIN != 0 {
		t.Errorf("epoll %#x: the dead target's notification is still announced", e)
	}
	if kernelAtLeast(t, release(t), "6.11") {
		for range 3 {
			wantErr(t, "recv", g.l.Recv(new(Notif)), unix.ENOENT, Stale)
		}
	}
}
