package bench

import (
	"context"
	"errors"
	"sort"
	"testing"
	"time"

	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/confine"
	"github.com/unknot/unknot/engine"
)

// BenchmarkConfined storms a confined and an unconfined engine in turn, 0.5 s
// each, and reports what a target sees: the ratio of the two in one iteration,
// the median over all iterations. Inline path, one target.
func BenchmarkConfined(b *testing.B) {
	for _, level := range []confine.Level{confine.Private, confine.Shared} {
		b.Run("level="+level.String(), func(b *testing.B) {
			var medians, means []float64
			for i := range b.N {
				var p50, mean [2]float64
				for j := range 2 {
					confined := (i + j) % 2
					p50[confined], mean[confined] = confinedRoundTrip(b, confined == 1, level)
				}
				medians, means = append(medians, p50[1]/p50[0]), append(means, mean[1]/mean[0])
			}
			sort.Float64s(medians)
			sort.Float64s(means)
			b.ReportMetric(medians[len(medians)/2], "p50-ratio")
			b.ReportMetric(means[len(means)/2], "time-ratio")
			b.ReportMetric(0, "ns/op") // of no meaning here
		})
	}
}

func confinedRoundTrip(b *testing.B, confined bool, level confine.Level) (p50, mean float64) {
	ec := engine.Config{Handler: engine.HandlerFunc(func(r engine.Request) { _ = r.Return(42) }), Inline: true}
	if confined {
		plan, err := confine.Prepare(confine.Config{Level: level})
		if err != nil {
			b.Skip(err)
		}
		ec.Cookies = plan.Cookies()
		ec.PrivateFiles = level == confine.Private
		ec.ThreadHook = func(th engine.Thread) error {
			_, err := plan.Confine(confine.Thread(th))
			return err
		}
	}
	e, err := engine.New(ec)
	if err != nil {
		b.Fatal(err)
	}
	st, err := storm.Start(context.Background(), storm.Config{Targets: 1})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := e.Add(st.Listener()); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	if err := errors.Join(st.Go(), st.Rages(context.Background(), 10*time.Second)); err != nil {
		b.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond) // warm up
	before, n, start := st.RoundTrip(), st.Counts().OK, time.Now()
	time.Sleep(500 * time.Millisecond)
	after, m, took := st.RoundTrip(), st.Counts().OK, time.Since(start)
	after.Sub(before)
	rep, err := st.Stop(10 * time.Second)
	cancel()
	if err = errors.Join(err, <-ended); err != nil || rep.Lost > 0 {
		b.Fatal(err, rep)
	}
	return after.Quantile(.5), float64(took) / float64(m-n)
}
