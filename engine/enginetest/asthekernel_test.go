package enginetest_test

import (
	"errors"
	"testing"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/enginetest"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/notify/notifytest"
	"golang.org/x/sys/unix"
)

// An older kernel refuses what it does not know, and interrupted ioctls are repeated.
func TestAsTheKernelDoes(t *testing.T) {
	e := enginetest.New(t, handler(func(r engine.Request) {
		if err := r.Continue(); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("continue: %v", err)
		}
	}))
	e.Kernel().Profile = notifytest.Linux5_0
	interrupted := 0
	e.Kernel().Fault = func(op notify.Op) unix.Errno {
		if op == notify.OpSend && interrupted < 3 {
			interrupted++
			return unix.EINTR
		}
		return 0
	}
	if got := e.Target().Call(unix.SYS_GETPPID); got.Errno != unix.ENOSYS {
		t.Errorf("got %v", got)
	}
	if n := e.Engine().Counters(); n.Refused != 1 || n.Defaulted != 1 || interrupted != 3 {
		t.Errorf("counters: %+v; interrupted %d times", n, interrupted)
	}
}
