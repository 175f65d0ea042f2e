package enginetest_test

import (
	"errors"
	"testing"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/enginetest"
	"github.com/unknot/unknot/engine/target"
	"golang.org/x/sys/unix"
)

// TestTargetMemory: package engine/target reads and writes a made-up target's memory, and finds it gone once it is.
func TestTargetMemory(t *testing.T) {
	var said string
	var failed error
	e := enginetest.New(t, engine.HandlerFunc(func(r engine.Request) {
		at := r.Target()
		said, failed = at.String(r.Data().Args[0], target.PathMax)
		if failed != nil {
			_ = r.Fail(unix.EFAULT)
			return
		}
		if _, err := at.WriteMem(r.Data().Args[1], []byte("done")); err != nil {
			failed = err
			_ = r.Fail(unix.EFAULT)
			return
		}
		_ = r.Return(0)
	}))
	p := e.Target()
	path, out := p.PutString("/etc/motd"), p.Put(make([]byte, 8))
	if got := p.Call(unix.SYS_READLINKAT, path, out); got.Errno != 0 || said != "/etc/motd" || string(p.Memory(out, 4)) != "done" {
		t.Errorf("%v, %q, %q", got, said, p.Memory(out, 8))
	}
	if got := p.Call(unix.SYS_READLINKAT, 16, out); got.Errno != unix.EFAULT || !errors.Is(failed, unix.EFAULT) {
		t.Errorf("not mapped: %v, %v", got, failed)
	}
	end := p.Put([]byte("no end"))
	if got := p.Call(unix.SYS_READLINKAT, end, out); got.Errno != unix.EFAULT || !errors.Is(failed, unix.EFAULT) {
		t.Errorf("without an end: %v, %v", got, failed)
	}
	if got := p.Call(unix.SYS_READLINKAT, path, uint64(1)<<40); got.Errno != unix.EFAULT || !errors.Is(failed, unix.EFAULT) {
		t.Errorf("written nowhere: %v, %v", got, failed)
	}
}
