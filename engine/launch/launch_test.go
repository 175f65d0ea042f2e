package launch_test

import (
	"context"
	"os"
	"testing"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/launch"
	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	launch.Init()
	os.Exit(m.Run())
}

func TestSmoke(t *testing.T) {
	prog, err := notify.TrapProgram(unix.SYS_EXECVE, unix.SYS_OPENAT)
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.New(engine.Config{Handler: engine.HandlerFunc(func(r *engine.Request) { _ = r.Continue() }), Workers: 1, Queue: 16})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	p, err := launch.Start(&launch.Command{Paths: []string{"/bin/sh"}, Args: []string{"sh", "-c", "cat /etc/hostname; exit 7"}}, prog, 0, func(l *notify.Listener) error {
		if _, err := e.Add(l); err != nil {
			return err
		}
		go func() { done <- e.Run(ctx) }()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	ws, err := p.Wait()
	t.Log(ws, ws.ExitStatus(), err)
	<-p.Alone()
	t.Log(p.Close())
	cancel()
	t.Log(<-done, e.Counters().Received)
}
