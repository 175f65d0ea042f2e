package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/unknot/unknot/cmd/unknot/internal/systemd"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

// A boss is a service manager that does of systemd what a daemon needs: it hears, stores descriptors, and starts a service with them.
type boss struct {
	t    *testing.T
	addr string
	c    *net.UnixConn

	mu    sync.Mutex
	max   int
	store []*os.File // by their names
	said  []string
	polls int // descriptors that it was not told not to poll
}

func newBoss(t *testing.T, max int) *boss {
	t.Helper()
	dir, err := os.MkdirTemp("", "boss")
	if err != nil {
		t.Fatal(err)
	}
	b := &boss{t: t, addr: filepath.Join(dir, "n"), max: max}
	if b.c, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: b.addr, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.hear()
	}()
	t.Cleanup(func() {
		_ = b.c.Close()
		<-done
		for _, f := range b.store {
			_ = f.Close()
		}
		_ = os.RemoveAll(dir)
	})
	return b
}

func (b *boss) hear() {
	text, oob := make([]byte, 4096), make([]byte, 4096)
	for {
		n, oobn, _, _, err := b.c.ReadMsgUnix(text, oob)
		if err != nil {
			return
		}
		var fds []int
		msgs, _ := unix.ParseSocketControlMessage(oob[:oobn])
		for i := range msgs {
			more, _ := unix.ParseUnixRights(&msgs[i])
			fds = append(fds, more...)
		}
		b.heard(strings.Fields(string(text[:n])), fds)
	}
}

func (b *boss) heard(lines []string, fds []int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.said = append(b.said, lines...)
	has := func(line string) bool {
		for _, l := range lines {
			if l == line {
				return true
			}
		}
		return false
	}
	name := "stored"
	for _, l := range lines {
		if v, ok := strings.CutPrefix(l, "FDNAME="); ok {
			name = v
		}
	}
	switch {
	case has("FDSTORE=1"):
		for _, fd := range fds {
			if len(b.store) >= b.max {
				_ = unix.Close(fd)
				continue
			}
			unix.CloseOnExec(fd)
			if !has("FDPOLL=0") {
				b.polls++
			}
			b.store = append(b.store, os.NewFile(uintptr(fd), name))
		}
		return
	case has("FDSTOREREMOVE=1"):
		kept := b.store[:0]
		for _, f := range b.store {
			if f.Name() == name {
				_ = f.Close()
			} else {
				kept = append(kept, f)
			}
		}
		b.store = kept
	}
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// stored is how many descriptors it has whose names begin so.
func (b *boss) stored(prefix string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.store {
		if strings.HasPrefix(f.Name(), prefix) {
			n++
		}
	}
	return n
}

// has reports how often a line was said.
func (b *boss) has(line string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.said {
		if l == line {
			n++
		}
	}
	return n
}

// sync waits until the boss has heard all that was said.
func (b *boss) sync() {
	b.t.Helper()
	c, err := net.Dial("unixgram", b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	defer c.Close()
	const word = "SYNC=1"
	n := b.has(word)
	if _, err := c.Write([]byte(word)); err != nil {
		b.t.Fatal(err)
	}
	eventually(b.t, "the boss hears", func() bool { return b.has(word) > n })
}

// start starts a service with what is stored, and sockets of its own before.
func (b *boss) start(c serveConfig, sockets ...*os.File) *server {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	files, names := sockets, make([]string, len(sockets))
	for i := range sockets {
		names[i] = "unknot.socket"
	}
	for _, f := range b.store {
		files, names = append(files, f), append(names, f.Name())
	}
	env := []string{"NOTIFY_SOCKET=" + b.addr, "WATCHDOG_USEC=300000"}
	if len(files) > 0 {
		env = append(env, fmt.Sprint("LISTEN_FDS=", len(files)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	}
	return startWith(b.t, c, env, func(cmd *exec.Cmd) {
		exe, err := os.Executable()
		if err != nil {
			b.t.Fatal(err)
		}
		// LISTEN_PID is known after the fork only.
		cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", `LISTEN_PID=$$ exec "$0"`, exe}
		cmd.ExtraFiles = files
	})
}

// A service is killed and restarted under load: the manager has the listeners, and no call fails but those that were held.
func TestServiceManagerKeeps(t *testing.T) {
	t.Parallel()
	c := home(t)
	c.Keep = KeepAuto
	b := newBoss(t, 100)
	s := b.start(serveConfig{Config: c, Hold: true})
	s.serving(1)
	load := startLoad(t, c.Socket, 4, often)
	eventually(t, "listeners and journals are stored", func() bool { return b.stored(listenerPrefix) == 8 })
	held := 0
	for i := range rounds() {
		load.goesOn(300)
		if i%2 == 0 {
			s.signal(unix.SIGKILL)
			s.end()
		} else {
			s.signal(unix.SIGTERM)
			if code := s.end(); code != 0 {
				t.Errorf("exit status %d", code)
			}
		}
		s = b.start(serveConfig{Config: c, Hold: true})
		s.serving(1)
		n := s.log.held()
		if held += n; i%2 == 1 && n > 0 {
			t.Errorf("%d calls were held by a daemon that ended in order", n)
		}
	}
	load.goesOn(300)
	load.right(held)
	_ = load.Close() // and with it the containers
	eventually(t, "listeners without targets are removed from the store", func() bool { return b.stored(listenerPrefix) == 0 })
	if n := b.stored(""); n != 1 || b.stored(socketName) != 1 {
		t.Errorf("%d descriptors are stored, of which %d are the socket", n, b.stored(socketName))
	}
	if b.polls > 0 {
		t.Errorf("%d descriptors were stored without FDPOLL=0", b.polls)
	}
	eventually(t, "the watchdog is fed", func() bool { return b.has("WATCHDOG=1") > 10 })
	s.signal(unix.SIGHUP)
	s.says("policy reloaded", 1)
	eventually(t, "the manager hears of the reload", func() bool { return b.has("RELOADING=1") == 1 && b.has("READY=1") == rounds()+2 })
	if b.has("STOPPING=1") != rounds()/2 {
		t.Errorf("STOPPING=1 was said %d times", b.has("STOPPING=1"))
	}
}

// A service takes the socket that the manager opened, which stays when it ends.
func TestActivation(t *testing.T) {
	t.Parallel()
	for _, keep := range []Keep{KeepAuto, KeepKeeper} {
		t.Run(string(keep), func(t *testing.T) {
			c := home(t)
			c.Keep = keep
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: c.Socket, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			f, err := l.File()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			b := newBoss(t, 100)
			for range 2 {
				s := b.start(serveConfig{Config: c}, f)
				load := startLoad(t, c.Socket, 1, often)
				load.goesOn(10)
				load.right(0)
				s.signal(unix.SIGTERM)
				if code := s.end(); code != 0 {
					t.Errorf("exit status %d", code)
				}
				if _, err := os.Lstat(c.Socket); err != nil {
					t.Errorf("the manager's socket: %v", err)
				}
			}
			if n := b.stored(socketName); n != 0 {
				t.Errorf("the manager stores its own socket")
			}
			c.Socket += "x"
			s := b.start(serveConfig{Config: c}, f)
			if code := s.end(); code != 1 || !strings.Contains(s.log.String(), "the service manager opened "+c.Socket[:len(c.Socket)-1]) {
				t.Errorf("another --socket: exit status %d: %s", code, s.log)
			}
		})
	}
}

// Where the manager stores nothing a keeper does; where its store is full, a container is served and the log says so.
func TestServiceManagerWithoutRoom(t *testing.T) {
	t.Parallel()
	for max, says := range map[int]string{0: "the service manager keeps no descriptors", 3: "a container's listener is not kept"} {
		c := home(t)
		c.Keep = KeepAuto
		b := newBoss(t, max)
		s := b.start(serveConfig{Config: c})
		s.serving(1)
		load := startLoad(t, c.Socket, 2, often)
		load.goesOn(10)
		s.says(says, 1)
		load.right(0)
		if n := b.stored(listenerPrefix); n%2 != 0 {
			t.Errorf("with room for %d: half a listener is stored: %d", max, n)
		}
	}
	c := home(t)
	c.Keep = KeepSystemd
	s := newBoss(t, 0).start(serveConfig{Config: c})
	if code := s.end(); code != 1 || !strings.Contains(s.log.String(), "FileDescriptorStoreMax=") {
		t.Errorf("--keep=systemd: exit status %d: %s", code, s.log)
	}
	s = start(t, serveConfig{Config: c})
	if code := s.end(); code != 1 || !strings.Contains(s.log.String(), "NOTIFY_SOCKET") {
		t.Errorf("--keep=systemd without systemd: exit status %d: %s", code, s.log)
	}
}

// What the manager closes it does not store, and that is seen.
func TestStore(t *testing.T) {
	b := newBoss(t, 3)
	t.Setenv("NOTIFY_SOCKET", b.addr)
	m, err := systemd.Connect(false)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if os.Getenv("NOTIFY_SOCKET") != "" || len(m.Environ()) != 1 {
		t.Errorf("children speak for us: %q", m.Environ())
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	before := testchild.OpenFDs(t)
	fd := int(null.Fd())
	if err := errors.Join(m.Probe(t.Context()), m.Store(t.Context(), "a", fd, fd)); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 2} { // the second finds room for one of two
		if err := m.Store(t.Context(), "b", fd, fd); !errors.Is(err, systemd.ErrNotStored) {
			t.Errorf("a full store: %v", err)
		}
		_ = n
	}
	if err := m.Barrier(t.Context()); err != nil {
		t.Error(err)
	}
	if b.stored("a") != 2 || b.stored("") != 2 {
		t.Errorf("%d of a are stored, %d in all", b.stored("a"), b.stored(""))
	}
	if err := errors.Join(m.Forget("a"), m.Barrier(t.Context())); err != nil || b.stored("") != 0 {
		t.Errorf("%d are stored: %v", b.stored(""), err)
	}
	if now := testchild.OpenFDs(t); now != before {
		t.Errorf("%d descriptors, %d before", now, before)
	}
	b.mu.Lock() // it hears, and does nothing
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := m.Barrier(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a manager that does not answer: %v", err)
	}
	b.mu.Unlock()
}

// Containers start at the same time.
func TestStoreTogether(t *testing.T) {
	b := newBoss(t, 1000)
	t.Setenv("NOTIFY_SOCKET", b.addr)
	m, err := systemd.Connect(false)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fd := int(null.Fd())
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 20 {
				if err := m.Store(t.Context(), fmt.Sprint("a", i, "-", j), fd); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if err := m.Barrier(t.Context()); err != nil || b.stored("") != 160 {
		t.Errorf("%d are stored: %v", b.stored(""), err)
	}
}

// What cannot be from a service manager is refused.
func TestFiles(t *testing.T) {
	for _, c := range []struct{ pid, n, names, want string }{
		{"1", "1", "", ""},
		{"", "", "", ""},
		{"self", "x", "", "LISTEN_FDS=x"},
		{"self", "-1", "", "LISTEN_FDS=-1"},
		{"self", "2", "a", "1 names for the 2"},
		{"self", "0", "", ""},
	} {
		if c.pid == "self" {
			c.pid = fmt.Sprint(os.Getpid())
		}
		t.Setenv("LISTEN_PID", c.pid)
		t.Setenv("LISTEN_FDS", c.n)
		t.Setenv("LISTEN_FDNAMES", c.names)
		files, err := systemd.Files()
		if len(files) > 0 || (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, %v", c, files, err)
		}
	}
}
