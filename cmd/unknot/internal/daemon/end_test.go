package daemon

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/internal/unixsocket"
	"golang.org/x/sys/unix"
)

// SIGTERM waits for handlers, and a second one does not. Both end all processes, with status 0.
func TestStop(t *testing.T) {
	t.Parallel()
	for _, keep := range []Keep{KeepKeeper, KeepNone} {
		for _, hurry := range []bool{false, true} {
			t.Run(fmt.Sprint(keep, " hurry ", hurry), func(t *testing.T) {
				c := home(t)
				c.Keep = keep
				c.Drain = time.Second
				wish := lifetime // so that another signal is always the same wish
				if hurry {
					c.Drain, wish = lifetime, time.Millisecond
				}
				s := start(t, serveConfig{Config: c, Stuck: true, Wish: wish})
				pid := s.serving(1)
				load := startLoad(t, c.Socket, 1, often)
				load.goesOn(10)
				load.MustSay("call 99") // whose handler never returns
				load.Expect("calling 99")
				// It is with its handler when no more are answered, for longer than a busy machine takes for one.
				for n, same := load.count(), 0; same < 30; {
					time.Sleep(10 * time.Millisecond)
					if now := load.count(); now == n {
						same++
					} else {
						n, same = now, 0
					}
				}
				s.signal(unix.SIGTERM)
				s.says("stopping", 1)
				if hurry {
					select {
					case <-s.done:
						t.Error("it did not wait for the handler")
					case <-time.After(50 * wish):
					}
				}
				s.signal(unix.SIGTERM)
				if code := s.end(); code != 0 {
					t.Errorf("exit status %d: %s", code, s.log)
				}
				load.Expect("99: function not implemented") // the default answer
				eventually(t, "the daemon is gone", func() bool { return !isOurs(pid) })
				if hurried := len(s.log.all("hurried")) > 0; hurried != hurry {
					t.Errorf("hurried: %v", hurried)
				}
				if _, err := os.Lstat(c.Socket); err == nil {
					t.Error("the socket is left")
				}
			})
		}
	}
}

// A policy is taken anew by SIGHUP, a broken one is not; it is not in the way of a crash, but of a start.
func TestReload(t *testing.T) {
	t.Parallel()
	c := home(t)
	c.Audit = filepath.Join(filepath.Dir(c.Socket), "audit")
	s := start(t, serveConfig{Config: c})
	pid := s.serving(1)
	load := startLoad(t, c.Socket, 1, often)
	s.signal(unix.SIGHUP)
	s.says("policy reloaded", 1)
	if err := os.Rename(c.Audit, c.Audit+".1"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.Policy, []byte("default: continue\nrules: 7\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.signal(unix.SIGHUP)
	s.says("the policy stays as it was", 1)
	if _, err := os.Stat(c.Audit); err != nil {
		t.Errorf("the audit file was not opened anew: %v", err)
	}
	if why := fmt.Sprint(s.log.all("the policy stays")[0]["err"]); !strings.Contains(why, c.Policy+":2:") {
		t.Errorf("why: %s", why)
	}
	load.goesOn(10)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.serving(2)
	s.says("the policy is broken", 1)
	load.goesOn(10)
	if err := os.Remove(c.Policy); err != nil {
		t.Fatal(err)
	}
	s.signal(unix.SIGHUP)
	s.says("the policy stays as it was", 2)
	load.right(s.log.held())
	s.signal(unix.SIGTERM)
	s.end()
	next := start(t, serveConfig{Config: c})
	if code := next.end(); code != 1 || !strings.Contains(next.log.String(), "no such file") {
		t.Errorf("exit status %d: %s", code, next.log)
	}
}

// What is wrong with a socket or an address is said before anything is done.
func TestBadInput(t *testing.T) {
	t.Parallel()
	live := home(t)
	live.Status = "127.0.0.1:0"
	live.LXC = live.Socket + "x"
	s := start(t, serveConfig{Config: live})
	s.serving(1)
	address := fmt.Sprint(s.log.all("status page")[0]["address"])
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"live", func(c *Config) { c.Socket = live.Socket }, "--take-over takes it"},
		{"file", func(c *Config) { _ = os.WriteFile(c.Socket, nil, 0o600) }, "no socket: remove it"},
		{"long", func(c *Config) { c.Socket = "/tmp/" + strings.Repeat("x", unixsocket.MaxPath-4) }, "too long for a socket"},
		{"relative", func(c *Config) { c.Socket = "s" }, "absolute path"},
		{"abstract", func(c *Config) { c.Socket = "@s" }, "abstract name"},
		{"none", func(c *Config) { c.Socket = "" }, "linux.seccomp.listenerPath"},
		{"LXC at the same path", func(c *Config) { c.LXC = c.Socket }, "LXC speaks another protocol"},
		{"LXC relative", func(c *Config) { c.LXC = "s" }, "--lxc-socket \"s\": want an absolute path"},
		{"LXC live", func(c *Config) { c.LXC = live.LXC }, "--lxc-socket: agent: LXC: socket"},
		{"no directory", func(c *Config) { c.Socket = filepath.Dir(c.Socket) + "/d/s" }, "does not exist: make it"},
		{"others write", func(c *Config) { _ = os.Chmod(filepath.Dir(c.Socket), 0o757) }, "chmod o-w"},
		{"sticky", func(c *Config) { c.Socket = "/tmp/unknot-test-socket" }, "chmod o-w"},
		{"keep", func(c *Config) { c.Keep = "x" }, "want auto, systemd, keeper or none"},
		{"drain", func(c *Config) { c.Drain = -1 }, "above 0"},
		{"status in use", func(c *Config) { c.Status = address }, "another process listens there"},
		{"status", func(c *Config) { c.Status = "x" }, "want HOST:PORT"},
		{"audit", func(c *Config) { c.Audit = filepath.Dir(c.Socket) }, "is a directory"},
		{"audit pipe", func(c *Config) { c.Audit = fifo(c) }, "a pipe that nobody reads"},
		{"policy pipe", func(c *Config) { c.Policy = fifo(c) }, "is no regular file"},
		{"no policy", func(c *Config) { c.Policy += "x" }, "no such file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := home(t)
			c.change(&cfg)
			if c.name == "sticky" && !sticky("/tmp") {
				t.Skip("/tmp is not everybody's here")
			}
			for _, keep := range []Keep{KeepKeeper, KeepNone} {
				if cfg.Keep != "x" {
					cfg.Keep = keep
				}
				s := start(t, serveConfig{Config: cfg})
				if code := s.end(); code != 1 || !strings.Contains(s.log.String(), c.want) {
					t.Errorf("exit status %d: %s", code, s.log)
				}
				if n := strings.Count(s.log.String(), "serve: "); n != 1 {
					t.Errorf("%d errors: %s", n, s.log)
				}
			}
		})
	}
	// A dead socket is taken.
	dead := home(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead.Socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	d := start(t, serveConfig{Config: dead})
	d.serving(1)
	d.signal(unix.SIGTERM)
	d.end()
	// And a socket that something else listens to is not taken over.
	other := home(t)
	o, err := net.ListenUnix("unix", &net.UnixAddr{Name: other.Socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	other.TakeOver = true
	d = start(t, serveConfig{Config: other})
	if code := d.end(); code != 1 || !strings.Contains(d.log.String(), "it does not hand over") {
		t.Errorf("exit status %d: %s", code, d.log)
	}
}

// fifo is a named pipe without a reader.
func fifo(c *Config) string {
	name := filepath.Join(filepath.Dir(c.Socket), "fifo")
	_ = unix.Mkfifo(name, 0o600)
	return name
}

func sticky(dir string) bool {
	fi, err := os.Stat(dir)
	return err == nil && fi.Mode()&os.ModeSticky != 0
}

// Directories in which others could put a socket are told from those in which they cannot.
func TestPrivate(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	dir := filepath.Join(top, "a", "b")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(top, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		top, dir os.FileMode
		ok       bool
	}{
		{0o755, 0o755, true},
		{0o755, 0o700, true},
		{0o755, 0o757, false},
		{0o755, 0o757 | os.ModeSticky, false},
		{0o757, 0o755, false},
		{0o757 | os.ModeSticky, 0o755, true},
	} {
		if err := errors.Join(os.Chmod(filepath.Dir(dir), c.top), os.Chmod(dir, c.dir)); err != nil {
			t.Fatal(err)
		}
		for _, at := range []string{dir, link} {
			if err := private(at); (err == nil) != c.ok {
				t.Errorf("%v in %v: %v", c.dir, c.top, err)
			}
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		for _, c := range []struct {
			uid, gid int
			mode     os.FileMode
			ok       bool
		}{{0, 0, 0o775, true}, {0, 1, 0o775, false}, {0, 1, 0o755, true}, {1, 0, 0o755, false}} {
			if err := errors.Join(os.Chown(dir, c.uid, c.gid), os.Chmod(dir, c.mode)); err != nil {
				t.Fatal(err)
			}
			if err := private(dir); (err == nil) != c.ok {
				t.Errorf("%+v: %v", c, err)
			}
		}
	}
}

// A log that stalls is not waited for, and has all lines once it goes on.
func TestLogStalls(t *testing.T) {
	t.Parallel()
	r, w := io.Pipe()
	log, flush, err := NewLog(w, "text", nil)
	if err != nil {
		t.Fatal(err)
	}
	const n = 200
	for i := range n {
		log.Info(fmt.Sprint("line ", i))
	}
	lines := bufio.NewScanner(r)
	for i := range n {
		if !lines.Scan() || !strings.Contains(lines.Text(), fmt.Sprintf("%q", fmt.Sprint("line ", i))) {
			t.Fatalf("line %d: %s", i, lines.Text())
		}
	}
	flush()
}

// A text that floods the log is written some times, then counted.
func TestLog(t *testing.T) {
	t.Parallel()
	if _, _, err := NewLog(os.Stderr, "xml", nil); err == nil {
		t.Error("xml is no format")
	}
	out := &lines{}
	h := limit(slog.NewJSONHandler(out, nil))
	log := slog.New(h)
	for i := range 3 * logBurst {
		log.Warn("flood", "i", i)
		if i%logBurst == 0 {
			log.With("a", 1).WithGroup("g").Info("rare", "i", i)
		}
	}
	if n := len(out.all("flood")); n != logBurst {
		t.Errorf("%d lines of a flood", n)
	}
	if n := len(out.all("rare")); n != 3 {
		t.Errorf("%d lines of what is rare", n)
	}
	h.l.end(h.Handler, "flood", slog.LevelWarn)
	h.l.end(h.Handler, "rare", slog.LevelInfo)
	if r := out.all("not logged"); len(r) != 1 || r[0]["text"] != "flood" || r[0]["lines"] != float64(2*logBurst) || r[0]["level"] != "WARN" {
		t.Errorf("the rest: %v", r)
	}
	log.Warn("flood")
	if n := len(out.all("flood")); n != logBurst+1 {
		t.Errorf("in the next window: %d lines", n)
	}
	for i := range 2 * logTexts { // they are not kept apart for ever
		log.Info(fmt.Sprint("text ", i))
	}
	if len(h.l.texts) > logTexts+1 {
		t.Errorf("%d texts are remembered", len(h.l.texts))
	}
	if log.Enabled(context.Background(), slog.LevelDebug) {
		t.Error("the level is the handler's")
	}
}
