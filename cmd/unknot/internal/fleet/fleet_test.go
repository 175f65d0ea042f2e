package fleet

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/bench/record"
	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/cmd/unknot/internal/status"
	"github.com/unknot/unknot/cmd/unknot/internal/tune"
	"github.com/unknot/unknot/engine"
)

func TestMain(m *testing.M) {
	storm.Main()
	if len(os.Args) > 1 && os.Args[1] == "fleet-daemon" {
		daemonMain(os.Args[2:])
	}
	os.Exit(m.Run())
}

// A fake answers queries as Prometheus does: the first whose text is part of the query.
type fake [][2]string

func (f fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.FormValue("query")
	kind, rows := "vector", "[]"
	if strings.HasSuffix(r.URL.Path, "/query_range") {
		kind = "matrix"
	}
	for _, a := range f {
		if strings.Contains(kind+" "+query, a[0]) {
			rows = a[1]
			break
		}
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"status":"success","data":{"resultType":%q,"result":%s}}`, kind, rows)
}

const (
	one    = `[{"metric":{"instance":"a:1"},"value":[1,%q]}]`
	matrix = `[{"metric":{"instance":"a:1"},"values":[[1,"90"],[2,"110"]]}]`
)

func is(v string) string { return fmt.Sprintf(one, v) }

func histogram(bounds ...string) string {
	var rows []string
	for i := 0; i < len(bounds); i += 2 {
		rows = append(rows, fmt.Sprintf(`{"metric":{"instance":"a:1","le":%q},"value":[1,%q]}`, bounds[i], bounds[i+1]))
	}
	return "[" + strings.Join(rows, ",") + "]"
}

// good is a node of 100 calls/s with services of 1 ms, without a reset.
var good = fake{
	{"matrix ", matrix},
	{"resets(", is("0")},
	{"increase(unknot_received_total", is("6000")},
	{"count_over_time(", is("60")},
	{"unknot_service_seconds_bucket", histogram("0.0009", "0", "0.001", "4000.2", "0.0011", "4000.1", "0.002", "6000", "+Inf", "6000")},
	{"unknot_service_seconds_sum", is("7.2")},
	{"unknot_wait_seconds_bucket", histogram("0.000001", "3000", "0.001", "6000", "+Inf", "6000")},
	{"unknot_wait_seconds_sum", is("0.6")},
	{"unknot_answer_seconds_sum", is("0.06")},
	{"unknot_drops_total", is("60")},
	{"unknot_workers", is("2")},
	{"process_start_time_seconds", "[]"},
}

// with is f but for the answers to queries that have that text, which are others.
func (f fake) with(text, rows string) fake {
	return append(fake{{text, rows}}, f...)
}

func read(t *testing.T, h http.Handler, q Query) (*Answer, error) {
	t.Helper()
	s := httptest.NewServer(h)
	defer s.Close()
	q.URL, q.Range, q.By, q.Timeout = s.URL, time.Minute, "instance", time.Minute
	if q.End.IsZero() {
		q.End = time.Now()
	}
	return Read(context.Background(), q)
}

func TestRead(t *testing.T) {
	a, err := read(t, good, Query{Match: `job="x"`})
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Nodes) != 1 {
		t.Fatalf("%+v", a)
	}
	n := a.Nodes[0]
	mean, cv := n.Load.Service.Moments()
	if n.Name != "a:1" || n.Workers != 2 || n.Calls != 6000 || n.Drop != .01 || n.Load.Arrivals.Rate() != 100 || math.Abs(mean-1.2e6) > 10e3 || cv == 0 || n.Wait.Count != 6000 {
		t.Errorf("%+v, service mean %v, CV %v", n, time.Duration(mean), cv)
	}
	for _, q := range a.Asked {
		if strings.Contains(q, "unknot_") && !strings.Contains(q, `{job="x"}`) {
			t.Errorf("query %s is of all jobs", q)
		}
	}
	if a, err := read(t, good.with("max_over_time(up", `[{"metric":{"instance":"b:2","job":"x"},"value":[1,"0"]}]`), Query{}); err != nil || len(a.Nodes) != 1 || !strings.Contains(strings.Join(a.Notes, "\n"), "b:2 of job x: no scrape succeeded") {
		t.Errorf("a daemon that cannot be scraped is not named: %v, %+v", err, a)
	}
	if !strings.Contains(strings.Join(a.Notes, "\n"), "buckets no wider than") {
		t.Errorf("the resolution is not stated: %q", a.Notes)
	}
	if !strings.Contains(strings.Join(a.Notes, "\n"), "some 10µs of the mean service of 1.2ms is the answer itself") {
		t.Errorf("what a recording has not is not stated: %q", a.Notes)
	}
}

func TestBadAnswers(t *testing.T) {
	html := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<html><body>Grafana</body></html>")
	})
	const start = 1.7e9
	for name, c := range map[string]struct {
		h    http.Handler
		q    Query
		says []string
	}{
		"HTML":        {html, Query{}, []string{"no Prometheus", "give the URL"}},
		"not found":   {http.NotFoundHandler(), Query{}, []string{"no Prometheus"}},
		"no data":     {fake{}, Query{}, []string{"no series unknot_received_total from", "--range"}},
		"no services": {good.with("unknot_service_seconds_bucket", "[]"), Query{}, []string{"missing series: unknot_service_seconds_bucket of a:1", "nothing is guessed"}},
		"no waits":    {good.with("unknot_wait_seconds_bucket", "[]"), Query{}, []string{"unknot_wait_seconds_bucket of a:1"}},
		"no drops":    {good.with("unknot_drops_total", "[]"), Query{}, []string{"unknot_drops_total of a:1"}},
		"no workers":  {good.with("unknot_workers", "[]"), Query{}, []string{"unknot_workers", "--workers"}},
		"a reset": {good.with("resets(", is("1")).with("process_start_time_seconds", is(fmt.Sprint(start))), Query{End: time.Unix(start+200, 0)},
			[]string{"reset in the range", "a:1", "--range 3m"}},
		"a reset just now": {good.with("resets(", is("1")).with("process_start_time_seconds", is(fmt.Sprint(start))), Query{End: time.Unix(start+20, 0)},
			[]string{"reset in the range", "--end before it"}},
		"no calls": {good.with("increase(unknot_received_total", is("0")), Query{}, []string{"no node had calls"}},
	} {
		_, err := read(t, c.h, c.q)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		for _, s := range c.says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %q lacks %q", name, err, s)
			}
		}
	}
	for _, u := range []string{"", "localhost:9090", "ftp://x", "http://"} {
		if _, err := Read(context.Background(), Query{URL: u, Timeout: time.Second}); err == nil {
			t.Errorf("%q is taken for a URL", u)
		}
	}
	if _, err := read(t, good.with("unknot_workers", "[]"), Query{Workers: 3}); err != nil {
		t.Errorf("workers that are said: %v", err)
	}
}

// TestWaitTargetIsShown: of a listener with a wait target in overload the page has the target, the limit in force, the measured service
// and the changes, as JSON and for Prometheus.
func TestWaitTargetIsShown(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	w := bench.Work{Time: time.Millisecond, Sleep: true}
	e, err := engine.New(engine.Config{Handler: engine.HandlerFunc(func(r engine.Request) { w.Do(); _ = r.Return(1) }), Workers: 2, WaitTarget: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	s, err := storm.Start(ctx, storm.Config{Targets: 32})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	src, err := e.Add(s.Listener())
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 2)
	running, stop := context.WithCancel(ctx)
	go func() {
		over <- status.Serve(running, ln, status.Config{Engine: e, Source: func(*engine.Source) string { return "web" }})
	}()
	go func() { over <- e.Run(running) }()
	if err := s.Go(); err != nil {
		t.Fatal(err)
	}
	for src.Limit().Changes == 0 || src.Limit().Service == 0 {
		if time.Sleep(time.Millisecond); ctx.Err() != nil {
			t.Fatalf("no limit in five minutes: %+v", src.Limit())
		}
	}
	if _, err := s.Halt(time.Minute); err != nil {
		t.Fatal(err)
	}
	get := func(path string) string {
		r, err := http.Get("http://" + ln.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	// Nothing comes any more, but the last calls may not have been looked at.
	is := src.Limit()
	got, page := get("/status"), get("/metrics")
	for last := is; ; last = is {
		if is = src.Limit(); is == last {
			break
		}
		got, page = get("/status"), get("/metrics")
	}
	if want := fmt.Sprintf(`"waitTarget":{"target":5000000,"limit":%d,"service":%d,"changes":%d}`, is.Depth, is.Service, is.Changes); !strings.Contains(got, want) {
		t.Errorf("no %s in %s", want, got)
	}
	for name, v := range map[string]float64{"wait_target_seconds": .005, "limit": float64(is.Depth), "limit_service_seconds": is.Service.Seconds(), "limit_changes_total": float64(is.Changes)} {
		want := fmt.Sprintf("\nunknot_source_%s{source=%q} %v\n", name, "web", v)
		if !strings.Contains(page, want) {
			t.Errorf("no %q in the metrics, where the limit is %+v", want, is)
		}
	}
	if err := s.RingUntil(func() error { stop(); return <-over }); err != nil {
		t.Error(err)
	}
	if err := <-over; err != nil {
		t.Error(err)
	}
}

var real = flag.Bool("real", false, "ask a real Prometheus that scraped two daemons, which are recorded meanwhile; takes two minutes, root, and prometheus in PATH")

// A daemonKind is what one of the two daemons does.
type daemonKind struct {
	mean time.Duration
	cv   float64
	rate float64
}

var kinds = []daemonKind{{4 * time.Millisecond, .5, 200}, {20 * time.Millisecond, 1, 45}}

// daemonFor is longer than it takes; recordedFor is what is recorded, and what is asked of the series.
// A p99 is of enough calls then.
const daemonFor, recordedFor = 4 * time.Minute, 60 * time.Second

// daemonMain is a daemon with a status page under an open loop of calls.
func daemonMain(args []string) {
	var i int
	fmt.Sscan(args[1], &i)
	k := kinds[i]
	w := bench.Work{Time: k.mean, CV: k.cv, Sleep: true}
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	e, err := engine.New(engine.Config{Handler: engine.HandlerFunc(func(r engine.Request) { w.Do(); _ = r.Return(1) }), Queue: 256, Workers: 2, CheckAfter: engine.AlwaysCheck})
	fail(err)
	ctx, cancel := context.WithTimeout(context.Background(), daemonFor+5*time.Second)
	defer cancel()
	as, err := storm.Process{Kind: storm.Poisson, Rate: k.rate}.Schedule(daemonFor, uint64(i))
	fail(err)
	s, err := storm.Start(ctx, storm.Config{Targets: 400, Open: true, Schedule: as})
	fail(err)
	_, err = e.Add(s.Listener())
	fail(err)
	ln, err := net.Listen("tcp", args[0])
	fail(err)
	go func() { fail(status.Serve(ctx, ln, status.Config{Engine: e})) }()
	go func() { fail(e.Run(ctx)) }()
	fail(s.Go())
	<-ctx.Done()
	os.Exit(0)
}

// TestRealPrometheus holds what the series of two unlike daemons say against what recordings of the same time say.
func TestRealPrometheus(t *testing.T) {
	if !*real {
		t.Skip("takes two minutes, root and a Prometheus: -real")
	}
	dir := t.TempDir()
	var addrs []string
	var pids []int
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i := range kinds {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, ln.Addr().String())
		_ = ln.Close()
		c := exec.CommandContext(ctx, "/proc/self/exe", "fleet-daemon", addrs[i], fmt.Sprint(i))
		c.Stderr = os.Stderr
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		pids = append(pids, c.Process.Pid)
		defer c.Wait()
	}
	conf := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(conf, []byte(fmt.Sprintf("global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: unknot\n  static_configs:\n  - targets: [%q, %q, 127.0.0.1:1]\n", addrs[0], addrs[1])), 0o644); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := ln.Addr().String()
	_ = ln.Close()
	p := exec.CommandContext(ctx, "prometheus", "--config.file="+conf, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+at)
	var said strings.Builder
	p.Stderr = &said
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			t.Log(said.String())
		}
	}()
	defer func() { _ = p.Process.Kill(); _ = p.Wait() }()
	q := Query{URL: "http://" + at, Range: recordedFor, By: "instance", Timeout: time.Minute}
	for begun := time.Now(); ; time.Sleep(200 * time.Millisecond) { // until it has scraped both
		q.End = time.Now()
		if a, err := Read(ctx, q); err == nil && len(a.Nodes) == len(kinds) {
			break
		} else if time.Since(begun) > time.Minute {
			t.Fatalf("no series of both daemons after a minute: %v, %+v", err, a)
		}
	}
	type recorded struct {
		r   *record.Recording
		err error
	}
	got := make([]chan recorded, len(kinds))
	for i := range kinds {
		got[i] = make(chan recorded, 1)
		go func() {
			r, err := record.Record(ctx, record.Config{PID: pids[i], Duration: recordedFor, MaxCalls: 1 << 20})
			got[i] <- recorded{r, err}
		}()
	}
	var recordings []tune.Node
	for i := range kinds {
		g := <-got[i]
		if g.err != nil {
			t.Fatal(g.err)
		}
		n, notes, err := tune.NodeFromRecording(addrs[i], g.r, 2, nil)
		if err != nil {
			t.Fatal(err)
		}
		n.Load.Targets = 4096
		t.Log(notes)
		recordings = append(recordings, n)
	}
	q.End = time.Now()
	a, err := Read(ctx, q)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range append(a.Asked, a.Notes...) {
		t.Log(s)
	}
	if !strings.Contains(strings.Join(a.Notes, "\n"), "127.0.0.1:1 of job unknot: no scrape succeeded") {
		t.Error("a daemon that is down is not named")
	}
	const target = 100 * time.Millisecond
	var text strings.Builder
	series, err := tune.TuneFleet(a.Nodes, target, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	files, err := tune.TuneFleet(recordings, target, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	_ = series.Text(&text)
	_ = files.Text(&text)
	t.Log("\n" + text.String())
	near := func(what string, x, y, within float64) {
		t.Helper()
		t.Logf("%s: series %.4g, recording %.4g (%+.1f%%)", what, x, y, 100*(x/y-1))
		if math.Abs(x/y-1) > within {
			t.Errorf("%s: %.4g by the series, %.4g by the recording", what, x, y)
		}
	}
	for i := range series.Nodes {
		s := series.Nodes[i]
		for _, f := range files.Nodes {
			if f.Name != s.Name {
				continue
			}
			sm, _ := s.Load.Service.Moments()
			fm, _ := f.Load.Service.Moments()
			near(s.Name+" service", sm, fm, .1)
			near(s.Name+" rate", s.Load.Arrivals.Rate(), f.Load.Arrivals.Rate(), .1)
			near(s.Name+" depth", float64(s.Own.Capacity), float64(f.Own.Capacity), .1)
			near(s.Name+" p99", s.Own.P99, f.Own.P99, .1)
			near(s.Name+" goodput", s.Own.Goodput, f.Own.Goodput, .1)
		}
	}
}
