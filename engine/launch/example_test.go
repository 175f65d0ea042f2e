package launch_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"sync/atomic"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/launch"
	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// A supervisor that counts what a command opens. Call [launch.Init] first in main.
func ExampleStart() {
	var opened atomic.Int64
	e, err := engine.New(engine.Config{
		Workers: 1,
		Queue:   64,
		Handler: engine.HandlerFunc(func(r engine.Request) {
			opened.Add(1)
			_ = r.Continue()
		}),
	})
	if err != nil {
		log.Fatal(err)
	}
	paths, err := launch.Find("sh")
	if err != nil {
		log.Fatal(err)
	}
	prog, err := notify.TrapProgram(unix.SYS_OPENAT)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	command := &launch.Command{
		Paths: paths,
		Args:  []string{"sh", "-c", "echo hello; exec 3</dev/null; exit 7"},
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	}
	p, err := launch.Start(command, prog, 0, func(l *notify.Listener) error {
		if _, err := e.Add(l); err != nil {
			_ = l.Close()
			return err
		}
		go func() { done <- e.Run(ctx) }()
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	status, err := p.Wait()
	if err != nil {
		log.Fatal(err)
	}
	if err := p.Close(); err != nil {
		log.Fatal(err)
	}
	stop()
	if err := <-done; err != nil {
		log.Fatal(err)
	}
	fmt.Println("status", status.ExitStatus(), "opened something:", opened.Load() > 0)
	// Output:
	// hello
	// status 7 opened something: true
}
