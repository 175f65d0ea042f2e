package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/confine"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
	"golang.org/x/sys/unix"
)

const (
	confineUsage  = "confinement of the receive thread: " + confineLevels
	confineLevels = "private, shared, best (private without what is refused here), off"
	confineBest   = "best"
	confineOff    = "off"
)

// A confiner joins package confine with an engine: it is a bench.Confiner.
type confiner struct {
	level confine.Level
	best  bool
	done  func(*confine.Status) // on the confined thread, before it receives
}

func (c *confiner) String() string {
	if c.best {
		return confineBest
	}
	return c.level.String()
}

// prepare is confine.Prepare for this confiner.
func (c *confiner) prepare() (*confine.Plan, error) {
	plan, err := confine.Prepare(confine.Config{Level: c.level, Best: c.best})
	return plan, c.wayOut(err)
}

// wayOut adds to an error what runs in spite of it.
func (c *confiner) wayOut(err error) error {
	switch {
	case err == nil:
		return nil
	case c.best:
		return fmt.Errorf("%w; --confine=off runs without", err)
	}
	return fmt.Errorf("%w; --confine=best runs without what is refused, --confine=off without any", err)
}

// Confine sets the engine's cookies and its receive thread's hook.
func (c *confiner) Confine(cfg *engine.Config) error {
	plan, err := c.prepare()
	if err != nil {
		return err
	}
	c.confine(cfg, plan)
	return nil
}

func (c *confiner) confine(cfg *engine.Config, plan *confine.Plan) {
	cfg.Cookies = plan.Cookies()
	cfg.PrivateFiles = plan.Level() == confine.Private
	cfg.ThreadHook = func(th engine.Thread) error {
		st, err := plan.Confine(confine.Thread(th))
		if err != nil {
			return c.wayOut(err)
		}
		if c.done != nil {
			c.done(st)
		}
		return nil
	}
}

// parseConfinement returns nil for "off".
func parseConfinement(name string) (*confiner, error) {
	switch name {
	case confineOff:
		return nil, nil
	case confineBest:
		return &confiner{level: confine.Private, best: true}, nil
	}
	level, err := confine.ParseLevel(name)
	if err != nil {
		return nil, usageErrorf("--confine: no level %q: the levels are private, shared, best, off", name)
	}
	return &confiner{level: level}, nil
}

// parseConfinements is parseConfinement for a list.
func parseConfinements(names []string) (all []bench.Confiner, err error) {
	for _, name := range names {
		c, err := parseConfinement(name)
		switch {
		case err != nil:
			return nil, err
		case c == nil: // an interface that holds nil would not be nil
			all = append(all, nil)
		default:
			all = append(all, c)
		}
	}
	return all, nil
}

// confineNote says so where a receive thread will not be confined, or not in full.
func confineNote(w io.Writer, names []string) {
	said := map[string]bool{}
	for _, name := range names {
		c, err := parseConfinement(name)
		if err != nil {
			continue // it was refused before
		}
		var note string
		if c == nil {
			note = "--confine=off: the receive thread is NOT CONFINED: who subverts it by a request can do all that this user may"
		} else if plan, err := c.prepare(); err == nil { // an error is of whoever confines in earnest
			note = lackNote(plan)
		}
		if note != "" && !said[note] {
			said[note] = true
			fmt.Fprintln(w, "unknot: "+note)
		}
	}
}

// lackNote says what the receive thread does without; "" if that is nothing.
func lackNote(plan *confine.Plan) string {
	if len(plan.Missing()) == 0 {
		return ""
	}
	return "the receive thread is confined without " + strings.Join(plan.Missing(), ", ")
}

// A confinedEngine runs once its listener is there, since a private file table
// would not have it later.
type confinedEngine struct {
	*engine.Engine
	ctx   context.Context
	end   context.CancelFunc
	ready chan struct{} // closed when the first receive thread is set up
	ended chan error    // nil until start
}

// newConfined makes an engine whose receive thread is confined as asked for.
func newConfined(cfg engine.Config, level string, stderr io.Writer) (*confinedEngine, error) {
	c, err := parseConfinement(level)
	if err != nil {
		return nil, err
	}
	if err := notify.FeatureNotify.Probe(); err != nil {
		return nil, fmt.Errorf("engine: %w", err) // the greater lack first
	}
	e := &confinedEngine{ready: make(chan struct{})}
	var once sync.Once // each receive thread comes by
	ready := func() { once.Do(func() { close(e.ready) }) }
	if c == nil {
		confineNote(stderr, []string{level})
		cfg.ThreadHook = func(engine.Thread) error { ready(); return nil }
	} else {
		c.done = func(st *confine.Status) {
			cfg.Logger.Info(st.String())
			ready()
		}
		plan, err := c.prepare()
		if err != nil {
			return nil, err
		}
		if note := lackNote(plan); note != "" {
			fmt.Fprintln(stderr, "unknot: "+note)
		}
		c.confine(&cfg, plan)
	}
	if e.Engine, err = engine.New(cfg); err != nil {
		return nil, err
	}
	// It outlives an interrupt: the command decides what that means.
	e.ctx, e.end = context.WithCancel(context.Background())
	return e, nil
}

// start runs the engine and waits until its receive thread is set up.
func (e *confinedEngine) start() error {
	e.ended = make(chan error, 1)
	go func() { e.ended <- e.Run(e.ctx) }()
	select {
	case <-e.ready:
		return nil
	case err := <-e.ended:
		e.ended = nil
		return err
	}
}

// stop ends the engine if it runs. One that was never started is left to the
// end of the process.
func (e *confinedEngine) stop() error {
	e.end()
	if e.ended == nil {
		return nil
	}
	return <-e.ended
}

// confineName is argv[0] of doctor's probe: this program run again to confine a
// thread, since a filter that lacks a call kills.
const confineName = "unknot-confine"

// confineMain is the probe's main function; it returns at once in every other
// process.
func confineMain() {
	if os.Args[0] != confineName {
		return
	}
	st, err := confineForAMoment()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(exitFailure)
	}
	fmt.Println(st)
	os.Exit(exitOK)
}

// confineForAMoment confines a thread with an eventfd in the listener's place,
// and waits until the thread has ended.
func confineForAMoment() (*confine.Status, error) {
	plan, err := confine.Prepare(confine.Config{})
	if err != nil {
		return nil, err
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	type result struct {
		st  *confine.Status
		err error
	}
	c := make(chan result)
	osthread.Start(func() {
		st, err := plan.Confine(confine.Thread{Listeners: []int{fd}, Epoll: -1, Wake: -1})
		c <- result{st, err}
	})
	r := <-c
	if r.err != nil {
		return nil, r.err
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if errors.Is(unix.Tgkill(unix.Getpid(), r.st.TID, 0), unix.ESRCH) {
			return r.st, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("confined thread %d does not end", r.st.TID)
		}
	}
}

// startRemedy says what helps where we cannot run ourselves again.
func startRemedy(err error) string {
	switch {
	case scarce(err):
		return scarceRemedy(err)
	case errors.Is(err, os.ErrNotExist):
		return "mount proc: mount -t proc proc /proc"
	}
	return "let this user start processes"
}

// checkConfine is doctor's row.
func checkConfine() check {
	c := check{Name: "confinement"}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args[0] = confineName
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err == nil {
		c.OK = true
		_, c.Detail, _ = strings.Cut(strings.TrimSpace(stdout.String()), "is confined: ") // the thread has ended
		return c
	}
	c.Detail = strings.Join(strings.Fields(stderr.String()), " ")
	c.Remedy = "allow what the message names; until then --confine=best runs without what is refused, --confine=off without any"
	if cmd.ProcessState == nil { // it did not even start
		c.Detail, c.Remedy = err.Error(), startRemedy(err)
		return c
	}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() && ws.Signal() == unix.SIGSYS {
		c.Detail = "the Go runtime or the C library here needs a system call that docs/confine.md does not allow"
		c.Remedy = "report it, with the kernel's audit line for it; until then: --confine=off"
	}
	if c.Detail == "" {
		c.Detail = err.Error()
	}
	return c
}
