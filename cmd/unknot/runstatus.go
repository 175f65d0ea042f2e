package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/unknot/unknot/cmd/unknot/internal/status"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/filter"
)

// A statusPage shows what goes on while a command runs. Whatever becomes of the page, the command goes on. The
// zero page is none.
type statusPage struct {
	ln   net.Listener
	ctx  context.Context
	end  context.CancelFunc
	over sync.WaitGroup
}

// statusReserve is how many more threads a page may take.
const statusReserve = 2

// listenStatus opens the page's address, if it has one.
func (s *runSettings) listenStatus() (*statusPage, error) {
	p := &statusPage{}
	if s.Status == "" {
		return p, nil
	}
	ln, err := status.Listen(s.Status)
	if err != nil {
		err = fmt.Errorf("%s: %w", s.where("status"), err)
		if status.IsBadAddress(err) {
			return nil, usageErrorf("%w", err)
		}
		return nil, err
	}
	reserveThreads(statusReserve)
	p.ln = ln
	p.ctx, p.end = context.WithCancel(context.Background())
	return p, nil
}

// serve shows e until stop, in the background.
func (p *statusPage) serve(e *engine.Engine, s *runSettings, command string, notes io.Writer, log *slog.Logger) {
	if p.ln == nil {
		return
	}
	name := filepath.Base(command)
	cfg := status.Config{
		Engine: e,
		Info: status.Info{
			Program: "run", PID: os.Getpid(), Version: buildVersion(), Command: command, Confinement: s.Confine, Started: time.Now(),
		},
		Source:  func(*engine.Source) string { return name },
		Syscall: filter.Name,
	}
	if s.Verbose {
		cfg.Logger = log
	}
	p.over.Go(func() {
		if err := status.Serve(p.ctx, p.ln, cfg); err != nil {
			fmt.Fprintf(notes, "unknot: %v\n", err)
		}
	})
}

// stop closes the page. It may be called again.
func (p *statusPage) stop() {
	if p.ln == nil {
		return
	}
	p.end()
	p.over.Wait()    // it has closed the listener
	_ = p.ln.Close() // unless it never began
}
