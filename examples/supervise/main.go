// Supervise runs a command for which every user is root.
package main

import (
	"context"
	"log"
	"os"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/launch"
	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

func main() {
	launch.Init()
	e := must(engine.New(engine.Config{Handler: engine.HandlerFunc(func(r engine.Request) {
		_ = r.Return(0) // the kernel does not run the call
	})}))
	prog := must(notify.TrapProgram(unix.SYS_GETUID, unix.SYS_GETEUID))
	command := &launch.Command{Paths: must(launch.Find(os.Args[1])), Args: os.Args[1:]}
	p := must(launch.Start(command, prog, 0, func(l *notify.Listener) error {
		_, err := e.Add(l) // the engine owns the listener now
		go e.Run(context.Background())
		return err
	}))
	os.Exit(must(p.Wait()).ExitStatus())
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
