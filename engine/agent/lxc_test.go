package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

// A monitor does what LXC's monitor does with a container's listener (src/lxc/seccomp.c, seccomp_notify_handler):
// the same messages, in the same order, and the same answers where there is no agent.
type monitor struct {
	t      *testing.T
	path   string
	cookie string
	l      *notify.Listener
	conn   atomic.Int32 // -1: not connected; of who calls and of the test

	calls chan [6]uintptr // to be made by the container
	ret   chan called
	logs  chan string // what LXC would log as errors
}

type called struct {
	val   uintptr
	errno unix.Errno
}

// newMonitor starts a container of one thread, under a filter that traps getppid, and its monitor.
func newMonitor(t *testing.T, path, cookie string) *monitor {
	t.Helper()
	if err := notify.FeatureNotify.Probe(); err != nil {
		t.Skip(err)
	}
	prog, err := notify.TrapProgram(unix.SYS_GETPPID)
	if err != nil {
		t.Fatal(err)
	}
	m := &monitor{t: t, path: path, cookie: cookie, calls: make(chan [6]uintptr), ret: make(chan called, 1), logs: make(chan string, 100)}
	m.conn.Store(-1)
	ready := make(chan error)
	osthread.Start(func() {
		var err error
		m.l, err = notify.Install(prog, 0)
		ready <- err
		for a := range m.calls {
			v, _, e := unix.Syscall6(unix.SYS_GETPPID, a[0], a[1], a[2], a[3], a[4], a[5])
			m.ret <- called{v, e}
		}
	})
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	if err := m.connect(); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(m.run)
	t.Cleanup(func() {
		close(m.calls)
		wg.Wait()
		_ = m.l.Close()
		_ = unix.Close(int(m.conn.Load()))
	})
	return m
}

func (m *monitor) connect() error {
	if fd := m.conn.Swap(-1); fd >= 0 {
		_ = unix.Close(int(fd))
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: m.path}); err != nil {
		_ = unix.Close(fd)
		return err
	}
	m.conn.Store(int32(fd))
	for _, o := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, o, &unix.Timeval{Sec: 30})
	}
	return nil
}

// run is the monitor's loop, until the container has ended.
func (m *monitor) run() {
	for {
		p := []unix.PollFd{{Fd: int32(m.l.FD()), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, -1); err != nil {
			continue
		}
		if p[0].Revents&unix.POLLIN == 0 {
			return // POLLHUP
		}
		var n notify.Notif
		if m.l.Recv(&n) != nil {
			continue
		}
		r := m.ask(&n)
		if err := m.l.Send(&r); err != nil {
			m.logs <- "Failed to send seccomp notification: " + err.Error()
		}
	}
}

// lxcMessage is one as LXC sends it. Its layout is written out here, so that it is not the package's own.
func lxcMessage(n *notify.Notif, cookie string) []byte {
	b := binary.NativeEndian
	p := make([]byte, 136, 136+len(cookie))
	b.PutUint32(p[8:], uint32(os.Getpid())) // monitor_pid
	b.PutUint32(p[12:], 4711)               // init_pid
	b.PutUint16(p[16:], 80)
	b.PutUint16(p[18:], 24)
	b.PutUint16(p[20:], 64)
	b.PutUint64(p[24:], uint64(len(cookie)))
	b.PutUint64(p[32:], n.ID)
	b.PutUint32(p[40:], n.PID)
	b.PutUint32(p[44:], n.Flags)
	b.PutUint32(p[48:], uint32(n.Data.NR))
	b.PutUint32(p[52:], n.Data.Arch)
	b.PutUint64(p[56:], n.Data.IP)
	for i, a := range n.Data.Args {
		b.PutUint64(p[64+8*i:], a)
	}
	b.PutUint64(p[112:], n.ID) // of the answer to be
	return append(p, cookie...)
}

// lxcDescriptors are those of a message but for the listener, which is the caller's.
func lxcDescriptors(pid uint32, listener int) (fds []int, end func(), err error) {
	dir, err := unix.Open(fmt.Sprintf("/proc/%d", pid), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	mem, err := unix.Open(fmt.Sprintf("/proc/%d/mem", pid), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		_ = unix.Close(dir)
		return nil, nil, err
	}
	return []int{dir, mem, listener}, func() { _ = unix.Close(dir); _ = unix.Close(mem) }, nil
}

func (m *monitor) ask(n *notify.Notif) notify.Resp {
	failed := notify.Resp{ID: n.ID, Error: -int32(unix.ENOSYS)}
	fds, end, err := lxcDescriptors(n.PID, m.l.FD())
	if err != nil {
		m.logs <- err.Error()
		return failed
	}
	defer end()
	if m.l.IDValid(n.ID) != nil {
		return failed
	}
	p := lxcMessage(n, m.cookie)
	for reconnected := false; ; reconnected = true {
		_, err := unix.SendmsgN(int(m.conn.Load()), p, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL)
		for err == unix.EINTR {
			_, err = unix.SendmsgN(int(m.conn.Load()), p, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL)
		}
		if err == nil {
			break
		}
		m.logs <- "Failed to forward message to seccomp proxy"
		if reconnected || m.connect() != nil {
			return failed
		}
	}
	q := make([]byte, 200)
	k, _, err := unix.Recvfrom(int(m.conn.Load()), q, unix.MSG_TRUNC)
	for err == unix.EINTR { // lxc_recvmsg_nointr_iov
		k, _, err = unix.Recvfrom(int(m.conn.Load()), q, unix.MSG_TRUNC)
	}
	if err != nil || k != 136 {
		m.logs <- fmt.Sprintf("Failed to receive message from seccomp proxy: %d bytes, %v", k, err)
		return failed
	}
	b := binary.NativeEndian
	r := notify.Resp{ID: b.Uint64(q[112:]), Val: int64(b.Uint64(q[120:])), Error: int32(b.Uint32(q[128:])), Flags: b.Uint32(q[132:])}
	if r.ID != n.ID {
		m.logs <- "Proxy returned response with invalid id"
		r.ID = n.ID // as it does
	}
	if string(q[:112]) != string(p[:112]) {
		m.logs <- "the head of the answer is not that of the call"
	}
	return r
}

func (m *monitor) call(args ...uintptr) called {
	m.t.Helper()
	var a [6]uintptr
	copy(a[:], args)
	m.calls <- a
	select {
	case c := <-m.ret:
		return c
	case <-time.After(patience):
		m.t.Fatal("the call has no answer")
		return called{}
	}
}

func (m *monitor) logged() (all []string) {
	for {
		select {
		case s := <-m.logs:
			all = append(all, s)
		default:
			return all
		}
	}
}

// lxcHandler answers by the call's first argument.
var lxcHandler = engine.HandlerFunc(func(r engine.Request) {
	d := r.Data()
	switch d.Args[0] {
	case 0:
		_ = r.Return(42)
	case 1:
		_ = r.Fail(unix.EDOM)
	case 2:
		_ = r.Continue()
	case 3:
		s, err := r.Target().String(d.Args[1], 100)
		if c := r.Source().Tag().(LXCContainer); err == nil && s == c.Cookie && c.MonitorPID == os.Getpid() && c.InitPID == 4711 && r.Alive() {
			_ = r.Return(int64(len(s)))
		}
	case 4:
		_ = r.SendFD(0, true)
	case 5: // nothing
	}
})

func startLXC(t *testing.T, cfg LXCConfig) (*LXC, *lines) {
	t.Helper()
	log := &lines{}
	cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	if cfg.Path == "" {
		cfg.Path = filepath.Join(t.TempDir(), "lxc.sock")
	}
	x, err := ListenLXC(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- x.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return x, log
}

// startEngine runs an engine for what a front is to serve.
func startEngine(t *testing.T, cfg engine.Config) (*engine.Engine, func(LXCContainer, *notify.Listener) error, context.CancelFunc) {
	t.Helper()
	cfg.Handler, cfg.DefaultErrno, cfg.StopTimeout = lxcHandler, unix.EXDEV, patience
	e, err := engine.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var once sync.Once
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	end := func() {
		once.Do(func() {
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(end)
	return e, func(c LXCContainer, l *notify.Listener) error {
		_, err := e.AddWith(l, engine.SourceOptions{Tag: c})
		return err
	}, end
}

func TestLXC(t *testing.T) {
	for name, cfg := range map[string]engine.Config{"queue": {}, "inline": {Inline: true}} {
		t.Run(name, func(t *testing.T) {
			fds := testchild.OpenFDs(t)
			t.Run("", func(t *testing.T) { // whose end closes all
				e, serve, _ := startEngine(t, cfg)
				x, log := startLXC(t, LXCConfig{Serve: serve})
				ms := []*monitor{newMonitor(t, x.Addr(), "the first's cookie"), newMonitor(t, x.Addr(), "")}
				text := append([]byte("the first's cookie"), 0)
				addr := uintptrOf(text)
				for range 100 { // more than it takes for direct receive
					for i, m := range ms {
						for _, c := range []struct {
							args []uintptr
							want called
						}{
							{[]uintptr{0}, called{42, 0}}, {[]uintptr{1}, called{^uintptr(0), unix.EDOM}}, {[]uintptr{2}, called{uintptr(os.Getppid()), 0}},
							{[]uintptr{5}, called{^uintptr(0), unix.EXDEV}},
						} {
							if got := m.call(c.args...); got != c.want {
								t.Fatalf("%v: %v, want %v, LXC logs %q, the agent %q", c.args, got, c.want, m.logged(), log.refused())
							}
						}
						if i == 0 {
							if got := m.call(3, addr); got != (called{uintptr(len(text) - 1), 0}) {
								t.Fatalf("memory: %v, LXC logs %q, the agent %q", got, m.logged(), log.refused())
							}
						}
					}
				}
				got := ms[1].call(4)
				if is, want := fileName(int(got.val)), fileName(0); got.errno != 0 || is != want {
					t.Errorf("descriptor: %v, %q, want %q", got, is, want)
				}
				_ = unix.Close(int(got.val)) // ours, as the container is a thread of this process
				for _, m := range ms {
					if l := m.logged(); len(l) > 0 {
						t.Errorf("LXC logs %q", l)
					}
				}
				if r := log.refused(); len(r) > 0 {
					t.Error(r)
				}
				eventually(t, "the counters balance", func() bool {
					c := e.Counters()
					return c.Received == 901 && c.Answered == 901 && c.Balance() == 0
				})
				if n := len(e.Sources()); n != 2 {
					t.Errorf("%d listeners", n)
				}
				// A monitor that ends takes its listener out, without a fault.
				_ = unix.Shutdown(int(ms[0].conn.Load()), unix.SHUT_RDWR)
				eventually(t, "one listener", func() bool { return len(e.Sources()) == 1 })
				if c := e.Counters(); c.RecvFailed != 0 {
					t.Errorf("%d receives failed", c.RecvFailed)
				}
				// It comes again, with what it had to say.
				if got := ms[0].call(0); got != (called{42, 0}) {
					t.Errorf("connected again: %v", got)
				}
			})
			eventually(t, "no descriptor is left", func() bool { return testchild.OpenFDs(t) <= fds+1 }) // of package target's /proc
		})
	}
}

// A container outlives its agent, and comes to the next one.
func TestLXCRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lxc.sock")
	_, serve, end := startEngine(t, engine.Config{})
	x, _ := startLXC(t, LXCConfig{Path: path, Serve: serve})
	m := newMonitor(t, path, "")
	if got := m.call(0); got.val != 42 {
		t.Fatal(got)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	end()
	if got := m.call(0); got.errno != unix.ENOSYS {
		t.Errorf("without an agent: %v", got)
	}
	_, serve, _ = startEngine(t, engine.Config{})
	startLXC(t, LXCConfig{Path: path, Serve: serve})
	if err := m.connect(); err != nil { // LXC does with the next call, if it has no connection
		t.Fatal(err)
	}
	if got := m.call(0); got.val != 42 {
		t.Errorf("with the next one: %v", got)
	}
}

// pairLXC is a connection's end that carries and LXC's end.
func pairLXC(t *testing.T) (k *lxcConn, lxc int, log *lines) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(p[0]), "")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	log = &lines{}
	if k, err = newLXCConn(c.(*net.UnixConn), slog.New(slog.NewTextHandler(log, nil))); err != nil {
		t.Fatal(err)
	}
	l := notify.Carried(k.fd, k, k.close)
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := l.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("closed twice: %v", err)
		}
		_ = unix.Close(p[1])
	})
	return k, p[1], log
}

// trapped is a call of g's that was received, as LXC would.
func trapped(t *testing.T, g *target) notify.Notif {
	t.Helper()
	g.call <- true
	var n notify.Notif
	for {
		err := g.l.Recv(&n)
		if err == nil {
			return n
		}
		if notify.OutcomeOf(err) != notify.Retry {
			t.Fatal(err)
		}
	}
}

func forward(t *testing.T, lxc int, g *target, n *notify.Notif) {
	t.Helper()
	fds, end, err := lxcDescriptors(n.PID, g.l.FD())
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	if err := unix.Sendmsg(lxc, lxcMessage(n, ""), unix.UnixRights(fds...), nil, 0); err != nil {
		t.Fatal(err)
	}
}

// hears is whether LXC has an answer to read.
func hears(lxc int) bool {
	n, _, err := unix.Recvfrom(lxc, make([]byte, 200), unix.MSG_DONTWAIT)
	return err == nil && n == 136
}

// LXC takes whatever it reads for the answer to its last call. So it must have one for each call, and none that is late.
func TestLXCAnswersOnce(t *testing.T) {
	g := newTarget(t)
	end := func(n *notify.Notif) { // by LXC itself
		_ = g.l.Send(&notify.Resp{ID: n.ID})
		<-g.ret
	}
	before := testchild.OpenFDs(t)
	for _, c := range []struct {
		name  string
		do    func(k *lxcConn, lxc int, n *notify.Notif)
		want  unix.Errno
		hears bool
	}{
		{"at once", func(*lxcConn, int, *notify.Notif) {}, 0, true},
		{"its target has gone", func(_ *lxcConn, _ int, n *notify.Notif) { end(n) }, unix.ENOENT, true},
		{"late", func(k *lxcConn, _ int, _ *notify.Notif) { k.call.until = time.Now().Add(-1) }, unix.ENOENT, false},
		{"twice", func(k *lxcConn, lxc int, n *notify.Notif) {
			if e := k.Send(notify.Resp{ID: n.ID}); e != 0 || !hears(lxc) {
				t.Error(e)
			}
		}, unix.ENOENT, false},
		{"overtaken", func(k *lxcConn, lxc int, n *notify.Notif) {
			next := *n
			next.ID++
			forward(t, lxc, g, &next)
			if got, e := k.Recv(); e != 0 || got != next {
				t.Errorf("%+v, %v", got, e)
			}
		}, unix.ENOENT, false},
		{"LXC has gone", func(_ *lxcConn, lxc int, _ *notify.Notif) { _ = unix.Shutdown(lxc, unix.SHUT_RDWR) }, unix.ENOENT, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, lxc, _ := pairLXC(t)
			n := trapped(t, g)
			forward(t, lxc, g, &n)
			if got, e := k.Recv(); e != 0 || got != n {
				t.Fatalf("%s: %+v, %v, want %+v", c.name, got, e, n)
			}
			if e := k.IDValid(n.ID); e != 0 {
				t.Errorf("%s: it does not wait: %v", c.name, e)
			}
			c.do(k, lxc, &n)
			if e := k.Send(notify.Resp{ID: n.ID}); e != c.want {
				t.Errorf("%s: %v, want %v", c.name, e, c.want)
			}
			if h := hears(lxc); h != c.hears {
				t.Errorf("%s: LXC has an answer: %t, want %t", c.name, h, c.hears)
			}
			if c.hears {
				if e := k.IDValid(n.ID); e != unix.ENOENT {
					t.Errorf("%s: answered, it waits: %v", c.name, e)
				}
				if _, e := k.AddFD(notify.AddFD{ID: n.ID}); e != unix.ENOENT {
					t.Errorf("%s: answered, a descriptor was added: %v", c.name, e)
				}
			}
			if c.name != "its target has gone" {
				end(&n)
			}
		})
	}
	if n := testchild.OpenFDs(t); n != before {
		t.Errorf("%d descriptors, %d before", n, before)
	}
}

// A thread of another pid namespace is not to be taken for the one that has its number here.
func TestLXCOtherProcess(t *testing.T) {
	g := newTarget(t)
	k, lxc, _ := pairLXC(t)
	n := trapped(t, g)
	fds, end, err := lxcDescriptors(n.PID, g.l.FD())
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	other, err := unix.Open("/proc/1", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(other)
	fds[0] = other
	if err := unix.Sendmsg(lxc, lxcMessage(&n, ""), unix.UnixRights(fds...), nil, 0); err != nil {
		t.Fatal(err)
	}
	if got, e := k.Recv(); e != 0 || got.PID != 0 || got.ID != n.ID {
		t.Errorf("%+v, %v", got, e)
	}
	_ = g.l.Send(&notify.Resp{ID: n.ID})
	<-g.ret
}

// What is not LXC's ends its connection, once said so, and nothing is left of it.
func TestLXCBadMessages(t *testing.T) {
	g := newTarget(t)
	n := notify.Notif{ID: 1, PID: uint32(os.Getpid())}
	good := lxcMessage(&n, "cookie")
	with := func(at int, v byte) []byte {
		p := slices.Clone(good)
		p[at] = v
		return p
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	before := testchild.OpenFDs(t)
	for name, c := range map[string]struct {
		p    []byte
		fds  []int
		says string
	}{
		"short":         {good[:100], nil, "100 bytes"},
		"reserved":      {with(0, 1), nil, "reserved field"},
		"sizes":         {with(16, 81), nil, "update unknot"},
		"cookie":        {with(24, 7), nil, "its cookie is 7 bytes, and 6 came"},
		"long":          {append(slices.Clone(good), make([]byte, maxCookie)...), nil, "its cookie must have"},
		"none":          {good, nil, "0 descriptors"},
		"two":           {good, []int{0, 0}, "2 descriptors"},
		"many":          {good, slices.Repeat([]int{0}, maxFDs), "253 descriptors"},
		"no listener":   {good, []int{0, 0, int(null.Fd())}, "no seccomp listener"},
		"another order": {good, []int{g.l.FD(), 0, int(null.Fd())}, "no seccomp listener"},
	} {
		e, serve, end := startEngine(t, engine.Config{})
		x, log := startLXC(t, LXCConfig{Serve: serve})
		c0 := dialLXC(t, x.Addr())
		var oob []byte
		if c.fds != nil {
			oob = unix.UnixRights(c.fds...)
		}
		if err := unix.Sendmsg(c0, c.p, oob, nil, 0); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if k, _, err := unix.Recvfrom(c0, make([]byte, 200), 0); k != 0 && err == nil {
			t.Errorf("%s: %d bytes, %v", name, k, err)
		}
		eventually(t, name+": a line of log", func() bool { return len(log.refused()) > 0 })
		if r := log.refused(); len(r) != 1 || !strings.Contains(r[0], c.says) {
			t.Errorf("%s: %q, want %q", name, r, c.says)
		}
		eventually(t, name+": no listener", func() bool { return len(e.Sources()) == 0 })
		_ = x.Close()
		end()
		_ = unix.Close(c0)
	}
	eventually(t, "no descriptor is left", func() bool { return testchild.OpenFDs(t) <= before })
}

func dialLXC(t *testing.T, path string) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// Containers that say nothing are bounded in number, and keep nobody from being served.
func TestLXCSilent(t *testing.T) {
	_, serve, _ := startEngine(t, engine.Config{})
	x, log := startLXC(t, LXCConfig{Serve: serve, MaxConns: 2})
	silent := dialLXC(t, x.Addr())
	defer unix.Close(silent)
	for range 2 {
		other := dialLXC(t, x.Addr())
		defer unix.Close(other)
	}
	if n, _, err := unix.Recvfrom(silent, make([]byte, 1), 0); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	m := newMonitor(t, x.Addr(), "")
	if got := m.call(0); got.val != 42 {
		t.Error(got)
	}
	if r := log.refused(); len(r) > 0 {
		t.Error(r)
	}
}

func TestLXCConfig(t *testing.T) {
	serve := func(LXCContainer, *notify.Listener) error { return io.EOF }
	for says, cfg := range map[string]LXCConfig{
		"nobody to serve": {Path: filepath.Join(t.TempDir(), "s")}, "negative": {Serve: serve, MaxConns: -1}, "no path": {Serve: serve},
	} {
		if _, err := ListenLXC(cfg); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
	x, log := startLXC(t, LXCConfig{Serve: serve})
	if _, err := ListenLXC(LXCConfig{Path: x.Addr(), Serve: serve}); !errors.Is(err, ErrLive) {
		t.Errorf("a second one: %v", err)
	}
	m := newMonitor(t, x.Addr(), "who")
	if got := m.call(0); got.errno != unix.ENOSYS {
		t.Error(got)
	}
	if r := log.refused(); len(r) != 1 || !strings.Contains(r[0], "EOF") || !strings.Contains(r[0], "who") {
		t.Errorf("%q", r)
	}
	refuses, log := startLXC(t, LXCConfig{Serve: serve, Allow: func(unix.Ucred) error { return errors.New("not you") }})
	fd := dialLXC(t, refuses.Addr())
	defer unix.Close(fd)
	eventually(t, "it is refused", func() bool { r := log.refused(); return len(r) == 1 && strings.Contains(r[0], "not you") })
	// What a confined thread may not do an engine that may have one does not take.
	e, err := engine.New(engine.Config{Handler: lxcHandler, ThreadHook: func(engine.Thread) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	k, _, _ := pairLXC(t)
	if _, err := e.Add(notify.Carried(k.fd, k, func() {})); !errors.Is(err, engine.ErrConfined) {
		t.Error(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	_ = e.Run(ctx)
}

func TestLXCAge(t *testing.T) {
	at := time.Now().Add(-time.Hour)
	p := make([]byte, unix.CmsgSpace(16))
	b := binary.NativeEndian
	b.PutUint64(p, uint64(unix.CmsgLen(16)))
	b.PutUint32(p[8:], unix.SOL_SOCKET)
	b.PutUint32(p[12:], unix.SO_TIMESTAMPNS)
	b.PutUint64(p[16:], uint64(at.Unix()))
	b.PutUint64(p[24:], uint64(at.Nanosecond()))
	if d := age(p); d < time.Hour || d > 2*time.Hour {
		t.Errorf("%v, want an hour", d)
	}
	if d := age(nil); d != 0 {
		t.Errorf("without a stamp: %v", d)
	}
	// The kernel's stamp is such a one.
	k, lxc, _ := pairLXC(t)
	if err := unix.Sendmsg(lxc, []byte("x"), nil, nil, 0); err != nil {
		t.Fatal(err)
	}
	_, n, _, _, err := unix.Recvmsg(k.fd, make([]byte, 1), k.oob, 0)
	if err != nil || n < unix.CmsgSpace(16) {
		t.Errorf("%d bytes of control messages, %v", n, err)
	}
}

func FuzzParseLXC(f *testing.F) {
	f.Add(lxcMessage(&notify.Notif{ID: 7}, ""))
	f.Add(lxcMessage(&notify.Notif{ID: 7}, "cookie"))
	f.Fuzz(func(t *testing.T, p []byte) {
		c, err := parseLXC(p)
		if (c == nil) != (err != nil) {
			t.Errorf("%v, %v", c, err)
		}
		if c != nil {
			if a := c.answer(&notify.Resp{ID: c.notif.ID}); len(a) != 136 || string(a[:112]) != string(p[:112]) {
				t.Errorf("%q", a)
			}
		}
	})
}
