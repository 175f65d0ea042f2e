package status

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/enginetest"
	"github.com/unknot/unknot/engine/hist"
	"golang.org/x/sys/unix"
)

func handle(r engine.Request) {
	if r.Data().NR == 2 {
		_ = r.Fail(unix.EPERM)
		return
	}
	_ = r.Return(1)
}

// loaded is an engine that has handled calls of two listeners.
func loaded(t *testing.T) *enginetest.Engine {
	e := enginetest.NewWith(t, engine.Config{Handler: engine.HandlerFunc(handle), BySyscall: true, BySource: true})
	web, other := e.TargetWith(engine.SourceOptions{Tag: "web"}), e.Target()
	for range 3 {
		web.Call(1)
	}
	other.Call(2)
	return e
}

// serve serves cfg at an address until the test ends, and returns where it is.
func serve(t *testing.T, addr string, cfg Config) (at string, stop func() error) {
	t.Helper()
	ln, err := Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, ln, cfg) }()
	var once error
	over := false
	stop = func() error {
		if !over {
			over = true
			cancel()
			once = <-ended
		}
		return once
	}
	t.Cleanup(func() { _ = stop() })
	if ln.Addr().Network() == "unix" {
		return addr, stop
	}
	return ln.Addr().String(), stop
}

func get(t *testing.T, addr, path string) (code int, body string) {
	t.Helper()
	c, err := NewClient(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r, err := c.get(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func TestPaths(t *testing.T) {
	var sick atomic.Pointer[error]
	own := prometheus.NewCounter(prometheus.CounterOpts{Name: "own_total", Help: "x"})
	cfg := Config{
		Engine: loaded(t).Engine(), Info: Info{Program: "test", Confinement: "shared"}, Collectors: []prometheus.Collector{own},
		Healthy: func() error {
			if err := sick.Load(); err != nil {
				return *err
			}
			return nil
		},
		Syscall: func(_ uint32, nr int32) string { return fmt.Sprintf("call%d", nr) },
	}
	for _, addr := range []string{"127.0.0.1:0", "unix:" + filepath.Join(t.TempDir(), "s")} {
		sick.Store(nil)
		at, stop := serve(t, addr, cfg)
		for path, want := range map[string][]string{
			"/": {"unknot test", "/metrics"},
			"/metrics": {"own_total 0\n", "unknot_healthy 1\n", `unknot_confinement_info{level="shared"} 1` + "\n", `unknot_source_received_total{source="web"} 3` + "\n", `syscall="call2"} 1` + "\n",
				"go_goroutines ", "process_open_fds "},
			"/healthz":             {"ok\n"},
			"/debug/pprof/cmdline": {".test"},
			"/debug/pprof/heap":    {""},
			"/debug/pprof/symbol":  {"num_symbols"},
			"/debug/pprof/":        {"goroutine"},
		} {
			code, body := get(t, at, path)
			if code != http.StatusOK {
				t.Errorf("%s%s: %d %s", at, path, code, body)
			}
			for _, w := range want {
				if !strings.Contains(body, w) {
					t.Errorf("%s%s: no %q in\n%s", at, path, w, body)
				}
			}
		}
		err := errors.New("a receive thread has ended")
		sick.Store(&err)
		if code, body := get(t, at, "/healthz"); code != http.StatusServiceUnavailable || body != "a receive thread has ended\n" {
			t.Errorf("%s/healthz of who is ill: %d %q", at, code, body)
		}
		if _, body := get(t, at, "/metrics"); !strings.Contains(body, "unknot_healthy 0\n") {
			t.Errorf("%s/metrics of who is ill", at)
		}
		if code, _ := get(t, at, "/nowhere"); code != http.StatusNotFound {
			t.Errorf("%s/nowhere: %d", at, code)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if path, ok := strings.CutPrefix(at, "unix:"); ok {
			if _, err := os.Lstat(path); !os.IsNotExist(err) {
				t.Errorf("the socket is left: %v", err)
			}
		}
	}
}

// TestSnapshot: what goes over the wire is what the engine has.
func TestSnapshot(t *testing.T) {
	e := loaded(t).Engine()
	at, _ := serve(t, "127.0.0.1:0", Config{Engine: e, Info: Info{Program: "test"}, Healthy: func() error { return errors.New("ill") }})
	c, err := NewClient(at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 2 {
		s, err := c.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		l := e.Latencies()
		if s.Counters != e.Counters() || s.Service.Snapshot != *l.Service || s.Unhealthy != "ill" || s.Info.Program != "test" || s.WakeUp != "sync" {
			t.Errorf("%+v", s)
		}
		names := map[string]uint64{}
		for i, src := range s.Sources {
			if src.ID != uint64(i+1) {
				t.Errorf("listener %d has the id %d", i, src.ID)
			}
			names[src.Name] = src.Counters.Received
			if src.Service == nil || src.Service.Count != src.Counters.Received {
				t.Errorf("%s: histograms %v", src.Name, src.Service)
			}
		}
		if len(names) != 2 || names["web"] != 3 || !strings.Contains(fmt.Sprint(names), "listener ") {
			t.Errorf("listeners %v", names)
		}
		calls := map[string]uint64{}
		for _, c := range s.Calls {
			calls[c.Name] = c.Received
			if c.RoundTrip.Count != c.Received {
				t.Errorf("%s: %d round trips", c.Name, c.RoundTrip.Count)
			}
		}
		if fmt.Sprint(calls) != "map[1:3 2:1]" {
			t.Errorf("calls %v", calls)
		}
		if len(s.Receivers) != 1 || s.Receivers[0].Received != 4 || s.Receivers[0].Listeners != 2 {
			t.Errorf("receivers %+v", s.Receivers)
		}
	}
}

// TestIDs: a listener keeps its number, and nobody else gets it.
func TestIDs(t *testing.T) {
	e := enginetest.New(t, engine.HandlerFunc(handle))
	a, b := e.Target().Source(), e.Target().Source()
	var o observer
	first := o.id([]*engine.Source{a})
	o.id([]*engine.Source{b})
	again := o.id([]*engine.Source{a, b})
	if first[a] != 1 || again[b] != 2 || again[a] != 3 || len(o.ids) != 2 {
		t.Errorf("first %v, then %v", first, again)
	}
}

func TestHistograms(t *testing.T) {
	var h Histogram
	for _, v := range []int64{0, 1, 1000, 1 << 50} {
		h.Add(v, 3)
	}
	b, err := json.Marshal(&h)
	if err != nil {
		t.Fatal(err)
	}
	var back Histogram
	if err := json.Unmarshal(b, &back); err != nil || back != h {
		t.Errorf("%s: %v", b, err)
	}
	if err := json.Unmarshal(fmt.Appendf(nil, `{"counts":{"%d":1}}`, hist.Buckets), &back); err == nil {
		t.Error("a bucket that there is not is taken")
	}
}

func TestProfilesAreForThisMachine(t *testing.T) {
	h, err := Handler(Config{Engine: loaded(t).Engine()})
	if err != nil {
		t.Fatal(err)
	}
	tcp, sock := net.Addr(&net.TCPAddr{}), net.Addr(&net.UnixAddr{})
	for _, c := range []struct {
		at         net.Addr
		from, host string
		want       int
	}{
		{tcp, "127.0.0.1:1", "127.0.0.1:9090", 200},
		{tcp, "127.0.0.1:1", "localhost:9090", 200},
		{tcp, "127.0.0.1:1", "localhost", 200},
		{tcp, "[::1]:1", "[::1]:9090", 200},
		{tcp, "[::1]:1", "[::1]", 200},
		{tcp, "[::ffff:127.0.0.1]:1", "127.0.0.1:9090", 200},
		{tcp, "127.0.0.1:1", "rebound.example:9090", 403},
		{tcp, "127.0.0.1:1", "10.1.2.3:9090", 403},
		{tcp, "10.1.2.3:1", "10.1.2.4:9090", 403},
		{tcp, "10.1.2.3:1", "127.0.0.1:9090", 403},
		{tcp, "nonsense", "127.0.0.1:9090", 403},
		{sock, "@", "unknot", 200},
		{nil, "127.0.0.1:1", "127.0.0.1:9090", 403},
	} {
		for _, path := range []string{"/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/goroutine"} {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.RemoteAddr, r.Host = c.from, c.host
			if c.at != nil {
				r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, c.at))
			}
			w := httptest.NewRecorder()
			if h.ServeHTTP(w, r); w.Code != c.want {
				t.Errorf("%s from %s, as %s: %d, want %d", path, c.from, c.host, w.Code, c.want)
			}
		}
	}
}

func TestListen(t *testing.T) {
	dir := t.TempDir()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	live, dead, file := filepath.Join(dir, "live"), filepath.Join(dir, "dead"), filepath.Join(dir, "file")
	l, err := Listen("unix:" + live)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if fi, err := os.Lstat(live); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", fi.Mode(), err)
	}
	d, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	d.SetUnlinkOnClose(false)
	_ = d.Close()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]struct {
		bad  bool
		says string
	}{
		busy.Addr().String():    {false, "another process listens there: stop it, or choose another port"},
		"unix:" + live:          {false, "another process listens there: stop it, or choose another path"},
		"unix:" + file:          {false, "no socket: remove it, or choose another path"},
		"unix:" + dir + "/no/s": {false, "no such file or directory"},
		"unix:" + dir + "/" + strings.Repeat("x", 108): {true, "too long for a socket, which takes 107: use a shorter directory"},
		"unix:":             {true, "no path after unix"},
		"unix:@x":           {true, "use a path"},
		"":                  {true, "want HOST:PORT"},
		"9090":              {true, "want HOST:PORT, such as 127.0.0.1:9393, or unix:/PATH"},
		"/run/s":            {true, "want HOST:PORT"},
		"127.0.0.1:http":    {true, "want a number"},
		"127.0.0.1:65536":   {true, "want a number"},
		"192.0.2.1:9090":    {false, "no such address"},
		"no-such.invalid:1": {false, "no-such.invalid"},
	} {
		l, err := Listen(addr)
		switch {
		case err == nil:
			_ = l.Close()
			t.Errorf("%q: no error", addr)
		case !strings.Contains(err.Error(), want.says), strings.Contains(err.Error(), "\n"), IsBadAddress(err) != want.bad:
			t.Errorf("%q: %v", addr, err)
		}
	}
	again, err := Listen("unix:" + dead)
	if err != nil {
		t.Fatalf("a dead socket is not replaced: %v", err)
	}
	// A successor's socket stays.
	if err := os.Remove(dead); err != nil {
		t.Fatal(err)
	}
	next, err := Listen("unix:" + dead)
	if err != nil {
		t.Fatal(err)
	}
	_ = again.Close()
	if _, err := os.Lstat(dead); err != nil {
		t.Errorf("the first one took the second one's socket away: %v", err)
	}
	_ = next.Close()
}

// TestManyClients: no more than there is room for are open, and who comes later is served later.
func TestManyClients(t *testing.T) {
	at, stop := serve(t, "127.0.0.1:0", Config{Engine: loaded(t).Engine()})
	var all []net.Conn
	for range maxConns {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		all = append(all, c)
		fmt.Fprintf(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		if l, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(l, "200") {
			t.Fatalf("%q %v", l, err)
		}
	}
	late, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	fmt.Fprintf(late, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
	_ = late.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := late.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one more than there is room for: %d %v", n, err)
	}
	_ = all[0].Close()
	_ = late.SetReadDeadline(time.Now().Add(time.Minute))
	if l, err := bufio.NewReader(late).ReadString('\n'); err != nil || !strings.Contains(l, "200") {
		t.Errorf("%q %v", l, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestServeSaysWhatEndsIt: a listener that fails is an error; a collector that cannot be is one too.
func TestServeSaysWhatEndsIt(t *testing.T) {
	e := loaded(t).Engine()
	ln, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	if err := Serve(t.Context(), ln, Config{Engine: e}); err == nil || !strings.Contains(err.Error(), "status page at 127.0.0.1") {
		t.Errorf("%v", err)
	}
	ln, err = Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	twice := prometheus.NewCounter(prometheus.CounterOpts{Name: "unknot_received_total", Help: "x"})
	if err := Serve(t.Context(), ln, Config{Engine: e, Collectors: []prometheus.Collector{twice}}); err == nil {
		t.Error("a metric that is there already is taken")
	}
	if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		t.Error("the listener is left open")
	}
}
