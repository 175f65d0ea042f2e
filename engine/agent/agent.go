package agent

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/unixsocket"
	"golang.org/x/sys/unix"
)

// Defaults of a [Config].
const (
	DefaultMode fs.FileMode = 0o600
	// DefaultTimeout is twice what crun lets the agent take.
	DefaultTimeout = 10 * time.Second
	// DefaultMaxState is twice the annotations of the largest states that are known.
	DefaultMaxState = 4 << 20
	DefaultMaxConns = 64
	// DefaultJournal is for the queue of an engine's default many times over; 20 KB for each listener.
	DefaultJournal = 1024
	// NoJournal, as Config.Journal, is none: such listeners can be neither handed over nor recovered.
	NoJournal = -1
)

// A Config sets up an [Agent]. Serve is required, and either Path or Listener.
type Config struct {
	// Path is where to listen, as linux.seccomp.listenerPath of containers says. A socket that is there is
	// replaced if nobody listens to it; else Listen fails with [ErrLive].
	Path string
	// Mode is the permission to connect; 0: DefaultMode, for the same user and root alone.
	Mode fs.FileMode
	// Listener is a socket that listens already: one of [Activated], or of a predecessor ([Link.Take]). The
	// agent owns it. Path and Mode then mean nothing.
	Listener *net.UnixListener

	// Allow decides by its credentials (SO_PEERCRED), as they were at its connect(2), whether a client is served; nil allows root and
	// the user of this process. Its error is logged. It is called concurrently.
	Allow func(unix.Ucred) error
	// Serve is given each state with its listener, which is Serve's from then on, unless it returns an error:
	// then the listener is closed, and calls of its targets fail with ENOSYS. It is called concurrently. The
	// container does not run its program before its first trapped call is answered, so Serve should not take long.
	Serve func(State, *notify.Listener) error

	Timeout  time.Duration // for a client to send its state, from its connect(2) on; 0: DefaultTimeout
	MaxState int           // bytes of a state; 0: DefaultMaxState
	// MaxConns is how many clients may be sending at a time; 0: DefaultMaxConns. With one more, the one that
	// has been at it for longest is refused: who sends nothing holds nobody up.
	MaxConns int

	// Journal is how many outstanding calls of a listener its journal has room for; 0: DefaultJournal. It costs a descriptor
	// for each listener. More that are outstanding are found too, but it takes longer.
	Journal int

	Logger *slog.Logger // each client that is refused is one line at level Warn; nil: nothing is logged
}

// An Agent listens for container runtimes.
type Agent struct {
	cfg  Config
	l    *net.UnixListener
	file unixsocket.File // to be removed at the end; zero if it is not ours

	mu     sync.Mutex
	conns  list.List // of *conn that are sending, oldest first
	closed bool
	handed bool // to a successor, who listens on the same socket; or drained: who is sending is served
	wg     sync.WaitGroup
}

// A conn is a client that is sending.
type conn struct {
	*net.UnixConn
	evicted bool // guarded by Agent.mu
}

// Listen opens the socket. Clients that connect from now on wait for [Agent.Run]. An agent that will not be run
// must be closed.
func Listen(cfg Config) (*Agent, error) {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&cfg.MaxState, DefaultMaxState)
	def(&cfg.MaxConns, DefaultMaxConns)
	def(&cfg.Journal, DefaultJournal)
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Mode == 0 {
		cfg.Mode = DefaultMode
	}
	if cfg.Allow == nil {
		cfg.Allow = allowSame
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case cfg.Serve == nil:
		return nil, errors.New("agent: nobody to serve listeners (Config.Serve)")
	case cfg.Journal < NoJournal || cfg.Journal > notify.MaxJournal:
		return nil, fmt.Errorf("agent: a journal of %d entries: must be 1 to %d, or NoJournal", cfg.Journal, notify.MaxJournal)
	case cfg.Timeout < 0 || cfg.MaxState < 0 || cfg.MaxConns < 0:
		return nil, fmt.Errorf("agent: timeout %v, %d bytes of a state, %d connections: must not be negative", cfg.Timeout, cfg.MaxState, cfg.MaxConns)
	}
	a := &Agent{cfg: cfg, l: cfg.Listener}
	if a.l == nil {
		l, err := listen("unix", cfg.Path, cfg.Mode)
		if err != nil {
			return nil, fmt.Errorf("agent: %w", err)
		}
		a.l, a.file = l, unixsocket.Own(cfg.Path)
	}
	return a, nil
}

// allowSame allows root and ourselves.
func allowSame(c unix.Ucred) error {
	if me := os.Geteuid(); c.Uid != 0 && int(c.Uid) != me {
		return fmt.Errorf("user %d may not hand over listeners, only root and %d (Config.Allow)", c.Uid, me)
	}
	return nil
}

// Addr is where the agent listens.
func (a *Agent) Addr() string { return a.l.Addr().String() }

// Run serves clients until ctx ends, then closes the agent and returns once nobody is being served. That ctx
// ended, or that the agent was closed, is no error.
func (a *Agent) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = a.Close() })
	defer stop()
	err := acceptAll(a.l, a.cfg.Logger, func(c *net.UnixConn) { a.begin(&conn{UnixConn: c}) })
	_ = a.Close()
	a.wg.Wait()
	return err
}

// Close stops listening, removes the socket's path if it is the agent's own, and refuses who is still sending.
// It does not touch a listener that Serve was given.
func (a *Agent) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil
	}
	a.closed = true
	a.file.Remove() // first: who finds the path gone has nobody to wait for
	if !a.handed {
		a.refuseAll()
	}
	if err := a.l.Close(); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	return nil
}

// Drain stops listening, and waits until those who are sending have been served, or ctx ends: then they are refused. For who
// ends while another process listens on: a runtime may have connected, and sends a few milliseconds later.
func (a *Agent) Drain(ctx context.Context) error {
	a.mu.Lock()
	a.handed = true
	a.mu.Unlock()
	err := a.Close()
	stop := context.AfterFunc(ctx, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.handed = false
		a.refuseAll()
	})
	defer stop()
	a.wg.Wait()
	return err
}

// refuseAll has who is sending see the end of their time. The caller holds mu.
func (a *Agent) refuseAll() {
	for e := a.conns.Front(); e != nil; e = e.Next() {
		_ = e.Value.(*conn).SetReadDeadline(time.Unix(1, 0))
	}
}

// acceptAll takes connections until the socket is closed.
func acceptAll(l *net.UnixListener, log *slog.Logger, begin func(*net.UnixConn)) error {
	const least, most = 5 * time.Millisecond, time.Second
	pause := least
	for {
		c, err := l.AcceptUnix()
		switch {
		case err == nil:
			if pause != least {
				log.Info("seccomp agent: takes clients again")
			}
			pause = least
			begin(c)
			continue
		case errors.Is(err, net.ErrClosed):
			return nil
		case errors.Is(err, unix.ECONNABORTED), errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
			// They wait in the backlog. Some descriptor will be closed.
			if pause == least {
				log.Error("seccomp agent: cannot take clients for now (raise RLIMIT_NOFILE?)", "err", err)
			}
			time.Sleep(pause)
			pause = min(2*pause, most)
		default:
			return fmt.Errorf("agent: %w", err)
		}
	}
}

// begin serves c on a goroutine of its own. If too many are sending, the oldest gives way.
func (a *Agent) begin(c *conn) {
	_ = c.SetReadDeadline(time.Now().Add(a.cfg.Timeout))
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed && !a.handed {
		_ = c.Close()
		return
	}
	if a.conns.Len() >= a.cfg.MaxConns {
		oldest := a.conns.Remove(a.conns.Front()).(*conn)
		oldest.evicted = true
		_ = oldest.SetReadDeadline(time.Unix(1, 0))
	}
	e := a.conns.PushBack(c)
	a.wg.Go(func() {
		defer c.Close()
		a.serve(c, func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			if !c.evicted {
				a.conns.Remove(e)
			}
		})
	})
}

// serve reads a state and hands it on. It calls sent, once, when nothing more is read.
func (a *Agent) serve(c *conn, sent func()) {
	cred, s, l, err := a.receive(c)
	sent()
	if err == nil {
		if err = a.cfg.Serve(*s, l); err == nil {
			a.cfg.Logger.Debug("seccomp agent: listener taken", "container", s.Container.ID, "pid", cred.Pid, "uid", cred.Uid)
			return
		}
		_ = l.Close()
	}
	attrs := []any{"err", a.why(c, err), "pid", cred.Pid, "uid", cred.Uid}
	if s != nil {
		attrs = append(attrs, "container", s.Container.ID)
	}
	a.cfg.Logger.Warn("seccomp agent: client refused", attrs...)
}

// receive reads from a client what it has to send. The state may be there although something else was wrong.
func (a *Agent) receive(c *conn) (cred unix.Ucred, s *State, l *notify.Listener, err error) {
	if cred, err = peer(c.UnixConn); err != nil {
		return cred, nil, nil, err
	}
	if err := a.cfg.Allow(cred); err != nil {
		return cred, nil, nil, err
	}
	in := &inbox{c: c.UnixConn}
	defer in.close()
	if s, err = parse(in, a.cfg.MaxState); err != nil {
		return cred, nil, nil, err
	}
	if l, err = s.listener(in); err != nil {
		return cred, s, nil, err
	}
	if a.cfg.Journal != NoJournal {
		if err := Journal(l, *s, a.cfg.Journal); err != nil {
			_ = l.Close()
			return cred, s, nil, err
		}
	}
	return cred, s, l, nil
}

// peer is who connected.
func peer(c *net.UnixConn) (cred unix.Ucred, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return cred, err
	}
	cerr := raw.Control(func(fd uintptr) {
		var u *unix.Ucred
		if u, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			cred = *u
		}
	})
	if err = errors.Join(cerr, err); err != nil {
		return cred, fmt.Errorf("whose client it is: SO_PEERCRED: %w", err)
	}
	return cred, nil
}

// why makes an error of ours of a deadline.
func (a *Agent) why(c *conn, err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case c.evicted:
		return fmt.Errorf("it gave way to newer clients: %d were sending (MaxConns)", a.cfg.MaxConns)
	case a.closed:
		return errors.New("the agent was closed before the state had come")
	}
	return fmt.Errorf("the state had not come after %v", a.cfg.Timeout)
}
