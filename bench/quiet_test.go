package bench

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/engine/notify"
)

// BenchmarkQuietListener has a caller that calls every 10 ms beside a storm of 256
// targets: on a listener of its own of the storm's engine (shared), and with a
// supervisor of its own, the least that a Go thread can do (own). It makes 100 calls
// an iteration; -benchtime 10x and more gives a p99 that stands on 10 calls.
func BenchmarkQuietListener(b *testing.B) {
	for _, path := range []string{PathInline, PathQueue} {
		for _, shared := range []bool{true, false} {
			name := "path=" + path + "/supervisor=own"
			if shared {
				name = "path=" + path + "/supervisor=shared"
			}
			b.Run(name, func(b *testing.B) { quietListener(b, path, shared) })
		}
	}
}

func quietListener(b *testing.B, path string, shared bool) {
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
	defer cancel()
	supervisor := func(s Spec) Supervisor {
		sup, err := New(s)
		if err != nil {
			b.Fatal(err)
		}
		return sup
	}
	start := func(c storm.Config, serve func(...*notify.Listener) error) *storm.Storm {
		s, err := storm.Start(ctx, c)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(s.Close)
		if err := errors.Join(serve(s.Listener()), s.Go()); err != nil {
			b.Fatal(err)
		}
		return s
	}
	// stop stops s, and who supervises it if nobody else needs that.
	stop := func(s *storm.Storm, sup Supervisor) {
		if rep, err := s.Halt(hangDeadline); err != nil || rep.Lost > 0 {
			b.Errorf("storm: %+v, %v", rep, err)
		}
		if sup != nil {
			if err := stopServing(storms{s}, sup.Stop); err != nil {
				b.Error(err)
			}
		}
	}
	think, err := storm.ParseThink("sleep:10ms")
	if err != nil {
		b.Fatal(err)
	}
	sup := supervisor(Spec{Engine: "unknot", Path: path, Targets: 256, Queue: 64, Workers: 2})
	noisy := start(storm.Config{Targets: 256}, sup.Serve)
	var own Supervisor
	serve := func(ls ...*notify.Listener) error {
		_, err := sup.(*unknot).e.Add(ls[0])
		return err
	}
	if !shared {
		own = supervisor(Spec{Engine: "bare", Path: PathInline, Targets: 1, Queue: 1, Workers: 1})
		serve = own.Serve
	}
	quiet := start(storm.Config{Targets: 1, Think: think}, serve)
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
	stop(quiet, own)
	stop(noisy, sup)
	if c := quiet.Counts(); c.OK != c.Calls() {
		b.Errorf("the quiet caller's calls: %v", c)
	}
	b.ReportMetric(got.Quantile(0.5), "p50-roundtrip-ns")
	b.ReportMetric(got.Quantile(0.99), "p99-roundtrip-ns")
	b.ReportMetric(float64(got.Count), "calls")
}
