package engine_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/unknot/unknot/engine"
)

// BenchmarkBeside is the calls of four threads with a handler that does nothing: alone; beside another container
// whose 16 threads call one that sleeps for 15 ms; and beside 16 such threads of their own
// container, whose handlers are on goroutines of their own ([engine.Go]).
func BenchmarkBeside(b *testing.B) {
	const slow, quick = 16, 4
	for _, receivers := range []int{1, 0} {
		for _, beside := range []string{"nobody", "others", "own"} {
			b.Run(fmt.Sprintf("receivers=%d/%s", receivers, beside), func(b *testing.B) {
				per := b.N/quick + 1
				sleep := engine.HandlerFunc(func(r engine.Request) {
					time.Sleep(15 * time.Millisecond)
					_ = r.Return(1)
				})
				var served, sleeps atomic.Int64
				done := make(chan struct{})
				trivial := func(r engine.Request) {
					_ = r.Return(1)
					if served.Add(1) == int64(quick*per) {
						close(done)
					}
				}
				handlers := engine.HandlerFunc(trivial)
				threads := quick
				if beside == "own" {
					threads += slow
					apart := engine.Go(sleep, 64)
					handlers = func(r engine.Request) {
						if (r.Data().Args[0]-1)%(slow+quick) >= quick {
							sleeps.Add(1)
							apart.Handle(r)
							return
						}
						trivial(r)
					}
				}
				e, err := engine.New(engine.Config{Handler: handlers, Receivers: receivers})
				if err != nil {
					b.Fatal(err)
				}
				ctx, cancel := context.WithCancel(context.Background())
				over := make(chan error, 1)
				go func() { over <- e.Run(ctx) }()
				<-e.Ready()
				own := startTarget(b, threads, per)
				if _, err := e.Add(own.l); err != nil {
					b.Fatal(err)
				}
				others := startTarget(b, slow, 1<<30)
				o := engine.SourceOptions{Handler: engine.HandlerFunc(func(r engine.Request) {
					sleeps.Add(1)
					sleep(r)
				})}
				if _, err := e.AddWith(others.l, o); err != nil {
					b.Fatal(err)
				}
				if beside == "others" {
					others.release()
				}
				b.ResetTimer()
				start := time.Now()
				own.release()
				<-done
				b.ReportMetric(float64(quick*per)/time.Since(start).Seconds(), "calls/s")
				b.ReportMetric(float64(sleeps.Load())/time.Since(start).Seconds(), "sleeps/s")
				b.StopTimer()
				_, _ = own.cmd.Process.Kill(), others.cmd.Process.Kill()
				cancel()
				if err := <-over; err != nil {
					b.Error(err)
				}
			})
		}
	}
}
