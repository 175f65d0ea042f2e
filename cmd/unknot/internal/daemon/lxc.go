package daemon

import (
	"cmp"
	"context"
	"fmt"
	"sync"

	"github.com/unknot/unknot/cmd/unknot/internal/rules"
	"github.com/unknot/unknot/engine/agent"
	"github.com/unknot/unknot/engine/notify"
)

// LXC's monitors keep the listeners of their containers, and send each call. So nothing of them is kept or handed over:
// a container whose daemon has gone comes to the next one with its next call, and until there is one its calls fail.

// A front is the socket for LXC's monitors.
type front struct {
	mu   sync.Mutex
	shut func() // nil: it is not open
	over bool   // it shall not be opened any more
}

// openLXC opens it, if there shall be one.
func (d *daemon) openLXC() error {
	f := &d.lxc
	f.mu.Lock()
	defer f.mu.Unlock()
	if d.LXC == "" || f.over {
		return nil
	}
	x, err := agent.ListenLXC(agent.LXCConfig{Path: d.LXC, Serve: d.serveLXC, Logger: d.Log})
	if err != nil {
		return fmt.Errorf("--lxc-socket: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := x.Run(ctx); err != nil {
			d.Log.Error("LXC's containers are not taken any more", "err", err)
		}
	}()
	f.shut = func() {
		cancel()
		<-done
	}
	return nil
}

// shutLXC closes it.
func (d *daemon) shutLXC() {
	f := &d.lxc
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over = true; f.shut != nil {
		f.shut()
		f.shut = nil
	}
}

// stateOfLXC is what rules and records have of an LXC container, of which its cookie is all that its author said.
func stateOfLXC(c agent.LXCContainer) agent.State {
	return agent.State{
		PID:       c.InitPID,
		Metadata:  c.Cookie,
		Container: agent.Container{ID: cmp.Or(c.Cookie, fmt.Sprint("lxc-", c.InitPID)), PID: c.InitPID},
	}
}

func (d *daemon) serveLXC(c agent.LXCContainer, l *notify.Listener) error {
	_, err := d.engine.AddWith(l, d.sourceOptions(rules.NewTag(stateOfLXC(c))))
	return err
}

// leaveLXC disconnects LXC's containers once their calls have answers, or ctx ends.
func (d *daemon) leaveLXC(ctx context.Context) {
	d.shutLXC()
	for _, src := range d.engine.Sources() {
		if src.Listener().Carried() {
			_ = d.engine.Remove(ctx, src) // one that does not end by then goes without us
		}
	}
}
