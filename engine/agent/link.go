package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/unixsocket"
	"golang.org/x/sys/unix"
)

// A Link is a connection between two processes over which listeners go, each acknowledged by who takes it: from an agent to its
// successor, to a [Keeper], and from that to a successor. One end gives, the other takes.
//
// What goes over is a copy of the listener's descriptor, and of its journal's with the [State] in it. So a listener
// must have a journal, as those have that an [Agent] serves.
type Link struct {
	c  *net.UnixConn
	mu sync.Mutex // of a packet and its acknowledgement
}

// NewLink makes a link of one end of a SOCK_SEQPACKET socket ("unixpacket"). The link owns it. Who may connect to it
// can answer the calls of all targets: pass it on, or give its path the mode 0600.
func NewLink(c *net.UnixConn) (*Link, error) {
	if c.LocalAddr().Network() != "unixpacket" {
		return nil, fmt.Errorf("agent: a link is a SOCK_SEQPACKET socket (unixpacket), not %s", c.LocalAddr().Network())
	}
	return &Link{c: c}, nil
}

// Close closes our end.
func (k *Link) Close() error { return k.c.Close() }

// A packet is one message over a link. Descriptors come with it.
type packet struct {
	Kind  string `json:"kind"`
	Path  string `json:"path,omitempty"`
	Error string `json:"error,omitempty"`
}

const (
	kindListener = "listener" // with the listener, and its journal
	kindSocket   = "socket"   // with the socket at Path
	kindEnd      = "end"      // nothing more comes
	kindAck      = "ack"      // or Error says why not

	maxPacket = 8 << 10
)

// ErrNotTaken says that the other end did not take what it was given. It is the giver's as before.
var ErrNotTaken = errors.New("the other end did not take it")

// Give gives a copy of l, and waits until the other end has taken it. On success both have it: close ours to hand
// it over, after the last answer and with nobody in Recv ([github.com/unknot/unknot/engine.Engine.Release] sees to that); keep it where the other end is a [Keeper]. On error
// the other end does not have it, unless ctx ended while it was taking it.
func (k *Link) Give(ctx context.Context, l *notify.Listener) error {
	j := l.Journal()
	if j == nil {
		return errors.New("agent: give listener: it has no journal, which holds its state (notify.Listener.SetJournal)")
	}
	if err := k.give(ctx, packet{Kind: kindListener}, l.FD(), j.FD()); err != nil {
		return fmt.Errorf("agent: give listener: %w", err)
	}
	return nil
}

// GiveSocket gives a copy of an agent's socket, which listens at path, and waits until the other end has taken it.
// On success both have it, and clients are served by whoever accepts.
func (k *Link) GiveSocket(ctx context.Context, l *net.UnixListener, path string) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return fmt.Errorf("agent: give socket: %w", err)
	}
	var gerr error
	err = raw.Control(func(fd uintptr) { gerr = k.give(ctx, packet{Kind: kindSocket, Path: path}, int(fd)) })
	if err = errors.Join(err, gerr); err != nil {
		return fmt.Errorf("agent: give socket: %w", err)
	}
	return nil
}

// End tells the other end, whose Take then returns, that nothing more comes.
func (k *Link) End(ctx context.Context) error {
	if err := k.give(ctx, packet{Kind: kindEnd}); err != nil {
		return fmt.Errorf("agent: end a link: %w", err)
	}
	return nil
}

// give sends a packet and waits for its acknowledgement.
func (k *Link) give(ctx context.Context, p packet, fds ...int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.until(ctx)()
	if err := k.send(p, fds...); err != nil {
		return err
	}
	answer, got, err := k.receive()
	closeAll(got)
	switch {
	case err != nil:
		return fmt.Errorf("acknowledgement: %w", err)
	case answer.Kind != kindAck:
		return fmt.Errorf("acknowledgement: a packet of kind %q came", answer.Kind)
	case answer.Error != "":
		return fmt.Errorf("%w: %s", ErrNotTaken, answer.Error)
	}
	return nil
}

// until has what blocks on the link fail when ctx ends, until its result is called.
func (k *Link) until(ctx context.Context) (stop func()) {
	_ = k.c.SetDeadline(time.Time{})
	cancel := context.AfterFunc(ctx, func() { _ = k.c.SetDeadline(time.Unix(1, 0)) })
	return func() { cancel() }
}

func (k *Link) send(p packet, fds ...int) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err = k.c.WriteMsgUnix(b, oob, nil)
	return err
}

var errClosed = errors.New("the other end closed the link")

// receive returns a packet and its descriptors, which are the caller's also with an error.
func (k *Link) receive() (p packet, fds []int, err error) {
	in := &inbox{c: k.c}
	b := make([]byte, maxPacket)
	n, err := in.Read(b)
	if err == nil && n == 0 || errors.Is(err, io.EOF) { // the end of a SOCK_SEQPACKET
		err = errClosed
	}
	if err == nil {
		err = json.Unmarshal(b[:n], &p)
	}
	return p, in.fds, err
}

// Taken is what came over a link beside listeners.
type Taken struct {
	Listeners int
	Socket    *net.UnixListener // of an agent that hands over, for [Config.Listener], or nil
	Path      string            // where it listens
}

// Take calls take for each listener that comes, with its state, until the other end ends: then it has all that there was. Each is acknowledged once take has returned; on
// its error the listener is closed here, and stays the giver's. Before anything is received from a listener
// whose former holder has crashed, [Recover] answers what that had received.
func (k *Link) Take(ctx context.Context, take func(State, *notify.Listener) error) (t Taken, err error) {
	return k.take(ctx, take, func(l *net.UnixListener, path string) error {
		if t.Socket != nil {
			_ = l.Close()
			return errors.New("a second socket")
		}
		t.Socket, t.Path = l, path
		return nil
	}, &t)
}

// take is Take for who wants a socket when it comes. It is then the function's, which closes it on error.
func (k *Link) take(ctx context.Context, take func(State, *notify.Listener) error, socket func(*net.UnixListener, string) error, t *Taken) (_ Taken, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.until(ctx)()
	for {
		p, fds, err := k.receive()
		if err == nil {
			err = t.one(p, fds, take, socket)
		} else {
			closeAll(fds)
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return *t, fmt.Errorf("agent: take listeners: %w", err)
		}
		ack := packet{Kind: kindAck}
		if err != nil {
			ack.Error = err.Error()[:min(len(err.Error()), maxPacket/8)]
		}
		if err := k.send(ack); err != nil {
			return *t, fmt.Errorf("agent: take listeners: acknowledge: %w", err)
		}
		if p.Kind == kindEnd {
			return *t, nil
		}
	}
}

// one sees to one packet. The descriptors are taken or closed.
func (t *Taken) one(p packet, fds []int, take func(State, *notify.Listener) error, socket func(*net.UnixListener, string) error) error {
	wants := map[string]int{kindListener: 2, kindSocket: 1, kindEnd: 0}
	if n, ok := wants[p.Kind]; !ok || n != len(fds) {
		closeAll(fds)
		return fmt.Errorf("a packet of kind %q came with %d descriptors", p.Kind, len(fds))
	}
	switch p.Kind {
	case kindSocket:
		f := os.NewFile(uintptr(fds[0]), p.Path)
		defer f.Close()
		l, err := net.FileListener(f)
		if err != nil {
			return err
		}
		ul, ok := l.(*net.UnixListener)
		if !ok {
			_ = l.Close()
			return errors.New("a socket that is no agent's")
		}
		ul.SetUnlinkOnClose(false)
		return socket(ul, p.Path)
	case kindListener:
		l, s, err := restore(fds[0], fds[1])
		if err != nil {
			return err
		}
		if err := take(s, l); err != nil {
			_ = l.Close()
			return err
		}
		t.Listeners++
	}
	return nil
}

// restore makes a listener of copies of its descriptor and its journal's, which it takes or closes.
func restore(fd, jfd int) (*notify.Listener, State, error) {
	l, err := notify.NewListener(fd)
	if err != nil {
		closeAll([]int{fd, jfd})
		return nil, State{}, err
	}
	j, err := notify.OpenJournal(jfd)
	if err != nil {
		_ = l.Close()
		closeAll([]int{jfd})
		return nil, State{}, err
	}
	l.SetJournal(j)
	s, err := StateOf(l)
	if err != nil {
		_ = l.Close()
		return nil, State{}, err
	}
	return l, s, nil
}

// StateOf is the state that l came with, from its journal.
func StateOf(l *notify.Listener) (s State, err error) {
	if l.Journal() == nil {
		return s, errors.New("agent: the listener has no journal, which holds its state")
	}
	b, err := l.Journal().Note()
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		return s, fmt.Errorf("agent: state in the listener's journal: %w", err)
	}
	return s, nil
}

// Journal gives l a journal with its state, as an [Agent] does: for listeners that come from elsewhere.
func Journal(l *notify.Listener, s State, entries int) error {
	note, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	j, err := notify.NewJournal(entries, note)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	l.SetJournal(j)
	return nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// Recover answers what a former holder of l received and did not answer, and returns how many that were. That
// holder must be dead, and nobody may receive from l meanwhile. What answer returns is sent under the notification's
// id; nil has all fail with EINTR, as an engine's dropped calls do. A call may have had its effect already.
func Recover(l *notify.Listener, answer func(notify.Held) notify.Resp) (n int, err error) {
	held, err := l.Held()
	if err != nil {
		return 0, fmt.Errorf("agent: recover: %w", err)
	}
	for _, h := range held {
		resp := notify.Resp{Error: -int32(unix.EINTR)}
		if answer != nil {
			resp = answer(h)
		}
		resp.ID = h.ID
		switch err := l.Send(&resp); notify.OutcomeOf(err) {
		case notify.Done:
			n++
		case notify.Stale:
		default:
			return n, fmt.Errorf("agent: recover call %d: %w", h.ID, err)
		}
	}
	return n, nil
}

// HandOver gives the agent's socket to a successor and ends the agent: Run returns when all who were sending have been served,
// of whom none is refused. Clients that connect meanwhile are served by one or the other. When Run has returned
// give what was served ([Link.Give]), and then [Link.End]. On error the agent goes on.
func (a *Agent) HandOver(ctx context.Context, k *Link) error {
	if err := k.GiveSocket(ctx, a.l, a.Addr()); err != nil {
		return err
	}
	a.mu.Lock()
	a.file, a.handed = unixsocket.File{}, true
	a.mu.Unlock()
	return a.Close()
}
