package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"golang.org/x/sys/unix"
)

// LXC's message, src/lxc/lxcseccomp.h: struct seccomp_notify_proxy_msg, struct seccomp_notif, struct
// seccomp_notif_resp, the cookie. The first three go back as the answer.
const (
	lxcHead    = 32 // reserved 8, monitor's pid 4, first process's 4, three sizes of 2, hole 2, length of the cookie 8
	lxcNotif   = 80
	lxcResp    = 24
	lxcAnswer  = lxcHead + lxcNotif + lxcResp
	lxcFDs     = 3 // /proc/PID, /proc/PID/mem, the listener
	maxCookie  = 64 << 10
	lxcListens = lxcFDs - 1
)

// LXCPatience is how long after LXC sent a call its answer is sent. LXC waits for 30 seconds.
const LXCPatience = 25 * time.Second

// An lxcCall is a message of LXC's.
type lxcCall struct {
	container LXCContainer
	notif     notify.Notif
	head      [lxcHead + lxcNotif]byte // as it came
}

func parseLXC(p []byte) (*lxcCall, error) {
	if len(p) < lxcAnswer {
		return nil, fmt.Errorf("a message of %d bytes: LXC's have %d and a cookie", len(p), lxcAnswer)
	}
	b := binary.NativeEndian
	if n, r, d := b.Uint16(p[16:]), b.Uint16(p[18:]), b.Uint16(p[20:]); n != lxcNotif || r != lxcResp || d != 64 {
		return nil, fmt.Errorf("the message's structs are %d, %d and %d bytes, not %d, %d and 64: update unknot", n, r, d, lxcNotif, lxcResp)
	}
	if reserved := b.Uint64(p); reserved != 0 {
		return nil, fmt.Errorf("the message has %#x in its reserved field: LXC's have 0", reserved)
	}
	if n := b.Uint64(p[24:]); n != uint64(len(p)-lxcAnswer) {
		return nil, fmt.Errorf("the message says that its cookie is %d bytes, and %d came", n, len(p)-lxcAnswer)
	}
	c := &lxcCall{container: LXCContainer{Cookie: string(p[lxcAnswer:]), MonitorPID: int(int32(b.Uint32(p[8:]))), InitPID: int(int32(b.Uint32(p[12:])))}}
	copy(c.head[:], p)
	if _, err := binary.Decode(p[lxcHead:], b, &c.notif); err != nil {
		return nil, err
	}
	return c, nil
}

// answer is the message that goes back.
func (c *lxcCall) answer(r *notify.Resp) []byte {
	p := append(make([]byte, 0, lxcAnswer), c.head[:]...)
	p, _ = binary.Append(p, binary.NativeEndian, r) // a struct of numbers
	return p
}

// peekLXC waits for the first message and leaves it where it is; nil if none comes any more.
func peekLXC(c *net.UnixConn) (call *lxcCall, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	p := make([]byte, lxcAnswer+maxCookie)
	var n int
	rerr := raw.Read(func(fd uintptr) bool {
		n, _, err = unix.Recvfrom(int(fd), p, unix.MSG_PEEK|unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		return err != unix.EAGAIN && err != unix.EINTR
	})
	switch {
	case errors.Is(rerr, os.ErrDeadlineExceeded), errors.Is(rerr, net.ErrClosed), rerr == nil && err == nil && n == 0:
		return nil, nil
	case rerr != nil:
		return nil, rerr
	case errors.Is(err, unix.ECONNRESET):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("hear of the first call: %w", err)
	case n > len(p):
		return nil, fmt.Errorf("a message of %d bytes: its cookie must have %d at most", n, maxCookie)
	}
	return parseLXC(p[:n])
}

// An lxcConn carries the calls of a container.
type lxcConn struct {
	fd  int
	log *slog.Logger

	buf, oob []byte // of who receives

	mu   sync.Mutex
	call *lxcWaiting // that LXC waits for; nil: none
}

// An lxcWaiting is a call that was received.
type lxcWaiting struct {
	*lxcCall
	l     *notify.Listener // the container's, for whether the call still waits, and descriptors; LXC has another copy
	until time.Time        // its answer may be sent
	users int              // of l, guarded by lxcConn.mu; the last one closes it
	over  bool
}

// newLXCConn carries the connection's calls by a descriptor of its own.
func newLXCConn(c *net.UnixConn, log *slog.Logger) (*lxcConn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	k := &lxcConn{fd: noFD, log: log, buf: make([]byte, lxcAnswer+maxCookie), oob: make([]byte, ancillary)}
	cerr := raw.Control(func(fd uintptr) {
		if k.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); err != nil {
			return
		}
		// When a message was sent: from now on. The first has the time of its receipt, and LXC connects just before it.
		_ = unix.SetsockoptInt(k.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
		err = unix.SetNonblock(k.fd, false) // the engine's direct receive waits in there
	})
	if err = errors.Join(cerr, err); err != nil {
		if k.fd >= 0 {
			_ = unix.Close(k.fd)
		}
		return nil, fmt.Errorf("take over LXC's connection: %w", err)
	}
	return k, nil
}

func (k *lxcConn) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forget()
	_ = unix.Close(k.fd)
}

// forget says that LXC does not wait for the call any more. The caller holds k.mu.
func (k *lxcConn) forget() {
	w := k.call
	if w == nil {
		return
	}
	k.call, w.over = nil, true
	if w.users == 0 {
		_ = w.l.Close()
	}
}

// use is the call of that id, if it waits, for done.
func (k *lxcConn) use(id uint64) *lxcWaiting {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.call == nil || k.call.notif.ID != id {
		return nil
	}
	k.call.users++
	return k.call
}

func (k *lxcConn) done(w *lxcWaiting) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w.users--; w.users == 0 && w.over {
		_ = w.l.Close()
	}
}

func errnoOf(err error) unix.Errno {
	var e unix.Errno
	if err != nil && !errors.As(err, &e) {
		return unix.EIO
	}
	return e
}

// Recv waits for the next call.
func (k *lxcConn) Recv() (notify.Notif, unix.Errno) {
	n, oobn, flags, _, err := unix.Recvmsg(k.fd, k.buf, k.oob, unix.MSG_CMSG_CLOEXEC)
	switch {
	case err == unix.EINTR:
		return notify.Notif{}, unix.EINTR
	case err == unix.ECONNRESET, err == nil && n == 0:
		return notify.Notif{}, unix.EBADF
	case err != nil:
		return notify.Notif{}, k.refuse(fmt.Errorf("receive: %w", err))
	}
	in := inbox{}
	defer in.close()
	err = in.keep(k.oob[:oobn])
	switch {
	case err != nil:
	case flags&unix.MSG_TRUNC != 0:
		err = fmt.Errorf("a message of more than %d bytes: its cookie must have %d at most", len(k.buf), maxCookie)
	case flags&unix.MSG_CTRUNC != 0:
		err = errors.New("descriptors were lost on their way (MSG_CTRUNC): raise RLIMIT_NOFILE if this process has as many open as it may")
	case len(in.fds) != lxcFDs:
		err = fmt.Errorf("%d descriptors came with a message: LXC sends %d", len(in.fds), lxcFDs)
	}
	var c *lxcCall
	if err == nil {
		c, err = parseLXC(k.buf[:n])
	}
	if err != nil {
		return notify.Notif{}, k.refuse(err)
	}
	l, err := listenerOf(in.fds[lxcListens])
	if err != nil {
		return notify.Notif{}, k.refuse(fmt.Errorf("the descriptor that came as the listener: %w", err))
	}
	in.fds[lxcListens] = noFD
	w := &lxcWaiting{lxcCall: c, l: l, until: time.Now().Add(LXCPatience - age(k.oob[:oobn]))}
	if !sameProcess(in.fds[0], c.notif.PID) {
		w.notif.PID = 0 // another pid namespace's: not visible here
	}
	k.mu.Lock()
	k.forget() // LXC has given up what it asked before
	k.call = w
	k.mu.Unlock()
	return w.notif, 0
}

// refuse ends a connection by which something came that is not LXC's.
func (k *lxcConn) refuse(err error) unix.Errno {
	k.log.Warn("seccomp agent: LXC client refused", "err", err)
	_ = unix.Shutdown(k.fd, unix.SHUT_RDWR) // it answers its calls itself, and may come again
	return unix.EBADF
}

// age is how long ago the message was sent, by its time stamp.
func age(oob []byte) time.Duration {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for _, m := range msgs {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
			b := binary.NativeEndian
			return max(0, time.Since(time.Unix(int64(b.Uint64(m.Data)), int64(b.Uint64(m.Data[8:])))))
		}
	}
	return 0
}

// sameProcess reports whether a directory is that of pid in our /proc. While it is open its inode number is nobody else's.
func sameProcess(dir int, pid uint32) bool {
	var theirs, ours unix.Stat_t
	return unix.Fstat(dir, &theirs) == nil && unix.Stat(fmt.Sprintf("/proc/%d", pid), &ours) == nil &&
		theirs.Ino == ours.Ino && theirs.Dev == ours.Dev
}

// Send has LXC answer. It does so also where the call has gone: LXC waits for the message.
func (k *lxcConn) Send(r notify.Resp) unix.Errno {
	w := k.use(r.ID)
	if w == nil {
		return unix.ENOENT
	}
	defer k.done(w)
	e := errnoOf(w.l.IDValid(r.ID))
	k.mu.Lock()
	defer k.mu.Unlock()
	if w.over || time.Now().After(w.until) {
		return unix.ENOENT
	}
	k.forget()
	if err := unix.Sendto(k.fd, w.answer(&r), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, nil); err != nil {
		_ = unix.Shutdown(k.fd, unix.SHUT_RDWR) // LXC then answers itself
		return unix.ENOENT
	}
	return e
}

// IDValid asks the container's listener.
func (k *lxcConn) IDValid(id uint64) unix.Errno {
	w := k.use(id)
	if w == nil {
		return unix.ENOENT
	}
	defer k.done(w)
	return errnoOf(w.l.IDValid(id))
}

// AddFD adds by the container's listener. The answer is LXC's to send, so that AddFDSend is two steps.
func (k *lxcConn) AddFD(a notify.AddFD) (int, unix.Errno) {
	w := k.use(a.ID)
	if w == nil {
		return -1, unix.ENOENT
	}
	defer k.done(w)
	answers := a.Flags&notify.AddFDSend != 0
	a.Flags &^= notify.AddFDSend
	n, err := w.l.AddFD(&a)
	if err != nil {
		return -1, errnoOf(err)
	}
	if answers {
		return n, k.Send(notify.Resp{ID: a.ID, Val: int64(n)})
	}
	return n, 0
}

// SetFlags does nothing: they would be for who receives, which is LXC.
func (k *lxcConn) SetFlags(uint64) unix.Errno { return 0 }
