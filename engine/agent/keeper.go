package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// A Keeper holds copies of listeners for the case that who serves them crashes. It belongs into another process than
// the agent, one that does nothing else that could end it, such as the agent's parent:
//
//	agent  → Link.Give each listener, before it is served → Keeper.Keep
//	Keeper → Give to the next agent, when one has died    → Link.Take, Recover
//
// While a Keeper has a copy, calls of the targets wait for a successor instead of failing with ENOSYS. A listener without targets
// is let go within a second while Keep runs.
type Keeper struct {
	log *slog.Logger

	mu     sync.Mutex
	kept   []*notify.Listener
	socket *net.UnixListener // or nil
	path   string
}

// NewKeeper returns a Keeper that has nothing yet; without a logger it logs nothing.
func NewKeeper(log *slog.Logger) *Keeper {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Keeper{log: log}
}

// Add keeps l, which is the keeper's from then on. It must have a journal.
func (k *Keeper) Add(l *notify.Listener) error {
	s, err := StateOf(l)
	if err != nil {
		return err
	}
	k.prune()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept = append(k.kept, l)
	k.log.Debug("seccomp keeper: listener kept", "container", s.Container.ID, "kept", len(k.kept))
	return nil
}

// AddSocket keeps a copy of an agent's socket, which listens at path and is the keeper's from then on, in the place of
// one that it had. While it has one, clients that connect after a crash wait for the next agent.
func (k *Keeper) AddSocket(l *net.UnixListener, path string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.socket != nil {
		_ = k.socket.Close()
	}
	k.socket, k.path = l, path
	return nil
}

// Keep keeps what comes over a link, until the other end ends or is gone, which is no error, or ctx ends.
func (k *Keeper) Keep(ctx context.Context, l *Link) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				k.prune()
			}
		}
	}()
	_, err := l.take(ctx, func(_ State, l *notify.Listener) error { return k.Add(l) }, k.AddSocket, new(Taken))
	if errors.Is(err, errClosed) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) {
		return nil
	}
	return err
}

// Give gives copies of the socket, if it has one, and of all listeners that have targets, and ends the link. The keeper keeps its own.
func (k *Keeper) Give(ctx context.Context, l *Link) error {
	k.prune()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.socket != nil {
		if err := l.GiveSocket(ctx, k.socket, k.path); err != nil {
			return err
		}
	}
	for _, kept := range k.kept {
		if err := l.Give(ctx, kept); err != nil {
			return err
		}
	}
	return l.End(ctx)
}

// Len is how many are kept.
func (k *Keeper) Len() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.kept)
}

// Close lets go of all.
func (k *Keeper) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for _, l := range k.kept {
		errs = append(errs, l.Close())
	}
	k.kept = nil
	if k.socket != nil {
		errs = append(errs, k.socket.Close())
		k.socket = nil
	}
	return errors.Join(errs...)
}

// prune lets go of listeners that have no target left.
func (k *Keeper) prune() {
	k.mu.Lock()
	defer k.mu.Unlock()
	polled := make([]unix.PollFd, len(k.kept))
	for i, l := range k.kept {
		polled[i].Fd = int32(l.FD())
	}
	if n, err := unix.Poll(polled, 0); n <= 0 || err != nil {
		return
	}
	alive := k.kept[:0]
	for i, l := range k.kept {
		if polled[i].Revents&unix.POLLHUP != 0 {
			_ = l.Close()
			continue
		}
		alive = append(alive, l)
	}
	clear(k.kept[len(alive):])
	k.kept = alive
}
