package engine_test

import (
	"errors"
	"os"
	"testing"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
)

// TestSetConfined: a hook of the user's own has what an inline handler may not do fail, and leaves the rest.
func TestSetConfined(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		ioctls []uint32
		refuse bool
	}{
		{"without ADDFD", []uint32{notify.IoctlRecv, notify.IoctlSend, notify.IoctlIDValid}, true},
		{"with ADDFD", []uint32{notify.IoctlRecv, notify.IoctlSend, notify.IoctlIDValid, notify.IoctlAddFD}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := make(chan [2]error, 1)
			e, stop := start(t, engine.Config{
				Inline:     true,
				ThreadHook: func(th engine.Thread) error { th.SetConfined(c.ioctls...); return nil },
				Handler: engine.HandlerFunc(func(r engine.Request) {
					_, add := r.AddFD(int(os.Stderr.Fd()), true)
					_, look := r.Target().Comm()
					got <- [2]error{add, look}
					_ = r.Return(42)
				}),
			})
			child := startTarget(t, 1, 1)
			mustAdd(t, e, child)
			child.release()
			if r := child.results(); r.Values[42] != 1 {
				t.Errorf("the call was not answered: %+v", r)
			}
			if errs := <-got; errors.Is(errs[0], engine.ErrConfined) != c.refuse || !errors.Is(errs[1], engine.ErrConfined) {
				t.Errorf("AddFD: %v, memory: %v", errs[0], errs[1])
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}
