package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/launch"
	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// With --wait=command what outlives the command stays supervised: another
// process of this program, in a session of its own, takes over the listener and
// stands for us towards the guard. Calls that come meanwhile wait in the kernel.

// Descriptors of that process.
const (
	restConn  = 3 // the socket over which it is given the listener
	restGuard = 4 // our end of the guard's socket
)

// leaveRest leaves src to such a process and returns no source, or, where that
// cannot be, notes why and returns an engine that goes on here.
func (s *runSettings) leaveRest(cfg engine.Config, e *confinedEngine, src *engine.Source, p *launch.Process, notes io.Writer) (*confinedEngine, *engine.Source, error) {
	l, err := handOver(e, src, p, s)
	if err == nil {
		p.Leave() // the guard is the successor's
		return e, nil, nil
	}
	fmt.Fprintf(notes, "unknot: cannot go on in the background, and waits: %v\n", err)
	if l == nil { // still the engine's
		return e, src, nil
	}
	// Another engine: a confined thread's file table gets no listener later.
	err = e.stop()
	anew, more := newConfined(cfg, s.Confine, io.Discard)
	if err = errors.Join(err, more); err != nil {
		return e, nil, errors.Join(err, l.Close())
	}
	if src, err = anew.Add(l); err != nil {
		return anew, nil, errors.Join(err, l.Close())
	}
	return anew, src, anew.start()
}

// handOver gives src to a process that goes on in the background. If that fails,
// the listener is open and this process's again.
func handOver(e *confinedEngine, src *engine.Source, p *launch.Process, s *runSettings) (*notify.Listener, error) {
	settings, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	guard, err := p.Control()
	if err != nil {
		return nil, err
	}
	defer guard.Close()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "successor")
	ours := os.NewFile(uintptr(fds[0]), "predecessor")
	fc, err := net.FileConn(ours)
	_ = ours.Close()
	if err != nil {
		_ = theirs.Close()
		return nil, err
	}
	conn := fc.(*net.UnixConn)
	defer conn.Close()
	c := exec.Command("/proc/self/exe", "run-rest", string(settings))
	c.Args[0] = "unknot"
	c.ExtraFiles = []*os.File{theirs, guard}
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = c.Start()
	_ = theirs.Close()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l, err := e.Release(ctx, src)
	if err == nil {
		if err = notify.SendListener(conn, l); err == nil {
			_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
			var ready [1]byte
			if _, err = conn.Read(ready[:]); err == nil {
				return nil, l.Close()
			}
			err = errors.New("the process that was to go on did not")
		}
	}
	_ = c.Process.Kill()
	_ = c.Wait()
	return l, err
}

func newRunRestCmd() *cobra.Command {
	return &cobra.Command{
		Use:    "run-rest settings",
		Short:  "what run --wait=command leaves in the background",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s := defaultRunSettings()
			s.where = func(name string) string { return name }
			if err := json.Unmarshal([]byte(args[0]), &s); err != nil {
				return usageErrorf("run-rest: settings: %w", err)
			}
			return superviseRest(&s)
		},
	}
}

// superviseRest supervises until the last target is gone.
func superviseRest(s *runSettings) error {
	f := os.NewFile(restConn, "predecessor")
	conn, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		return fmt.Errorf("run-rest is for unknot run --wait=command: %w", err)
	}
	unix.CloseOnExec(restGuard)
	cfg, err := s.engineConfig()
	if err != nil {
		return err
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	audited, err := s.route(&cfg, io.Discard)
	if err != nil {
		return err
	}
	e, err := newConfined(cfg, s.Confine, io.Discard)
	if err != nil {
		return err
	}
	l, err := notify.RecvListener(conn.(*net.UnixConn))
	if err != nil {
		return err
	}
	src, err := e.Add(l)
	if err != nil {
		return err
	}
	if err := e.start(); err != nil {
		return err
	}
	if _, err := conn.Write([]byte{'r'}); err != nil {
		return errors.Join(err, e.stop())
	}
	_ = conn.Close()
	guard := make(chan struct{})
	go func() { // What the guard tells is nobody's any more; its end is the end.
		_, _ = io.Copy(io.Discard, os.NewFile(restGuard, "guard"))
		close(guard)
	}()
	select {
	case <-src.Done():
	case <-guard:
	}
	return errors.Join(e.stop(), audited())
}
