package enginetest_test

import (
	"fmt"
	"testing"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/enginetest"
	"golang.org/x/sys/unix"
)

// chmod refuses set-user-ID bits, and lets all else through.
func chmod(r engine.Request) {
	if d := r.Data(); d.NR == unix.SYS_FCHMOD && d.Args[1]&unix.S_ISUID != 0 {
		_ = r.Fail(unix.EPERM)
		return
	}
	_ = r.Continue()
}

func TestChmod(t *testing.T) {
	p := enginetest.New(t, engine.HandlerFunc(chmod)).Target()
	if got := p.Call(unix.SYS_FCHMOD, 3, 0o4755); got.Errno != unix.EPERM {
		t.Errorf("set-user-ID: %v", got)
	}
	if got := p.Call(unix.SYS_FCHMOD, 3, 0o755); !got.Continued {
		t.Errorf("an ordinary mode: %v", got)
	}
}

// A target that is interrupted just before the answer calls again, and already has a descriptor: a handler that adds
// and answers in one step leaves none behind.
func ExampleTarget_Before() {
	t := new(testing.T) // a test's own
	for _, h := range []engine.HandlerFunc{
		func(r engine.Request) { _ = r.ReturnFD(0, true) },
		func(r engine.Request) { _ = r.SendFD(0, true) },
	} {
		p := enginetest.New(t, h).Target()
		p.Before(enginetest.OpSend, p.Restart)
		p.Before(enginetest.OpAddFD, func() {})
		got := p.Call(unix.SYS_OPENAT)
		fmt.Println("tries:", got.Tries, "returned:", got.Val, "descriptors:", got.Added)
	}
	// Output:
	// tries: 2 returned: 4 descriptors: [3 4]
	// tries: 1 returned: 3 descriptors: [3]
}
