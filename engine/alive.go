package engine

import (
	"context"
	"fmt"
	"os"
)

// Alive has each receive thread go round its loop, and waits until all have: for watchdogs. A thread that does not, as one that is
// in an inline handler which never returns, is an error when ctx ends, and so is an engine that does not run. Workers
// are not asked: their handlers are held to Config.HandlerDeadline. It takes each thread out of its wait once.
func (e *Engine) Alive(ctx context.Context) error {
	e.registry.mu.Lock()
	running := e.life.state == started && !e.life.stopping
	e.registry.mu.Unlock()
	if !running {
		return fmt.Errorf("engine: it does not run: %w", os.ErrClosed)
	}
	for _, rx := range e.receivers.all() {
		if err := rx.barrier(ctx, noFD, nil); err != nil {
			return fmt.Errorf("engine: receive thread %d does not go round its loop: %w", rx.door.tid.Load(), err)
		}
	}
	return nil
}
