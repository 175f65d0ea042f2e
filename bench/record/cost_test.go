package record

import (
	"context"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/unknot/unknot/bench"
	"github.com/unknot/unknot/bench/storm"
	"github.com/unknot/unknot/bench/trace"
	"github.com/unknot/unknot/engine"
	"golang.org/x/sys/unix"
)

// BenchmarkCost is how much a supervisor serves while it is recorded, as a ratio to
// what it serves otherwise: the median over b.N rounds, each of which measures both in
// random order. Take -benchtime 10x or more.
func BenchmarkCost(b *testing.B) {
	if err := trace.Probe(); err != nil {
		b.Skip(err)
	}
	for _, c := range []struct {
		name string
		bench.Spec
	}{
		{"inline", bench.Spec{Path: bench.PathInline}},
		{"queue", bench.Spec{Path: bench.PathQueue, Workers: 2, Queue: 64}},
		{"queue-checked", bench.Spec{Path: bench.PathQueue, Workers: 2, Queue: 64, CheckAfter: engine.AlwaysCheck}},
		{"queue-50us", bench.Spec{Path: bench.PathQueue, Workers: 2, Queue: 64, Work: bench.Work{Time: 50 * time.Microsecond}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := c.Spec
			s.Engine, s.Targets = "unknot", 16
			sup, err := bench.New(s)
			if err != nil {
				b.Fatal(err)
			}
			storming(b, sup, s, func(st *storm.Storm) {
				var ratios, each []float64
				for range b.N {
					var rate [2]float64
					for _, i := range rand.Perm(2) {
						rate[i] = served(b, st, i == 1)
					}
					ratios = append(ratios, rate[1]/rate[0])
					each = append(each, 1e9/rate[1]-1e9/rate[0])
				}
				b.ReportMetric(middle(ratios), "recorded/off")
				b.ReportMetric(middle(each), "more-ns/call")
				b.ReportMetric(0, "ns/op")
			})
		})
	}
}

func middle(xs []float64) float64 {
	slices.Sort(xs)
	return (xs[(len(xs)-1)/2] + xs[len(xs)/2]) / 2
}

// served is in calls per second. What is recorded is so from the first moment on.
func served(b *testing.B, st *storm.Storm, recorded bool) float64 {
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	done := make(chan error, 1)
	if recorded {
		c := Config{PID: os.Getpid(), MaxCalls: MaxCalls, DropErrno: unix.EINTR}
		p, err := attach(c)
		if err != nil {
			b.Fatal(err)
		}
		defer p.close()
		go func() {
			_, err := p.follow(ctx, c)
			done <- err
		}()
	} else {
		done <- nil
	}
	before, from := st.Counts(), time.Now()
	time.Sleep(300 * time.Millisecond)
	calls, took := st.Counts().OK-before.OK, time.Since(from)
	stop()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	return float64(calls) / took.Seconds()
}
