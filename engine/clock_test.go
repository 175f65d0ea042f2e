//go:build !fakekernel

package engine

import (
	"context"
	"testing"
	"time"

	"github.com/unknot/unknot/internal/mono"
)

func TestTheKeeperAdjustsTheClock(t *testing.T) {
	if source, err := mono.Source(); mono.Counter == "" || err != nil || source != mono.Counter {
		t.Skipf("the kernel tells the time by %q (%v), not by a counter that is read here", source, err)
	}
	e, err := New(Config{Handler: HandlerFunc(func(Request) {})})
	if err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- e.Run(ctx) }()
	for end := time.Now().Add(3 * time.Minute); !clock.Counts(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Error("calls are still timed by the kernel's clock")
			break
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
