package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/agent"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/unixsocket"
	"golang.org/x/sys/unix"
)

// A door is where a successor knocks: a SOCK_SEQPACKET socket beside the agent's. Who may connect to it can take all
// containers, so it is its owner's only.
type door struct {
	l    *net.UnixListener
	file unixsocket.File
	once sync.Once
}

// knock is what a successor says. Without it nothing is handed over: somebody may only look whether we are here.
const knock = "unknot: take over\n"

// openDoor opens the door in the place of a predecessor's. Without one there is no hand-over.
func (d *daemon) openDoor() *door {
	d.links = make(chan *net.UnixConn)
	o := &door{}
	if d.store.stays() {
		return o // the service manager replaces its service
	}
	l, err := unixsocket.Replace("unixpacket", d.Socket+linkSuffix, 0o600)
	if err != nil {
		d.Log.Error("no other daemon can take over from this one", "err", err)
		return o
	}
	o.l = l
	o.file = unixsocket.Own(d.Socket + linkSuffix)
	go func() {
		for {
			c, err := l.AcceptUnix()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				time.Sleep(10 * time.Millisecond)
				continue
			}
			go d.hear(c)
		}
	}()
	return o
}

// hear waits for a knock.
func (d *daemon) hear(c *net.UnixConn) {
	b := make([]byte, len(knock)+1)
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	n, err := c.Read(b)
	if err != nil || string(b[:n]) != knock || !same(c) {
		_ = c.Close()
		return
	}
	d.links <- c
}

// same reports whether the other end is root or this user.
func same(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	var u *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) { u, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil || err != nil {
		return false
	}
	return u.Uid == 0 || int(u.Uid) == os.Geteuid()
}

func (o *door) close() {
	o.once.Do(func() {
		if o.l == nil {
			return
		}
		o.file.Remove()
		_ = o.l.Close()
	})
}

// predecessor is the connection to a daemon that can be taken over from, or nil.
func (d *daemon) predecessor() *net.UnixConn {
	if d.before == nil {
		c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: d.Socket + linkSuffix, Net: "unixpacket"})
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ECONNREFUSED) {
			d.Log.Warn("whether there is a daemon to take over from cannot be told", "err", err)
		}
		if err == nil {
			d.before = c
		}
	}
	return d.before
}

// takeOver takes the socket and all containers from a daemon that runs, if there is one.
func (d *daemon) takeOver() error {
	c := d.predecessor()
	if c == nil {
		return nil
	}
	d.before = nil
	link, err := agent.NewLink(c)
	if err != nil {
		_ = c.Close()
		return err
	}
	defer link.Close()
	if _, err := c.Write([]byte(knock)); err != nil {
		return fmt.Errorf("--take-over: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	taken, err := link.Take(ctx, func(s agent.State, l *notify.Listener) error {
		ctx, cancel := context.WithTimeout(ctx, keepFor)
		defer cancel()
		d.keepCopy(ctx, s, l)
		return d.take(l, "the daemon before", false)
	})
	if err == nil && taken.Socket == nil {
		err = errors.New("it gave no socket")
	}
	if err != nil {
		return fmt.Errorf("--take-over: the daemon at %s did not hand over: %w", d.Socket, err)
	}
	if taken.Path != d.Socket {
		return fmt.Errorf("--take-over: the daemon listens at %s: say that as --socket", taken.Path)
	}
	d.socket = taken.Socket
	d.Log.Info("taken over", "containers", taken.Listeners)
	return nil
}

// patience is for how long a hand-over waits for a listener's handlers before it sees to the other listeners.
const patience = 250 * time.Millisecond

// handOver gives all to a successor. over: it has it. An error says that this process cannot go on.
func (d *daemon) handOver(c *net.UnixConn) (over bool, err error) {
	link, err := agent.NewLink(c)
	if err != nil {
		_ = c.Close()
		return false, nil
	}
	defer link.Close()
	d.Log.Info("handing over", "containers", len(d.engine.Sources()))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	spare, err := d.socket.File()
	if err != nil {
		d.Log.Error("not handed over", "err", err)
		return false, nil
	}
	defer spare.Close()
	if err := d.agent.HandOver(ctx, link); err != nil {
		d.Log.Error("not handed over", "err", err)
		return false, nil
	}
	if err = <-d.agentDone; err == nil {
		short, cancel := context.WithTimeout(ctx, patience)
		d.leaveLXC(short)
		cancel()
		if err = d.giveAll(ctx, link); err == nil {
			err = link.End(ctx)
		}
	}
	if err == nil {
		d.door.close()
		d.stopping.Store(true)
		d.halt()
		if err := <-d.ended; err != nil {
			d.Log.Warn("handlers were not waited for: their calls are answered by default", "err", err)
		}
		d.Log.Info("handed over")
		return true, nil
	}
	if d.store.outlives() {
		// Who has copies of all begins anew, with all of them. There is no telling what the other one has.
		d.Log.Error("a successor took a part and failed; this daemon ends, and the next one begins with all", "err", err)
		return false, fmt.Errorf("a successor took a part and failed: %w", err)
	}
	d.Log.Error("a successor took a part and failed; this daemon goes on with the rest", "err", err, "containers", len(d.engine.Sources()))
	return false, d.goOn(spare)
}

// giveAll gives the listeners, those last whose handlers take long.
func (d *daemon) giveAll(ctx context.Context, link *agent.Link) error {
	var slow []*engine.Source
	give := func(src *engine.Source, wait time.Duration) error {
		short, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		l, err := d.release(short, src)
		if err != nil {
			slow = append(slow, src)
			return nil // or it has no targets any more
		}
		if err := link.Give(ctx, l); err != nil {
			s, serr := agent.StateOf(l)
			if serr == nil {
				serr = d.add(s, l)
			}
			return errors.Join(err, serr)
		}
		return l.Close()
	}
	for _, src := range d.engine.Sources() {
		if src.Listener().Carried() {
			continue // it is about to end
		}
		if err := give(src, patience); err != nil {
			return err
		}
	}
	rest := slow
	slow = nil
	end := time.Now().Add(d.Drain)
	for _, src := range rest {
		if err := give(src, max(time.Until(end), time.Millisecond)); err != nil {
			return err
		}
	}
	for _, src := range slow {
		select {
		case <-src.Done(): // it has no targets
			continue
		default:
		}
		// The successor receives from now on, and so do we for a moment. What our handlers still have is
		// interrupted there, or answered by default here.
		d.Log.Warn("a container is handed over although handlers have calls of it", "container", container(src))
		if err := link.Give(ctx, src.Listener()); err != nil {
			return err
		}
	}
	return nil
}

// goOn has this daemon take clients again.
func (d *daemon) goOn(spare *os.File) error {
	l, err := net.FileListener(spare)
	if err != nil {
		return err
	}
	u := l.(*net.UnixListener)
	u.SetUnlinkOnClose(false)
	d.socket = u
	a, err := agent.Listen(agent.Config{Listener: u, Serve: d.serve, Logger: d.Log})
	if err != nil {
		return err
	}
	d.agent = a
	go func() { d.agentDone <- a.Run(context.Background()) }()
	d.lxc.mu.Lock()
	d.lxc.over = false
	d.lxc.mu.Unlock()
	if d.openLXC() != nil {
		go d.retry("socket for LXC", d.openLXC)
	}
	return nil
}
