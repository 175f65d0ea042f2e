package daemon

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/unknot/unknot/cmd/unknot/internal/systemd"
	"github.com/unknot/unknot/engine/agent"
	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// A store keeps copies of what a later daemon needs.
type store interface {
	// keep keeps a listener's copy, before it is served.
	keep(ctx context.Context, l *notify.Listener) error
	// forget is told that a listener has no targets any more.
	forget(l *notify.Listener)
	// socket keeps a copy of the socket: all else is there.
	socket(ctx context.Context, l *net.UnixListener) error
	// outlives reports whether copies are there for a next daemon when this one has failed; stays, also when it ended as
	// it was asked to.
	outlives() bool
	stays() bool
}

// noStore keeps nothing.
type noStore struct{}

func (noStore) keep(context.Context, *notify.Listener) error    { return nil }
func (noStore) forget(*notify.Listener)                         {}
func (noStore) socket(context.Context, *net.UnixListener) error { return nil }
func (noStore) outlives() bool                                  { return false }
func (noStore) stays() bool                                     { return false }

// A keeperStore is the keeper that started this process. It finds out by itself which listeners have no targets.
type keeperStore struct {
	link *agent.Link
	gone atomic.Bool // the keeper
}

var errKeeperGone = errors.New("the keeper is gone")

func (s *keeperStore) keep(ctx context.Context, l *notify.Listener) error {
	if s.gone.Load() {
		return errKeeperGone
	}
	return s.link.Give(ctx, l)
}
func (s *keeperStore) forget(*notify.Listener) {}
func (s *keeperStore) outlives() bool          { return !s.gone.Load() }
func (s *keeperStore) stays() bool             { return false }
func (s *keeperStore) socket(ctx context.Context, l *net.UnixListener) error {
	return s.link.GiveSocket(ctx, l, l.Addr().String())
}

// A managerStore is the service manager's. Each listener has a name there, under which its journal is, too.
type managerStore struct {
	m   *systemd.Manager
	log *slog.Logger

	mu     sync.Mutex
	names  map[*notify.Listener]string
	stored bool // the socket
}

const (
	listenerPrefix = "unknot-listener-"
	socketName     = "unknot-socket"
)

func (s *managerStore) keep(ctx context.Context, l *notify.Listener) error {
	var b [8]byte
	_, _ = rand.Read(b[:]) // which never fails
	name := listenerPrefix + hex.EncodeToString(b[:])
	if err := s.m.Store(ctx, name, l.FD(), l.Journal().FD()); err != nil {
		return err
	}
	s.has(l, name)
	return nil
}

// has notes that the manager keeps l under a name.
func (s *managerStore) has(l *notify.Listener, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names == nil {
		s.names = map[*notify.Listener]string{}
	}
	s.names[l] = name
}

func (s *managerStore) forget(l *notify.Listener) {
	s.mu.Lock()
	name, ok := s.names[l]
	delete(s.names, l)
	s.mu.Unlock()
	if ok {
		if err := s.m.Forget(name); err != nil {
			s.log.Error("a container's end is not known to the service manager, which keeps its listener", "err", err)
		}
	}
}

func (s *managerStore) socket(ctx context.Context, l *net.UnixListener) error {
	if s.stored {
		return nil
	}
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = raw.Control(func(fd uintptr) { serr = s.m.Store(ctx, socketName, int(fd)) })
	return errors.Join(err, serr)
}

func (s *managerStore) outlives() bool { return true }
func (s *managerStore) stays() bool    { return true }

// inherited is what came with this process.
type inherited struct {
	socket    *net.UnixListener // or nil
	activated bool              // the socket is the manager's own: its path is not ours
	listeners []named
	lost      []error
}

// named is a listener in the manager's store.
type named struct {
	name string
	l    *notify.Listener
}

// sort makes of the descriptors that the manager handed over what they are. Those that are not ours to use are closed.
func sort(files []systemd.File) (in inherited, err error) {
	pairs := map[string][]int{}
	var order []string
	for _, f := range files {
		switch {
		case len(f.Name) > len(listenerPrefix) && f.Name[:len(listenerPrefix)] == listenerPrefix:
			if pairs[f.Name] == nil {
				order = append(order, f.Name)
			}
			pairs[f.Name] = append(pairs[f.Name], f.FD)
		case f.Name == "unknot-probe": // of a predecessor that died just then
			_ = unix.Close(f.FD)
		default:
			l, err := socketOf(f)
			if err != nil {
				return in, err
			}
			// The manager may have stored the socket that it also opens.
			if in.socket != nil && (f.Name == socketName || in.socket.Addr().String() == l.Addr().String()) {
				_ = l.Close()
				continue
			}
			if in.socket != nil && in.activated {
				_ = l.Close()
				return in, usagef("%d sockets were passed by activation: a daemon has one (ListenStream= once)", 2)
			}
			if in.socket != nil {
				_ = in.socket.Close()
			}
			in.socket, in.activated = l, f.Name != socketName
		}
	}
	for _, name := range order {
		l, err := listenerOf(pairs[name])
		if err != nil {
			in.lost = append(in.lost, fmt.Errorf("%s: %w", name, err))
			continue
		}
		in.listeners = append(in.listeners, named{name, l})
	}
	return in, nil
}

func socketOf(f systemd.File) (*net.UnixListener, error) {
	file := os.NewFile(uintptr(f.FD), f.Name)
	defer file.Close()
	l, err := net.FileListener(file)
	if err != nil {
		return nil, usagef("descriptor %q of the service manager: %w: want a UNIX stream socket that listens (ListenStream=/PATH)", f.Name, err)
	}
	u, ok := l.(*net.UnixListener)
	if !ok || u.Addr().Network() != "unix" {
		_ = l.Close()
		return nil, usagef("descriptor %q of the service manager is %s, not a UNIX stream socket (ListenStream=/PATH)", f.Name, l.Addr().Network())
	}
	u.SetUnlinkOnClose(false)
	return u, nil
}

// listenerOf makes a listener of its descriptor and its journal's, which come in any order. It takes or closes them.
func listenerOf(fds []int) (*notify.Listener, error) {
	closeAll := func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}
	if len(fds) != 2 {
		closeAll()
		return nil, fmt.Errorf("%d descriptors have the name of one listener and its journal", len(fds))
	}
	at := 0
	j, err := notify.OpenJournal(fds[1])
	if err != nil {
		at = 1
		j, err = notify.OpenJournal(fds[0])
	}
	if err != nil {
		closeAll()
		return nil, err
	}
	l, err := notify.NewListener(fds[at])
	if err != nil {
		_ = j.Close()
		_ = unix.Close(fds[at])
		return nil, err
	}
	l.SetJournal(j)
	if _, err := agent.StateOf(l); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// keepFor bounds how long a container's start waits for its listener's copy to be kept.
const keepFor = 10 * time.Second
