//go:build !ringchaos

package peers

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/unknot/unknot/ring"
)

// A handoffQueue carries moments in time, one at a time. pop sleeps, and returns 0 after close.
type handoffQueue struct {
	name   string
	thread bool // the consumer is a wired thread
	near   bool // on the producer's own processor, if that is a wired thread too
	make   func() (push func(uint64), pop func() uint64, close func())
}

func ringHandoff(thread bool, opts ...ring.Option) func() (func(uint64), func() uint64, func()) {
	return func() (func(uint64), func() uint64, func()) {
		r := ring.New[uint64](64, append(opts, ring.SingleProducer())...)
		c := r.Consumer()
		if thread {
			c = r.ThreadConsumer()
		}
		src, dst := make([]uint64, 1), make([]uint64, 1)
		return func(v uint64) { src[0] = v; r.Push(src) },
			func() uint64 { dst[0] = 0; c.Pop(dst); return dst[0] },
			r.Close
	}
}

var handoffQueues = []handoffQueue{
	{"chan", false, false, func() (func(uint64), func() uint64, func()) {
		c := make(chan uint64, 64)
		return func(v uint64) { c <- v }, func() uint64 { return <-c }, func() { close(c) }
	}},
	{"ring", false, false, ringHandoff(false)},
	{"ring-yield", false, false, ringHandoff(false, ring.YieldOnWake())},
	{"ring-thread", true, false, ringHandoff(true)},
	{"ring-thread-near", true, true, ringHandoff(true)},
	{"queue", false, false, func() (func(uint64), func() uint64, func()) {
		q := ring.NewQueue[uint64](64)
		c := q.Consumer()
		src, dst := make([]uint64, 1), make([]uint64, 1)
		return func(v uint64) { src[0] = v; q.Push(src) },
			func() uint64 { dst[0] = 0; c.Pop(dst); return dst[0] },
			q.Close
	}},
	{"flume", false, false, func() (func(uint64), func() uint64, func()) {
		q := newFlumeQueue[uint64](64)
		return q.send, func() uint64 { v, _ := q.recv(); return v }, q.close
	}},
}

// BenchmarkHandoff: see the package's documentation. Between elements the
// producer spends 150 µs, so that the consumer sleeps each time: in a system call
// (nanosleep) as a goroutine, in one as a wired thread, or computing on.
func BenchmarkHandoff(b *testing.B) {
	const pause = 150 * time.Microsecond
	for _, producer := range []string{"goroutine-syscall", "locked-syscall", "goroutine-runs", "locked-runs"} {
		locked := strings.HasPrefix(producer, "locked-")
		for _, q := range handoffQueues {
			if q.near && !locked {
				continue
			}
			b.Run(fmt.Sprintf("producer=%s/queue=%s", producer, q.name), func(b *testing.B) {
				push, pop, end := q.make()
				base := time.Now()
				now := func() uint64 { return uint64(time.Since(base)) }
				waits := make([]uint64, 0, b.N)
				var got atomic.Int64
				var consumer, done sync.WaitGroup
				consumer.Go(func() {
					if q.thread {
						runtime.LockOSThread()
						defer unlockOSThread(q.near)
					}
					if q.near {
						stayOnFirstCPU(b)
					}
					for {
						sent := pop()
						if sent == 0 {
							return
						}
						waits = append(waits, now()-sent)
						got.Add(1)
					}
				})
				var cpu time.Duration
				done.Go(func() {
					if locked {
						runtime.LockOSThread()
						defer unlockOSThread(q.near)
					}
					if q.near {
						stayOnFirstCPU(b)
					}
					runs := producer == "goroutine-runs" || producer == "locked-runs"
					nap := func() {
						if runs {
							x := uint64(1)
							for t := now(); now()-t < uint64(pause); {
								work(100, &x)
							}
						} else {
							ts := syscall.NsecToTimespec(int64(pause))
							syscall.Nanosleep(&ts, nil)
						}
					}
					nap()
					b.ResetTimer()
					before := cpuTime(b)
					for i := range b.N {
						push(now())
						for nap(); got.Load() != int64(i+1); {
							nap()
						}
					}
					cpu = cpuTime(b) - before
				})
				done.Wait()
				b.StopTimer()
				end()
				consumer.Wait()
				if len(waits) != b.N {
					b.Fatalf("%d elements of %d came out", len(waits), b.N)
				}
				slices.Sort(waits)
				quantile := func(q float64) float64 { return float64(waits[int(q*float64(len(waits)-1))]) }
				b.ReportMetric(0, "ns/op") // that is the producer's pause
				b.ReportMetric(quantile(0.5), "p50-ns")
				b.ReportMetric(quantile(0.9), "p90-ns")
				b.ReportMetric(float64(cpu)/float64(b.N), "cpu-ns")
			})
		}
	}
}

func cpuTime(b *testing.B) time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// stayOnFirstCPU binds the calling thread to the first processor that the process may use.
func stayOnFirstCPU(b *testing.B) {
	var set [16]uint64 // a cpu_set_t
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, 0, unsafe.Sizeof(set), uintptr(unsafe.Pointer(&set))); errno != 0 {
		b.Error("sched_getaffinity:", errno)
	}
	for i, w := range set {
		if w != 0 {
			clear(set[:])
			set[i] = w & -w
			break
		}
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(set), uintptr(unsafe.Pointer(&set))); errno != 0 {
		b.Error("sched_setaffinity:", errno)
	}
}

// unlockOSThread ends a LockOSThread, unless the thread is bound: then it must end with its goroutine.
func unlockOSThread(bound bool) {
	if !bound {
		runtime.UnlockOSThread()
	}
}
