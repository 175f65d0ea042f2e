package notify

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Signals to the thread that waits for the target to take the descriptor, such as
// Go's own, must neither repeat the request, which would find the call answered,
// nor answer the call without a descriptor.
func TestAddFDSendIsNotInterrupted(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if err := FeatureAddFDSend.Probe(); err != nil {
		t.Skip(err)
	}
	g := startTarget(t, 0)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self, stop, stopped := unix.Gettid(), make(chan bool), make(chan bool)
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Tgkill(os.Getpid(), self, unix.SIGURG)
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	for i := range 300 {
		n := g.call()
		fd, err := g.l.AddFD(&AddFD{ID: n.ID, SrcFD: uint32(null.Fd()), Flags: AddFDSend | AddFDSetFD, NewFD: 99})
		if err != nil || fd != 99 {
			t.Fatalf("call %d: descriptor %d, %v", i, fd, err)
		}
		g.Expect("99 0")
	}
	g.MustSay("link 99")
	if l := g.MustHear(); !strings.Contains(l, "/dev/null") {
		t.Error(l)
	}
	// The mask is as it was: a blocked signal would never be handled.
	var set unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, nil, &set); err != nil {
		t.Fatal(err)
	}
	if set != (unix.Sigset_t{}) {
		t.Errorf("the thread blocks %x", set)
	}
}
