// Agent is a seccomp agent for runc, crun and podman: it makes mkdir(2) create a directory of another name, has
// chmod(2) fail with "No medium found" and lets all other trapped calls go on.
//
// The directory's name is that in the call, a dash and the container's listenerMetadata. See docs/handlers.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path"
	"syscall"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/agent"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/engine/target"
	"golang.org/x/sys/unix"
)

// mkdir makes the directory in the target's place, with the name that it copied: what the target does to its
// memory meanwhile changes nothing.
func mkdir(r engine.Request) {
	d := r.Data()
	s, _ := r.Source().Tag().(agent.State)
	name, err := r.Target().String(d.Args[0], target.PathMax)
	if err != nil {
		_ = r.Fail(unix.EFAULT)
		return
	}
	err = r.Target().ActAt(unix.AT_FDCWD, path.Clean(name+"-"+path.Base(s.Metadata)), func(dir int, name string) error {
		return unix.Mkdirat(dir, name, uint32(d.Args[1]))
	})
	var errno syscall.Errno
	if errors.As(err, &errno) {
		_ = r.Fail(errno)
		return
	}
	_ = r.Return(0)
}

func main() {
	socket := flag.String("socketfile", "/run/seccomp-agent.socket", "where runtimes connect to")
	pidFile := flag.String("pid-file", "", "where to write our process id")
	flag.Parse()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := run(*socket, *pidFile, log); err != nil {
		log.Error("agent", "err", err)
		os.Exit(1)
	}
}

func run(socket, pidFile string, log *slog.Logger) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	mux := engine.NewMux(engine.Continue)
	err := errors.Join(mux.Route(engine.Route{Handler: engine.HandlerFunc(mkdir)}, "mkdir"),
		mux.Route(engine.Route{Handler: engine.Deny(unix.ENOMEDIUM)}, "chmod", "fchmod", "fchmodat", "fchmodat2"))
	e, nerr := engine.New(engine.Config{Handler: mux, Logger: log})
	if err = errors.Join(err, nerr); err != nil {
		return err
	}
	serve := func(s agent.State, l *notify.Listener) error {
		_, err := e.AddWith(l, engine.SourceOptions{Tag: s})
		return err
	}
	a, err := agent.Listen(agent.Config{Path: socket, Serve: serve, Logger: log})
	if err != nil {
		return err
	}
	go func() { _ = a.Run(ctx) }()
	defer a.Close()
	if pidFile != "" {
		if err := os.WriteFile(pidFile, fmt.Append(nil, os.Getpid()), 0o644); err != nil {
			return err
		}
	}
	return e.Run(ctx)
}
