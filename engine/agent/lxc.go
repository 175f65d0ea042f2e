package agent

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/unixsocket"
	"golang.org/x/sys/unix"
)

// An LXCContainer is what LXC tells of a container with each call.
type LXCContainer struct {
	Cookie     string // lxc.seccomp.notify.cookie, as the container's author wrote it
	MonitorPID int    // of LXC's monitor process, which has the listener
	InitPID    int    // of the container's first process
}

// LogValue is the cookie, or else the first process.
func (c LXCContainer) LogValue() slog.Value {
	if c.Cookie != "" {
		return slog.StringValue(c.Cookie)
	}
	return slog.IntValue(c.InitPID)
}

// An LXCConfig sets up an [LXC]. Serve is required, and Path.
type LXCConfig struct {
	// Path is where to listen, as lxc.seccomp.notify.proxy of containers says (unix:/PATH). See [Config].
	Path string
	Mode fs.FileMode // see [Config]
	// Allow decides whether a client is served; see [Config].
	Allow func(unix.Ucred) error
	// Serve is given each container with a listener, which is Serve's from then on, unless it returns an error. It is called
	// when the first call comes, which waits meanwhile, and concurrently. A container that has lost its agent, or
	// was refused, comes again with its next call.
	//
	// The listener is carried ([notify.Carried]) over the connection: an engine takes it as any other, but for one with a
	// ThreadHook or PrivateFiles.
	Serve func(LXCContainer, *notify.Listener) error
	// MaxConns is how many containers may be connected that have not made a call yet; 0: DefaultLXCConns. With one more, the
	// oldest is disconnected, which does it no harm: LXC connects again when there is a call.
	MaxConns int
	Logger   *slog.Logger // see [Config]
}

// DefaultLXCConns is the default of LXCConfig.MaxConns.
const DefaultLXCConns = 1024

// LXC serves LXC's monitors, which speak another protocol than the OCI's: SOCK_SEQPACKET, and a message for each call
// instead of the listener for all of them. The monitor receives each call, sends it, and waits for the answer before it receives the
// container's next one. So there is one call of a container's at a time; and what the agent does not
// answer, because it is gone or takes longer than 30 seconds, the monitor answers with ENOSYS.
//
// The engine's deadline for handlers should be below [LXCPatience]. An answer after that is not sent, and counts as one to a target that
// is gone: the monitor would take it for that to the container's next call.
type LXC struct {
	cfg  LXCConfig
	l    *net.UnixListener
	file unixsocket.File

	mu     sync.Mutex
	conns  list.List // of *net.UnixConn without a call so far, oldest first
	closed bool
	wg     sync.WaitGroup
}

// ListenLXC opens the socket. Clients that connect from now on wait for [LXC.Run]. One that will not be run must be closed.
func ListenLXC(cfg LXCConfig) (*LXC, error) {
	if cfg.Mode == 0 {
		cfg.Mode = DefaultMode
	}
	if cfg.Allow == nil {
		cfg.Allow = allowSame
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = DefaultLXCConns
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case cfg.Serve == nil:
		return nil, errors.New("agent: nobody to serve listeners (LXCConfig.Serve)")
	case cfg.MaxConns < 0:
		return nil, fmt.Errorf("agent: %d connections: must not be negative", cfg.MaxConns)
	}
	l, err := listen("unixpacket", cfg.Path, cfg.Mode)
	if err != nil {
		return nil, fmt.Errorf("agent: LXC: %w", err)
	}
	return &LXC{cfg: cfg, l: l, file: unixsocket.Own(cfg.Path)}, nil
}

// Addr is where it listens.
func (x *LXC) Addr() string { return x.l.Addr().String() }

// Run serves clients until ctx ends, then closes and returns once nobody is being served. That ctx ended, or that
// it was closed, is no error.
func (x *LXC) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = x.Close() })
	defer stop()
	err := acceptAll(x.l, x.cfg.Logger, x.begin)
	_ = x.Close()
	x.wg.Wait()
	return err
}

// Close stops listening, removes the socket's path if it is its own, and disconnects who has not made a call yet. It does not
// touch a listener that Serve was given.
func (x *LXC) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return nil
	}
	x.closed = true
	x.file.Remove()
	for e := x.conns.Front(); e != nil; e = e.Next() {
		_ = e.Value.(*net.UnixConn).SetReadDeadline(time.Unix(1, 0))
	}
	if err := x.l.Close(); err != nil {
		return fmt.Errorf("agent: LXC: %w", err)
	}
	return nil
}

// begin waits for the client's first call on a goroutine of its own.
func (x *LXC) begin(c *net.UnixConn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		_ = c.Close()
		return
	}
	if x.conns.Len() >= x.cfg.MaxConns {
		_ = x.conns.Front().Value.(*net.UnixConn).SetReadDeadline(time.Unix(1, 0))
		x.conns.Remove(x.conns.Front())
	}
	e := x.conns.PushBack(c)
	x.wg.Go(func() {
		defer c.Close()
		x.serve(c, func() {
			x.mu.Lock()
			defer x.mu.Unlock()
			x.conns.Remove(e) // nothing if it was already
		})
	})
}

func (x *LXC) serve(c *net.UnixConn, called func()) {
	cred, err := peer(c)
	if err == nil {
		err = x.cfg.Allow(cred)
	}
	var first *lxcCall
	if err == nil {
		first, err = peekLXC(c)
	}
	called()
	var l *notify.Listener
	if err == nil {
		if first == nil {
			return // it ended, or was sent away, without a call
		}
		var k *lxcConn
		if k, err = newLXCConn(c, x.cfg.Logger); err == nil {
			l = notify.Carried(k.fd, k, k.close)
		}
	}
	if err == nil {
		if err = x.cfg.Serve(first.container, l); err == nil {
			return
		}
		_ = l.Close()
	}
	attrs := []any{"err", err, "pid", cred.Pid, "uid", cred.Uid}
	if first != nil {
		attrs = append(attrs, "container", first.container)
	}
	x.cfg.Logger.Warn("seccomp agent: LXC client refused", attrs...)
}
