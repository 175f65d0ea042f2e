// Audit runs a command and writes down what it and its descendants execute, and where they connect to:
//
//	go run ./examples/audit sh -c 'uname; exec true'
//
// The kernel makes the calls afterwards, from the command's memory, which may have changed meanwhile: this tells what
// programs do that do not mean to hide it.
package main

import (
	"context"
	"log"
	"log/slog"
	"os"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/launch"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/target"
	"golang.org/x/sys/unix"
)

// handlers are what is trapped, by name: a Mux knows each ABI's number of a name.
func handlers(out *slog.Logger) (*engine.Mux, error) {
	// What reads a target's memory takes microseconds, and the call waits: Continue last, whatever happened.
	mux := engine.NewMux(engine.Continue)
	execve := func(r engine.Request) {
		defer r.Continue()
		d := r.Data()
		path, err := r.Target().String(d.Args[0], target.PathMax)
		if err != nil {
			out.Warn("execve", "thread", r.PID(), "error", err)
			return
		}
		args, err := r.Target().Strings(d.Args[1], 1<<16)
		if err != nil {
			out.Warn("execve", "thread", r.PID(), "path", path, "error", err)
			return
		}
		out.Info("execve", "thread", r.PID(), "path", path, "args", args)
	}
	connect := func(r engine.Request) {
		defer r.Continue()
		d := r.Data()
		to, err := r.Target().Sockaddr(d.Args[1], d.Args[2])
		if err != nil {
			out.Warn("connect", "thread", r.PID(), "error", err)
			return
		}
		out.Info("connect", "thread", r.PID(), "to", to.String())
	}
	if err := mux.Route(engine.Route{Handler: engine.HandlerFunc(execve)}, "execve"); err != nil {
		return nil, err
	}
	return mux, mux.Route(engine.Route{Handler: engine.HandlerFunc(connect)}, "connect")
}

func main() {
	launch.Init()
	log.SetFlags(0)
	if len(os.Args) < 2 {
		log.Fatal("usage: audit COMMAND [ARGUMENT…]")
	}
	plain := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
			return slog.Attr{}
		}
		return a
	}
	mux, err := handlers(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{ReplaceAttr: plain})))
	if err != nil {
		log.Fatal(err)
	}
	status, err := supervise(mux, os.Args[1:])
	if err != nil {
		log.Fatal(err)
	}
	os.Exit(status)
}

// supervise runs a command and returns its exit status.
func supervise(h engine.Handler, args []string) (int, error) {
	e, err := engine.New(engine.Config{Handler: h})
	if err != nil {
		return 0, err
	}
	prog, err := notify.TrapProgram(unix.SYS_EXECVE, unix.SYS_CONNECT)
	if err != nil {
		return 0, err
	}
	paths, err := launch.Find(args[0])
	if err != nil {
		return 0, err
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	p, err := launch.Start(&launch.Command{Paths: paths, Args: args}, prog, 0, func(l *notify.Listener) error {
		_, err := e.Add(l)
		go func() { done <- e.Run(ctx) }()
		return err
	})
	if err != nil {
		stop()
		return 0, err
	}
	status, err := p.Wait()
	stop()
	if err == nil {
		err = <-done
	}
	return status.ExitStatus(), err
}
