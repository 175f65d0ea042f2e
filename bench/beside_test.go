package bench

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/engine/notify"
	"github.com/unknot/unknot/internal/testlisteners"
)

// BenchmarkBesideListeners has 16 listeners with a target each that calls all the time,
// alone and beside others: 984 listeners whose targets are idle; 1,000 a second that come,
// call once and go; and, to compare those with, the same processes without listeners. An
// iteration is a quarter of a second.
func BenchmarkBesideListeners(b *testing.B) {
	besides := []struct {
		name string
		plan testlisteners.Plan
	}{
		{"nothing", testlisteners.Plan{}},
		{"idle", testlisteners.Plan{N: 984, Stay: true}},
		{"threads", testlisteners.Plan{N: 1 << 20, AtOnce: 64, Every: time.Millisecond, Calls: 1, Bare: true}},
		{"coming", testlisteners.Plan{N: 1 << 20, AtOnce: 64, Every: time.Millisecond, Calls: 1}},
	}
	for _, path := range []string{PathInline, PathQueue} {
		for _, beside := range besides {
			b.Run("path="+path+"/beside="+beside.name, func(b *testing.B) { besideListeners(b, path, beside.plan) })
		}
	}
}

func besideListeners(b *testing.B, path string, plan testlisteners.Plan) {
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
	defer cancel()
	spec := Spec{Engine: "unknot", Path: path, Targets: 1, Listeners: 16, Queue: 64, Workers: 2}
	sup, err := New(spec)
	if err != nil {
		b.Fatal(err)
	}
	ss, err := startStorms(ctx, spec, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer ss.close()
	if err := sup.Serve(ss.listeners()...); err != nil {
		b.Fatal(err)
	}
	came, all := make(chan int, 1), make(chan struct{})
	closeChild := func() {}
	if plan.N > 0 {
		child, err := testlisteners.Start(plan, 5*time.Minute)
		if err != nil {
			b.Fatal(err)
		}
		go func() {
			n := 0
			for l, err := range child.Listeners() {
				if err != nil { // closed
					break
				}
				n++
				if err := addTo(sup, l); err != nil {
					b.Error(err)
				}
			}
			close(all)
			came <- n
		}()
		closeChild = func() {
			_ = child.Close() // in the midst of it
			b.ReportMetric(float64(<-came), "listeners")
		}
		if plan.Stay {
			<-all
		}
	}
	if err := errors.Join(ss.start(), ss.rages(ctx, hangDeadline), sleep(ctx, WarmUp)); err != nil {
		b.Fatal(err)
	}
	before, trips := sumCounts(ss.counts()), sumTrips(ss.roundTrips())
	for b.Loop() {
		if err := sleep(ctx, 250*time.Millisecond); err != nil {
			b.Fatal(err)
		}
	}
	elapsed := b.Elapsed()
	after, got := sumCounts(ss.counts()), sumTrips(ss.roundTrips())
	got.Sub(trips)
	closeChild()
	if rep, err := ss.halt(hangDeadline); err != nil || rep.Lost > 0 {
		b.Errorf("storms: %+v, %v", rep, err)
	}
	if err := stopServing(ss, sup.Stop); err != nil {
		b.Error(err)
	}
	b.ReportMetric(float64(after.OK-before.OK)/elapsed.Seconds(), "served/s")
	b.ReportMetric(got.Quantile(0.99), "p99-roundtrip-ns")
	b.ReportMetric(got.Quantile(0.999), "p999-roundtrip-ns")
}

func addTo(sup Supervisor, l *notify.Listener) error {
	_, err := sup.(*unknot).e.Add(l)
	return err
}

// BenchmarkQuietListeners has 15 listeners whose only target calls every 10 ms, alone and
// beside a listener on which 64 targets storm. An iteration is a quarter of a second.
func BenchmarkQuietListeners(b *testing.B) {
	for _, path := range []string{PathInline, PathQueue} {
		for _, targets := range []int{0, 64} {
			b.Run(fmt.Sprintf("path=%s/storm=%d", path, targets), func(b *testing.B) { quietListeners(b, path, targets) })
		}
	}
}

func quietListeners(b *testing.B, path string, targets int) {
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
	defer cancel()
	quietly := Spec{Engine: "unknot", Path: path, Targets: 1, Listeners: 15, Queue: 64, Workers: 2}
	think, err := storm.ParseThink("sleep:10ms")
	if err != nil {
		b.Fatal(err)
	}
	quietly.Load.Think = think
	sup, err := New(quietly)
	if err != nil {
		b.Fatal(err)
	}
	quiet, err := startStorms(ctx, quietly, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer quiet.close()
	all := quiet
	if targets > 0 {
		loudly := quietly
		loudly.Targets, loudly.Listeners, loudly.Load.Think = targets, 1, storm.Think{}
		loud, err := startStorms(ctx, loudly, 0)
		if err != nil {
			b.Fatal(err)
		}
		defer loud.close()
		all = append(all, loud...)
	}
	if err := errors.Join(sup.Serve(all.listeners()...), all.start(), all.rages(ctx, hangDeadline), sleep(ctx, WarmUp)); err != nil {
		b.Fatal(err)
	}
	before := sumTrips(quiet.roundTrips())
	for b.Loop() {
		if err := sleep(ctx, 250*time.Millisecond); err != nil {
			b.Fatal(err)
		}
	}
	got := sumTrips(quiet.roundTrips())
	got.Sub(before)
	if rep, err := all.halt(hangDeadline); err != nil || rep.Lost > 0 {
		b.Errorf("storms: %+v, %v", rep, err)
	}
	if err := stopServing(all, sup.Stop); err != nil {
		b.Error(err)
	}
	if c := sumCounts(quiet.counts()); c.OK != c.Calls() {
		b.Errorf("the quiet callers' calls: %v", c)
	}
	b.ReportMetric(got.Quantile(0.5), "p50-roundtrip-ns")
	b.ReportMetric(got.Quantile(0.99), "p99-roundtrip-ns")
	b.ReportMetric(float64(got.Count), "calls")
}
