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
	// Source names a listener's container; nil: by its tag, or its descriptor. Listeners of one name are counted
	// together in metrics. With [engine.Config.BySource] each has histograms.
	Source func(*engine.Source) string
	// Syscall names a system call; nil: by its number.
	Syscall func(arch uint32, nr int32) string
	// Collectors are shown on /metrics beside the engine's.
	Collectors []prometheus.Collector
	// Logger gets what goes wrong with clients; nil: nothing is logged.
	Logger *slog.Logger
}

// An Info is what does not change.
type Info struct {
	Program     string    `json:"program"` // run or serve
	PID         int       `json:"pid"`
	Version     string    `json:"version"`
	Command     []string  `json:"command,omitempty"` // of run
	Confinement string    `json:"confinement"`       // of the receive threads
	Started     time.Time `json:"started"`
}

const (
	headerTimeout = 5 * time.Second
	idleTimeout   = time.Minute
	maxHeader     = 16 << 10
	stopTimeout   = time.Second
)

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
	r := prometheus.NewRegistry()
	all := append([]prometheus.Collector{
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		metrics.New(cfg.Engine, metrics.Options{Source: cfg.Source, Syscall: cfg.Syscall}),
	}, cfg.Collectors...)
	for _, c := range all {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("status page: metrics: %w", err)
		}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(r, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, Registry: r}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if cfg.Healthy != nil {
			if err := cfg.Healthy(); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(cfg.Info)
	})
	for path, h := range map[string]http.HandlerFunc{
		"/debug/pprof/": pprof.Index, "/debug/pprof/cmdline": pprof.Cmdline, "/debug/pprof/profile": pprof.Profile,
		"/debug/pprof/symbol": pprof.Symbol, "/debug/pprof/trace": pprof.Trace,
	} {
		mux.Handle(path, local(h))
	}
	return mux, nil
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

func isLocal(r *http.Request) bool {
	switch r.Context().Value(http.LocalAddrContextKey).(type) {
	case *net.UnixAddr:
		return true
	case *net.TCPAddr:
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		return err == nil && from.Addr().Unmap().IsLoopback()
	}
	return false
}
