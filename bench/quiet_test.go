package bench

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/engine"
)

// BenchmarkQuietListener has a caller that calls every 10 ms beside a storm of 256
// targets: on a listener of its own of the storm's engine (shared), and with a
// supervisor of its own, the least that a Go thread can do (own). It makes 100 calls
// an iteration; -benchtime 10x and more gives a p99 that stands on 10 calls. Seen on two
// CPUs with 10x: shared 0.87 ms inline and 1.7 ms by the queue, where a supervisor in C of
// its own beside the same storms had 3.7 and 1.2 ms.
func BenchmarkQuietListener(b *testing.B) {
	for _, path := range []string{PathInline, PathQueue} {
		for _, shared := range []bool{true, false} {
			name := "path=" + path + "/supervisor=own"
			if shared {
				name = "path=" + path + "/supervisor=shared"
			}
			b.Run(name, func(b *testing.B) { quietListener(b, path == PathInline, shared) })
		}
	}
}

func quietListener(b *testing.B, inline, shared bool) {
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
	defer cancel()
	e, err := engine.New(engine.Config{Inline: inline, Queue: 64,
		Handler: engine.HandlerFunc(func(r *engine.Request) { _ = r.Return(answerVal) })})
	if err != nil {
		b.Fatal(err)
	}
	start := func(c storm.Config, serve func(*storm.Storm) error) *storm.Storm {
		s, err := storm.Start(ctx, c)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(s.Close)
		if err := serve(s); err != nil {
			b.Fatal(err)
		}
		return s
	}
	add := func(s *storm.Storm) error {
		_, err := e.Add(s.Listener())
		return err
	}
	think, err := storm.ParseThink("sleep:10ms")
	if err != nil {
		b.Fatal(err)
	}
	noisy := start(storm.Config{Targets: 256}, add)
	var own Supervisor
	serve := add
	if !shared {
		if own, err = New(Spec{Engine: "bare", Path: PathInline, Targets: 1, Queue: 1, Workers: 1}); err != nil {
			b.Fatal(err)
		}
		serve = func(s *storm.Storm) error { return own.Serve(s.Listener()) }
	}
	quiet := start(storm.Config{Targets: 1, Think: think}, serve)
	running, stop := context.WithCancel(ctx)
	ran := make(chan error, 1)
	go func() { ran <- e.Run(running) }()
	for _, s := range []*storm.Storm{noisy, quiet} {
		if err := s.Go(); err != nil {
			b.Fatal(err)
		}
	}
	if err := errors.Join(sleep(ctx, WarmUp), noisy.Rages(ctx, hangDeadline)); err != nil {
		b.Fatal(err)
	}
	before := quiet.RoundTrip()
	got := before
	for b.Loop() {
		for want := got.Count + 100; got.Count < want; got = quiet.RoundTrip() {
			if err := sleep(ctx, 10*time.Millisecond); err != nil {
				b.Fatal(err)
			}
		}
	}
	got.Sub(before)
	end := func(s *storm.Storm) *storm.Report {
		rep, err := s.Halt(hangDeadline)
		if err != nil || rep.Lost > 0 {
			b.Errorf("storm: %+v, %v", rep, err)
		}
		return rep
	}
	end(noisy)
	end(quiet)
	if own != nil {
		if err := stopServing(quiet, own.Stop); err != nil {
			b.Error(err)
		}
	}
	if err := stopServing(noisy, func(context.Context) error { stop(); return <-ran }); err != nil {
		b.Error(err)
	}
	if c := quiet.Counts(); c.OK != c.Calls() {
		b.Errorf("the quiet caller's calls: %v", c)
	}
	b.ReportMetric(got.Quantile(0.5), "p50-roundtrip-ns")
	b.ReportMetric(got.Quantile(0.99), "p99-roundtrip-ns")
	b.ReportMetric(float64(got.Count), "calls")
}
