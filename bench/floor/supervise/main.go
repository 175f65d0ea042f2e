// Supervise is package engine for the targets of the yardstick many, so that the
// same targets, in C, measure it and the bare supervisors in C:
//
//	supervise -listeners 16 -path queue SOCKET & many 16 1 connect:SOCKET 0 2
//
// It ends when no target is left.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/unknot/unknot/confine"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "supervise:", err)
		os.Exit(1)
	}
}

func run() error {
	listeners := flag.Int("listeners", 1, "how many are handed over")
	path := flag.String("path", "inline", "of a notification: inline, queue")
	workers := flag.Int("workers", 2, "of the queue path")
	wakeUp := flag.String("wake-up", "auto", "auto, sync, async")
	cpu := flag.Int("cpu", -1, "pin the receive thread there; -1: as the engine likes")
	work := flag.Duration("work", 0, "for how long a handler computes")
	confined := flag.Bool("confine", false, "confine the receive threads (level shared)")
	verbose := flag.Bool("v", false, "log what the engine does, a snapshot every 2 s, and its counters at the end")
	flag.Parse()
	if flag.NArg() != 1 {
		return fmt.Errorf("name one socket: supervise [flags] SOCKET")
	}
	cfg := engine.Config{Inline: *path == "inline", Workers: *workers, Queue: 512,
		Handler: engine.HandlerFunc(func(r engine.Request) {
			for end := time.Now().Add(*work); *work > 0 && time.Now().Before(end); {
			}
			_ = r.Return(42)
		}), CPU: engine.CPU(*cpu + 1)}
	switch *wakeUp {
	case "sync":
		cfg.WakeUp = engine.Sync
	case "async":
		cfg.WakeUp = engine.Async
	}
	if *verbose {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	// As bare supervisors in C do, it receives before the first call is made.
	ready := make(chan struct{}, 4096)
	cfg.ThreadHook = func(engine.Thread) error {
		ready <- struct{}{}
		return nil
	}
	if *confined {
		plan, err := confine.Prepare(confine.Config{Level: confine.Shared})
		if err != nil {
			return err
		}
		cfg.Cookies = plan.Cookies()
		then := cfg.ThreadHook
		cfg.ThreadHook = func(t engine.Thread) error {
			if _, err := plan.Confine(confine.Thread(t)); err != nil {
				return err
			}
			return then(t)
		}
	}
	e, err := engine.New(cfg)
	if err != nil {
		return err
	}
	_ = os.Remove(flag.Arg(0)) // of a run that was killed
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: flag.Arg(0), Net: "unix"})
	if err != nil {
		return err
	}
	conn, err := l.AcceptUnix()
	if err != nil {
		return err
	}
	_ = l.Close()
	var sources []*engine.Source
	for range *listeners {
		l, err := notify.RecvListener(conn)
		if err != nil {
			return err
		}
		s, err := e.Add(l)
		if err != nil {
			return err
		}
		sources = append(sources, s)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		for _, s := range sources {
			<-s.Done()
		}
		stop()
	}()
	go func() {
		for range e.Debug().Receivers {
			<-ready
		}
		if _, err := conn.Write([]byte{'g'}); err != nil {
			stop()
		}
	}()
	if *verbose {
		go func() {
			for every := time.Tick(2 * time.Second); ; {
				select {
				case <-every:
					fmt.Fprint(os.Stderr, e.Debug())
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	err = e.Run(ctx)
	if *verbose {
		fmt.Fprintf(os.Stderr, "%+v\n", e.Counters())
	}
	return err
}
