package engine_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
)

// Alive says of each receive thread whether it goes round its loop, and of an engine whether it runs.
func TestAlive(t *testing.T) {
	c := startTarget(t, 1, 1)
	stuck, leave := make(chan struct{}), make(chan struct{})
	e, err := engine.New(engine.Config{Inline: true, Handler: engine.HandlerFunc(func(r engine.Request) {
		close(stuck)
		<-leave
		_ = r.Continue()
	})})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Alive(t.Context()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("before Run: %v", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	<-e.Ready()
	if err := e.Alive(t.Context()); err != nil {
		t.Errorf("at rest: %v", err)
	}
	mustAdd(t, e, c)
	c.release()
	<-stuck
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := e.Alive(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with its thread in a handler: %v", err)
	}
	close(leave)
	if err := e.Alive(t.Context()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := e.Alive(t.Context()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Run: %v", err)
	}
}
