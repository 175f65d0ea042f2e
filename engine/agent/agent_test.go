package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	testchild.Main(m, testchild.Roles{"activated": childActivated, "callers": childCallers, "container": childContainer, "successor": childSuccessor})
}

// patience is for what must happen; only a failure takes as long.
const patience = 3 * time.Minute

// eventually waits until f holds.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// A lines is a log, line by line.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) refused() (r []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range strings.Split(l.buf.String(), "\n") {
		if strings.Contains(s, "client refused") {
			r = append(r, s)
		}
	}
	return r
}

// A served is what Config.Serve was given.
type served struct {
	State
	l *notify.Listener
}

// A rig is an agent that runs.
type rig struct {
	*Agent
	t    *testing.T
	log  *lines
	got  chan served
	path string
}

// start runs an agent until the test is over.
func start(t *testing.T, cfg Config) *rig {
	t.Helper()
	r := &rig{t: t, log: &lines{}, got: make(chan served, 300), path: filepath.Join(t.TempDir(), "agent.sock")}
	if cfg.Path == "" && cfg.Listener == nil {
		cfg.Path = r.path
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = patience
	}
	if cfg.Serve == nil {
		cfg.Serve = func(s State, l *notify.Listener) error {
			r.got <- served{s, l}
			return nil
		}
	}
	cfg.Logger = slog.New(slog.NewTextHandler(r.log, nil))
	a, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.Agent = a
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		close(r.got)
		for s := range r.got {
			_ = s.l.Close()
		}
	})
	return r
}

func (r *rig) dial() *net.UnixConn {
	r.t.Helper()
	c, err := net.Dial("unix", r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return c.(*net.UnixConn)
}

// next is the next listener that was served.
func (r *rig) next() served {
	r.t.Helper()
	select {
	case s := <-r.got:
		return s
	case <-time.After(patience):
		r.t.Fatalf("nothing was served; refused: %q", r.log.refused())
		return served{}
	}
}

// A target is a thread of this process under a filter that traps getppid.
type target struct {
	l    *notify.Listener
	call chan bool  // makes the call
	ret  chan error // what it came to
}

func newTarget(t *testing.T) *target {
	t.Helper()
	if err := notify.FeatureNotify.Probe(); err != nil {
		t.Skip(err)
	}
	prog, err := notify.TrapProgram(unix.SYS_GETPPID)
	if err != nil {
		t.Fatal(err)
	}
	g := &target{call: make(chan bool), ret: make(chan error, 1)}
	ready := make(chan error)
	osthread.Start(func() {
		var err error
		g.l, err = notify.Install(prog, 0)
		ready <- err
		for range g.call {
			if _, _, e := unix.Syscall(unix.SYS_GETPPID, 0, 0, 0); e != 0 {
				g.ret <- e
			} else {
				g.ret <- nil
			}
		}
	})
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(g.call)
		_ = g.l.Close()
	})
	return g
}

// message is a state of one listener.
func message(s State) []byte {
	if s.FDs == nil {
		s.FDs = []string{listenerName}
	}
	if s.Container.ID == "" {
		s.Container.ID = "box"
	}
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return b
}

// send sends all of b, and descriptors with its first byte.
func send(t *testing.T, c *net.UnixConn, b []byte, fds ...int) {
	t.Helper()
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	n, _, err := c.WriteMsgUnix(b, oob, nil)
	if err == nil && n < len(b) {
		_, err = c.Write(b[n:])
	}
	if err != nil {
		t.Logf("send: %v", err) // the agent may have refused it by then
	}
}

func TestServes(t *testing.T) {
	r, g := start(t, Config{Timeout: time.Hour}), newTarget(t) // who waits for the deadline fails
	want := State{OCIVersion: "0.2.0", PID: 12, Metadata: "bar",
		Container: Container{ID: "one", Status: "creating", Bundle: ".", Annotations: map[string]string{"a": "b"}}}
	c := r.dial()
	// In pieces, and never closed: the state ends where its JSON does.
	b := append(message(want), '\n')
	send(t, c, b[:7], g.l.FD())
	time.Sleep(time.Millisecond)
	send(t, c, b[7:])
	s := r.next()
	want.FDs = []string{listenerName}
	if fmt.Sprint(s.State) != fmt.Sprint(want) {
		t.Errorf("served %+v, want %+v", s.State, want)
	}
	// It is the target's listener.
	_ = s.l.SetFlags(0)
	g.call <- true
	var n notify.Notif
	if err := s.l.Recv(&n); err != nil {
		t.Fatal(err)
	}
	if err := s.l.Send(&notify.Resp{ID: n.ID, Error: -int32(unix.ENOMEDIUM)}); err != nil {
		t.Fatal(err)
	}
	if err := <-g.ret; !errors.Is(err, unix.ENOMEDIUM) {
		t.Errorf("the call came to %v", err)
	}
	if flags, err := unix.FcntlInt(uintptr(s.l.FD()), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %x, %v: a child would inherit it", flags, err)
	}
	_ = s.l.Close()
	if bad := r.log.refused(); bad != nil {
		t.Errorf("refused: %q", bad)
	}
}

// Each bad client is logged once and leaves nothing, and a good one that comes meanwhile is served.
func TestBadClients(t *testing.T) {
	g := newTarget(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	lfd, nfd := g.l.FD(), int(null.Fd())
	names := func(n int) (s []string) {
		for range n - 1 {
			s = append(s, "other")
		}
		return append(s, listenerName)
	}
	many := func(n int) (fds []int) {
		for range n - 1 {
			fds = append(fds, nfd)
		}
		return append(fds, lfd)
	}
	short := Config{Timeout: 50 * time.Millisecond}
	for _, c := range []struct {
		name string
		cfg  Config
		do   func(*testing.T, *net.UnixConn)
		want string
	}{
		{"says nothing", short, func(*testing.T, *net.UnixConn) {}, "had not come after 50ms"},
		{"closes at once", Config{}, func(t *testing.T, c *net.UnixConn) { _ = c.Close() }, "sent nothing"},
		{"closes in the middle", Config{}, func(t *testing.T, c *net.UnixConn) {
			send(t, c, message(State{})[:20], lfd)
			_ = c.Close()
		}, "closed the connection after 20 bytes"},
		{"half a state", short, func(t *testing.T, c *net.UnixConn) { send(t, c, message(State{})[:20], lfd) }, "had not come after"},
		{"a byte now and then", Config{Timeout: 100 * time.Millisecond}, func(t *testing.T, c *net.UnixConn) {
			send(t, c, []byte("{"), lfd)
			go func() {
				for err := error(nil); err == nil; _, err = c.Write([]byte(" ")) {
					time.Sleep(10 * time.Millisecond)
				}
			}()
		}, "had not come after 100ms"},
		{"a descriptor and nothing", Config{}, func(t *testing.T, c *net.UnixConn) {
			send(t, c, []byte(" "), lfd)
			_ = c.CloseWrite()
		}, "after 1 bytes, in the middle"},
		{"too large", Config{MaxState: 1000}, func(t *testing.T, c *net.UnixConn) {
			send(t, c, message(State{Metadata: strings.Repeat("x", 1000)}), lfd)
		}, "larger than 1000 bytes: raise the limit (MaxState)"},
		{"no descriptor", Config{}, func(t *testing.T, c *net.UnixConn) { send(t, c, message(State{})) }, "no descriptor came with the state, which names 1"},
		{"more descriptors than names", Config{}, func(t *testing.T, c *net.UnixConn) { send(t, c, message(State{}), many(250)...) }, "250 descriptors came with the state, which names 1"},
		{"fewer descriptors than names", Config{}, func(t *testing.T, c *net.UnixConn) { send(t, c, message(State{FDs: names(3)}), many(2)...) }, "2 descriptors came with the state, which names 3"},
		{"descriptors without end", Config{}, func(t *testing.T, c *net.UnixConn) {
			send(t, c, []byte("{"), many(250)...)
			send(t, c, []byte(" "), many(250)...)
		}, "more than 253 descriptors"},
		{"a wrong one", Config{}, func(t *testing.T, c *net.UnixConn) { send(t, c, message(State{}), nfd) }, "is no seccomp listener but \\\"/dev/null\\\""},
		{"no name", Config{}, func(t *testing.T, c *net.UnixConn) { send(t, c, message(State{FDs: []string{"x"}}), lfd) }, "names no seccompFd among its 1 fds"},
		{"a name twice", Config{}, func(t *testing.T, c *net.UnixConn) {
			send(t, c, message(State{FDs: []string{listenerName, listenerName}}), lfd, lfd)
		}, "names seccompFd twice"},
		{"no JSON", Config{}, func(t *testing.T, c *net.UnixConn) { send(t, c, []byte("hello"), lfd) }, "it begins with \\\"hello\\\""},
		{"no object", Config{}, func(t *testing.T, c *net.UnixConn) { send(t, c, []byte("\n[1]"), lfd) }, "no JSON object"},
		{"broken JSON", Config{}, func(t *testing.T, c *net.UnixConn) { send(t, c, []byte("{]"), lfd) }, "invalid character"},
		{"another type", Config{}, func(t *testing.T, c *net.UnixConn) { send(t, c, []byte(`{"fds":"seccompFd"}`), lfd) }, "fds"},
		{"two states", Config{}, func(t *testing.T, c *net.UnixConn) {
			send(t, c, append(message(State{}), message(State{})...), lfd)
		}, "follows the state"},
		{"not allowed", Config{Allow: func(c unix.Ucred) error {
			if int(c.Pid) == os.Getpid() && int(c.Uid) == os.Getuid() {
				return errors.New("not you")
			}
			return nil
		}}, func(t *testing.T, c *net.UnixConn) { send(t, c, message(State{}), lfd) }, "not you"},
		{"not taken", Config{Serve: func(State, *notify.Listener) error { return errors.New("no room") }},
			func(t *testing.T, c *net.UnixConn) { send(t, c, message(State{}), lfd) }, "no room"},
	} {
		t.Run(c.name, func(t *testing.T) {
			allow := c.cfg.Allow
			if allow != nil { // the good one is allowed
				var once sync.Once
				c.cfg.Allow = func(u unix.Ucred) (err error) {
					once.Do(func() { err = allow(u) })
					return err
				}
			}
			got := make(chan served, 1)
			if serve := c.cfg.Serve; serve != nil { // the good one is taken
				var once sync.Once
				c.cfg.Serve = func(s State, l *notify.Listener) (err error) {
					took := true
					once.Do(func() { err, took = serve(s, l), false })
					if took {
						got <- served{s, l}
					}
					return err
				}
			}
			r := start(t, c.cfg)
			if c.cfg.Serve != nil {
				r.got = got
			}
			before := testchild.OpenFDs(t)
			conn := r.dial()
			c.do(t, conn)
			eventually(t, "a refusal", func() bool { return len(r.log.refused()) > 0 })
			good := r.dial()
			msg := message(State{Container: Container{ID: "good"}})
			if len(msg) < r.cfg.MaxState && c.cfg.Timeout == 0 {
				send(t, good, msg, lfd)
				s := r.next()
				if s.Container.ID != "good" {
					t.Errorf("served %+v", s.State)
				}
				_ = s.l.Close()
			}
			_ = good.Close()
			_ = conn.Close()
			eventually(t, "all descriptors closed", func() bool { return testchild.OpenFDs(t) <= before })
			if bad := r.log.refused(); !strings.Contains(bad[0], c.want) || !strings.Contains(bad[0], fmt.Sprint("pid=", os.Getpid())) || len(bad) > 1 && !strings.Contains(bad[1], "sent nothing") {
				t.Errorf("refused %q, want once: %s", bad, c.want)
			}
		})
	}
}

// sending is how many clients are.
func (a *Agent) sending() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.conns.Len()
}

// What is large or many, and right, is served.
func TestLargeStates(t *testing.T) {
	r, g := start(t, Config{}), newTarget(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	big := State{Container: Container{ID: "big", Annotations: map[string]string{"note": strings.Repeat("x", 2<<20)}}}
	many := State{Container: Container{ID: "many"}}
	fds := []int{}
	for i := range maxFDs {
		name, fd := fmt.Sprint("file", i), int(null.Fd())
		if i == 100 {
			name, fd = listenerName, g.l.FD()
		}
		many.FDs, fds = append(many.FDs, name), append(fds, fd)
	}
	before := testchild.OpenFDs(t)
	c := r.dial()
	send(t, c, message(big), g.l.FD())
	if s := r.next(); s.Container.ID != "big" || len(s.Container.Annotations["note"]) != 2<<20 {
		t.Errorf("served %q", s.Container.ID)
	} else {
		_ = s.l.Close()
	}
	_ = c.Close()
	c = r.dial()
	send(t, c, message(many), fds...)
	s := r.next()
	if is := fileName(s.l.FD()); s.Container.ID != "many" || is != listenerFile {
		t.Errorf("served %q: %s", s.Container.ID, is)
	}
	_ = s.l.Close()
	_ = c.Close()
	eventually(t, "all descriptors closed", func() bool { return testchild.OpenFDs(t) <= before })
}

// Descriptors that the kernel had no room for are missed.
func TestTruncated(t *testing.T) {
	r, g := start(t, Config{}), newTarget(t)
	c := r.dial()
	eventually(t, "the connection is accepted", func() bool { return r.sending() == 1 })
	before := testchild.OpenFDs(t)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	limit := 0 // with room for five below
	for free := 0; free < 5; limit++ {
		if _, err := unix.FcntlInt(uintptr(limit), unix.F_GETFD, 0); err != nil {
			free++
		}
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(limit), Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	var fds []int
	for range 200 {
		fds = append(fds, g.l.FD())
	}
	send(t, c, message(State{}), fds...)
	eventually(t, "a refusal", func() bool { return len(r.log.refused()) > 0 })
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if s := r.log.refused()[0]; !strings.Contains(s, "MSG_CTRUNC") {
		t.Error(s)
	}
	_ = c.Close()
	eventually(t, "all descriptors closed", func() bool { return testchild.OpenFDs(t) <= before-2 })
}

// Clients that say nothing do not keep others from being served, however many there are.
func TestSilentClientsGiveWay(t *testing.T) {
	r, g := start(t, Config{MaxConns: 3, Timeout: time.Hour}), newTarget(t)
	for i := range 10 {
		silent := r.dial()
		defer silent.Close()
		c := r.dial()
		send(t, c, message(State{Container: Container{ID: fmt.Sprint(i)}}), g.l.FD())
		s := r.next()
		if s.Container.ID != fmt.Sprint(i) {
			t.Fatalf("served %q", s.Container.ID)
		}
		_ = s.l.Close()
		eventually(t, "no more connections than allowed", func() bool { return r.sending() <= 3 })
	}
	eventually(t, "all but the last silent clients are refused", func() bool { return len(r.log.refused()) >= 7 })
	for _, s := range r.log.refused() {
		if !strings.Contains(s, "gave way to newer clients: 3 were sending (MaxConns)") {
			t.Error(s)
		}
	}
}

// A stop refuses who is still sending, and ends.
func TestStopWithClients(t *testing.T) {
	var log lines
	path := filepath.Join(t.TempDir(), "a")
	a, err := Listen(Config{Path: path, Timeout: time.Hour, Serve: func(State, *notify.Listener) error { return nil }, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- a.Run(ctx) }()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	eventually(t, "the connection is accepted", func() bool { return a.sending() == 1 })
	stop()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("Run does not return")
	}
	if got := log.refused(); len(got) != 1 || !strings.Contains(got[0], "the agent was closed") {
		t.Errorf("%q", got)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// Drain has who is sending served, until its context ends, and nobody else.
func TestDrain(t *testing.T) {
	g := newTarget(t)
	r := start(t, Config{Timeout: patience})
	slow, never := r.dial(), r.dial()
	send(t, slow, message(State{Metadata: "slow"})[:10], g.l.FD())
	send(t, never, message(State{})[:10])
	eventually(t, "both are sending", func() bool { return r.sending() == 2 })
	ctx, stop := context.WithCancel(soon(t))
	done := make(chan error, 1)
	go func() { done <- r.Drain(ctx) }()
	eventually(t, "nobody can connect", func() bool {
		c, err := net.Dial("unix", r.path)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	send(t, slow, message(State{Metadata: "slow"})[10:])
	if s := r.next(); s.Metadata != "slow" || s.l.Close() != nil {
		t.Errorf("served %+v", s.State)
	}
	select {
	case err := <-done:
		t.Errorf("it did not wait for who is sending: %v", err)
	default:
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	// Who tried to connect may have come just before the end.
	bad := slices.DeleteFunc(r.log.refused(), func(line string) bool { return strings.Contains(line, "sent nothing") })
	if len(bad) != 1 || !strings.Contains(bad[0], "the agent was closed") {
		t.Errorf("refused: %q", bad)
	}
}
