//go:build ringchaos && !race

package peers

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/unknot/unknot/ring"
	"github.com/unknot/unknot/ring/internal/chaos"
	"github.com/unknot/unknot/ring/internal/forms"
)

const (
	stallTime = 5 * time.Millisecond
	stallOdds = 128 // one removal in so many is interrupted
)

// A stalled queue has consumers that can be descheduled in the middle of a removal: where
// they hold a claim, or a lock, or have read and not yet claimed.
type stalled struct {
	name string
	make func(capacity int, stall func()) (
		pushDrop func(src, evicted []uint64) int, tryPop func(dst []uint64) int)
}

var stalledQueues = []stalled{
	{"ring", func(n int, stall func()) (func(src, evicted []uint64) int, func([]uint64) int) {
		r := ring.New[uint64](n, ring.SingleProducer())
		chaos.Set(&chaos.Hooks{At: func(point int) {
			if point == chaos.Pop {
				stall()
			}
		}})
		return r.PushDrop, r.TryPop
	}},
	{"queue", func(n int, stall func()) (func(src, evicted []uint64) int, func([]uint64) int) {
		q := ring.NewQueue[uint64](n)
		chaos.Set(&chaos.Hooks{At: func(point int) {
			if point == chaos.PopLocked {
				stall()
			}
		}})
		return q.PushDrop, q.TryPop
	}},
	{"vyukov", func(n int, stall func()) (func(src, evicted []uint64) int, func([]uint64) int) {
		q := forms.NewVyukov[uint64](n)
		q.Hook = func(window int) {
			if window == forms.Popping {
				stall()
			}
		}
		return func(src, evicted []uint64) int { return forms.PushDrop[uint64](q, src, evicted) }, q.TryPop
	}},
	{"rts", func(n int, stall func()) (func(src, evicted []uint64) int, func([]uint64) int) {
		q := forms.NewRTS[uint64](n)
		q.Hook = func(window int) {
			if window == forms.Popping {
				stall()
			}
		}
		return func(src, evicted []uint64) int { return forms.PushDrop[uint64](q, src, evicted) }, q.TryPop
	}},
}

// BenchmarkStall: see the package's documentation. A call of the producer pushes 16,
// every 10 µs or more; calls during which the kernel took the processor away
// from the producer itself (nivcsw of getrusage(RUSAGE_THREAD)) are left out.
func BenchmarkStall(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	const consumers, batch, capacity = 4, 16, 256
	// As many processors of the Go scheduler as goroutines: what remains
	// that can deschedule the producer is the kernel, which counts it.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(consumers + 2))
	for _, m := range stalledQueues {
		b.Run(fmt.Sprintf("queue=%s", m.name), func(b *testing.B) {
			var producing atomic.Int32 // its thread
			var stalls atomic.Int64
			pushDrop, tryPop := m.make(capacity, func() {
				if rand.IntN(stallOdds) == 0 && syscall.Gettid() != int(producing.Load()) {
					stalls.Add(1)
					time.Sleep(stallTime)
				}
			})
			defer chaos.Set(nil)
			var got, want tally
			var mu sync.Mutex
			var over atomic.Bool
			var all sync.WaitGroup
			for range consumers {
				all.Go(func() {
					var t tally
					for dst := make([]uint64, batch); ; {
						last := over.Load()
						n := tryPop(dst)
						if n == 0 {
							if last {
								break
							}
							time.Sleep(10 * time.Microsecond)
						}
						for _, v := range dst[:n] {
							t.add(v)
						}
					}
					mu.Lock()
					got.join(t)
					mu.Unlock()
				})
			}
			took := make([]time.Duration, 0, b.N)
			left := 0
			all.Go(func() {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				defer over.Store(true)
				producing.Store(int32(syscall.Gettid()))
				var t tally
				src, evicted := make([]uint64, batch), make([]uint64, capacity)
				next, scratch := uint64(1), uint64(1)
				b.ResetTimer()
				for range b.N {
					for i := range src {
						src[i] = next
						want.add(next)
						next++
					}
					taken := descheduled(b)
					start := time.Now()
					k := pushDrop(src, evicted)
					d := time.Since(start)
					if descheduled(b) == taken {
						took = append(took, d)
					} else {
						left++
					}
					for _, v := range evicted[:k] {
						t.add(v)
					}
					for time.Since(start) < 10*time.Microsecond {
						work(50, &scratch)
					}
				}
				b.StopTimer()
				mu.Lock()
				got.join(t)
				mu.Unlock()
			})
			all.Wait()
			if got != want {
				b.Fatalf("%d elements of sum %d went in, %d of sum %d came out", want.n, want.sum, got.n, got.sum)
			}
			if b.N >= 100*stallOdds && stalls.Load() == 0 {
				b.Fatal("nobody was descheduled")
			}
			above := func(limit time.Duration) float64 {
				n := 0
				for _, d := range took {
					if d > limit {
						n++
					}
				}
				return float64(n) * 1e4 / float64(max(len(took), 1))
			}
			b.ReportMetric(0, "ns/op") // that is the producer's pause
			if len(took) > 0 {
				b.ReportMetric(float64(slices.Max(took)), "worst-ns")
			}
			b.ReportMetric(above(time.Millisecond), "above-1ms/10k")
			b.ReportMetric(above(100*time.Microsecond), "above-100us/10k")
			b.ReportMetric(float64(left)*1e4/float64(b.N), "left-out/10k")
			b.ReportMetric(float64(stalls.Load())*1e4/float64(b.N), "stalls/10k")
		})
	}
}

// descheduled counts how often the kernel took the processor away from this thread.
func descheduled(b *testing.B) int64 {
	const rusageThread = 1 // from include/uapi/linux/resource.h
	var ru syscall.Rusage
	if err := syscall.Getrusage(rusageThread, &ru); err != nil {
		b.Fatal(err)
	}
	return ru.Nivcsw
}
