// Package status shows a running engine to operators, by HTTP: metrics for Prometheus, whether all is well, what
// `unknot top` draws, and profiles for who is on the machine.
//
//	ln, err := status.Listen("unix:/run/unknot/status")
//	err = status.Serve(ctx, ln, status.Config{Engine: e, Info: …})
//
// All is read when it is asked for; the path of a call has no part in it.
package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/unknot/unknot/engine"
	"github.com/unknot/unknot/engine/metrics"
)

// A Config says what is shown.
type Config struct {
	Engine *engine.Engine
	Info   Info
	// Healthy says what is wrong, for /healthz; nil: nothing ever is.
	Healthy func() error
	// Source names a listener's container; nil: by its tag, else its descriptor. Listeners of one name are counted
	// together in metrics. With [engine.Config.BySource] each has histograms.
	Source func(*engine.Source) string
	// Syscall names a system call; nil: by its number.
	Syscall func(arch uint32, nr int32) string
	// Collectors are shown on /metrics beside the engine's.
	Collectors []prometheus.Collector
	// Logger gets what goes wrong with clients; nil: nothing is logged.
	Logger *slog.Logger
}

func (c *Config) healthy() error {
	if c.Healthy == nil {
		return nil
	}
	return c.Healthy()
}

// An Info is what does not change.
type Info struct {
	Program     string    `json:"program"` // run or serve
	PID         int       `json:"pid"`
	Version     string    `json:"version"`
	Command     string    `json:"command,omitempty"` // of run: its name, without arguments, which may hold secrets
	Confinement string    `json:"confinement"`       // of the receive threads
	Started     time.Time `json:"started"`
}

const (
	headerTimeout = 5 * time.Second
	idleTimeout   = time.Minute
	writeTimeout  = 30 * time.Second
	maxHeader     = 16 << 10
	maxScrapes    = 4
	stopTimeout   = time.Second
)

// maxConns bounds the clients at once, each of which takes a descriptor from containers.
const maxConns = 64

// Serve serves until ctx ends, and closes ln. That ctx ended is no error.
func Serve(ctx context.Context, ln net.Listener, cfg Config) error {
	h, err := Handler(cfg)
	if err != nil {
		_ = ln.Close()
		return err
	}
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ln = limit(ln, maxConns)
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		short, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		if s.Shutdown(short) != nil {
			_ = s.Close()
		}
	})
	err = s.Serve(ln)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	_ = s.Close()
	return fmt.Errorf("status page at %s: %w", ln.Addr(), err)
}

// Handler is what Serve serves.
func Handler(cfg Config) (http.Handler, error) {
	if cfg.Source == nil {
		cfg.Source = sourceName
	}
	if cfg.Syscall == nil {
		cfg.Syscall = func(_ uint32, nr int32) string { return fmt.Sprint(nr) }
	}
	r := prometheus.NewRegistry()
	all := append([]prometheus.Collector{
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		metrics.New(cfg.Engine, metrics.Options{Source: cfg.Source, Syscall: cfg.Syscall, Confinement: cfg.Info.Confinement, Healthy: cfg.healthy}),
	}, cfg.Collectors...)
	for _, c := range all {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("status page: metrics: %w", err)
		}
	}
	o := &observer{cfg: cfg}
	mux := http.NewServeMux()
	handle := func(path string, h http.Handler) {
		mux.Handle("GET "+path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			// A client that does not read gives its place back.
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
			h.ServeHTTP(w, r)
		}))
	}
	handle("/metrics", promhttp.HandlerFor(r, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, Registry: r, MaxRequestsInFlight: maxScrapes}))
	handle("/healthz", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err := cfg.healthy(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	}))
	handle("/status", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(o.snapshot()) // who is gone is gone
	}))
	handle("/{$}", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "unknot %s\n\n/metrics      for Prometheus\n/healthz      whether all is well\n/status       for unknot top\n/debug/pprof/ profiles, for clients on this machine\n", cfg.Info.Program)
	}))
	for path, h := range map[string]http.HandlerFunc{
		"/debug/pprof/": pprof.Index, "/debug/pprof/cmdline": pprof.Cmdline, "/debug/pprof/profile": pprof.Profile,
		"/debug/pprof/symbol": pprof.Symbol, "/debug/pprof/trace": pprof.Trace,
	} {
		mux.Handle(path, local(h))
	}
	return mux, nil
}

// sourceName is a listener's name where nobody gives it one.
func sourceName(s *engine.Source) string {
	if tag := s.Tag(); tag != nil {
		return fmt.Sprint(tag)
	}
	return fmt.Sprintf("listener %d", s.Listener().FD())
}

// local refuses clients of other machines.
func local(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isLocal(r) {
			http.Error(w, "profiles are for clients on this machine: connect to a loopback address, or to a socket", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// isLocal also wants a loopback name to have been asked for: a browser on this machine, whose page has a name that
// was made to point here, has another one, and so have clients of a proxy here.
func isLocal(r *http.Request) bool {
	switch r.Context().Value(http.LocalAddrContextKey).(type) {
	case *net.UnixAddr:
		return true
	case *net.TCPAddr:
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !from.Addr().Unmap().IsLoopback() {
			return false
		}
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
		return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
	}
	return false
}
