package daemon

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/osthread"
	"github.com/unknot/unknot/internal/testchild"
	"golang.org/x/sys/unix"
)

// childLXC is a container of a thread that calls getppid when told to, and its monitor, which does as LXC's (src/lxc/seccomp.c).
func childLXC(c *testchild.Conn, args []string) error {
	prog, err := notify.TrapProgram(unix.SYS_GETPPID)
	if err != nil {
		return err
	}
	parent := os.Getppid()
	var l *notify.Listener
	ready := make(chan error)
	osthread.Start(func() {
		var err error
		l, err = notify.Install(prog, 0)
		ready <- err
		for {
			if _, err := c.Hear(); err != nil {
				return
			}
			v, _, e := unix.Syscall(unix.SYS_GETPPID, 0, 0, 0)
			_ = c.Say("%t %v", int(v) == parent, e)
		}
	})
	if err := <-ready; err != nil {
		return err
	}
	m := lxcMonitor{path: args[0], cookie: args[1], conn: -1, l: l}
	for {
		var n notify.Notif
		switch err := l.Recv(&n); notify.OutcomeOf(err) {
		case notify.Done:
		case notify.Stale, notify.Retry:
			continue
		default:
			return err
		}
		r, err := m.ask(&n)
		if err != nil {
			r = notify.Resp{ID: n.ID, Error: -int32(unix.ENOSYS)}
		}
		_ = l.Send(&r)
	}
}

type lxcMonitor struct {
	path, cookie string
	conn         int
	l            *notify.Listener
}

func (m *lxcMonitor) connect() (err error) {
	if m.conn >= 0 {
		_ = unix.Close(m.conn)
	}
	if m.conn, err = unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0); err == nil {
		err = unix.Connect(m.conn, &unix.SockaddrUnix{Name: m.path})
	}
	return err
}

// ask has the daemon answer. LXC connects again once, if it could not send.
func (m *lxcMonitor) ask(n *notify.Notif) (r notify.Resp, err error) {
	b := binary.NativeEndian
	p := make([]byte, 32, 136+len(m.cookie))
	b.PutUint32(p[8:], uint32(os.Getpid()))
	b.PutUint32(p[12:], uint32(os.Getpid()))
	b.PutUint16(p[16:], 80)
	b.PutUint16(p[18:], 24)
	b.PutUint16(p[20:], 64)
	b.PutUint64(p[24:], uint64(len(m.cookie)))
	if p, err = binary.Append(p, b, n); err == nil {
		p, err = binary.Append(p, b, notify.Resp{ID: n.ID})
	}
	if err != nil {
		return r, err
	}
	dir, err := os.Open(fmt.Sprintf("/proc/%d", n.PID))
	if err != nil {
		return r, err
	}
	defer dir.Close()
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", n.PID), os.O_RDWR, 0)
	if err != nil {
		return r, err
	}
	defer mem.Close()
	fds := unix.UnixRights(int(dir.Fd()), int(mem.Fd()), m.l.FD())
	p = append(p, m.cookie...)
	if _, err = unix.SendmsgN(m.conn, p, fds, nil, unix.MSG_NOSIGNAL); err != nil {
		if err = m.connect(); err == nil {
			_, err = unix.SendmsgN(m.conn, p, fds, nil, unix.MSG_NOSIGNAL)
		}
	}
	if err != nil {
		return r, err
	}
	answer := make([]byte, 200)
	k, _, err := unix.Recvfrom(m.conn, answer, 0)
	if err == nil && k != 136 {
		err = fmt.Errorf("an answer of %d bytes", k)
	}
	if err == nil {
		_, err = binary.Decode(answer[112:136], b, &r)
	}
	return r, err
}

// LXC's containers are under the policy, and their cookies are their names. They come to the next daemon with their next call.
func TestLXC(t *testing.T) {
	t.Parallel()
	if err := notify.FeatureNotify.Probe(); err != nil {
		t.Skip(err)
	}
	c := home(t)
	c.LXC, c.Audit = c.Socket+"x", filepath.Join(filepath.Dir(c.Socket), "audit")
	policy := func(text string) {
		if err := os.WriteFile(c.Policy, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	policy("default: continue\nrules:\n- calls: getppid\n  container: web-*\n  do: errno EDOM\n- calls: getppid\n  metadata: db\n  do: log\n")
	s := start(t, serveConfig{Config: c, Real: true})
	s.serving(1)
	web := testchild.StartWith(t, testchild.Options{Env: []string{"GODEBUG=asyncpreemptoff=1"}, Deadline: lifetime}, "lxc", c.LXC, "web-1")
	db := testchild.StartWith(t, testchild.Options{Env: []string{"GODEBUG=asyncpreemptoff=1"}, Deadline: lifetime}, "lxc", c.LXC, "db")
	says := func(want string, child *testchild.Child) {
		t.Helper()
		child.MustSay("call")
		if got := child.MustHear(); got != want {
			t.Errorf("%s, want %s: %s", got, want, s.log)
		}
	}
	const refused, made, without = "false numerical argument out of domain", "true errno 0", "false function not implemented"
	for range 3 {
		says(refused, web)
		says(made, db)
	}
	// Another daemon takes over, beside a container that comes by the other socket.
	load := startLoad(t, c.Socket, 1)
	load.goesOn(10)
	c.TakeOver = true
	next := start(t, serveConfig{Config: c, Real: true})
	next.serving(1)
	if code := s.end(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	eventually(t, "the path is the successor's", func() bool {
		web.MustSay("call")
		return web.MustHear() == refused
	})
	says(made, db)
	load.goesOn(10)
	if n := len(next.log.all("container taken")); n != 1 {
		t.Errorf("%d containers were handed over", n)
	}
	if got := load.end(); got.interrupted+got.without > 0 {
		t.Errorf("%+v", got)
	}
	// The policy changes under them.
	policy("default: continue\n")
	next.signal(unix.SIGHUP)
	next.says("policy reloaded", 1)
	says(made, web)
	next.signal(unix.SIGTERM)
	next.end()
	says(without, web)
	if _, err := os.Lstat(c.LXC); err == nil {
		t.Error("the socket is left")
	}
	text, err := os.ReadFile(c.Audit)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		var r struct{ Container, Call, Answer string }
		if err := json.Unmarshal([]byte(line), &r); err != nil || r.Container != "db" || r.Call != "getppid" || r.Answer != "continue" {
			t.Errorf("%v: %s", err, line)
		}
		n++
	}
	if n != 4 {
		t.Errorf("%d records: %s", n, text)
	}
}
