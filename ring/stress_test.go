//go:build !ringmodel

package ring

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/unknot/unknot/ring/internal/chaos"
)

// disturb makes goroutines lose their processor in the windows of the ring,
// until the test ends; about one access in n. Only builds with hooks have windows.
func disturb(t *testing.T, n uint32) { t.Cleanup(chaos.Disturb(n)) }

// TestWithHooks runs the tests of this file in a build that has the hooks, if this
// one has not: without them they hardly ever meet an interesting order.
func TestWithHooks(t *testing.T) {
	if hooked {
		t.Skip("this build has the hooks")
	}
	if testing.Short() {
		t.Skip("compiles another build")
	}
	needGo(t)
	t.Parallel()
	cmd := exec.Command(goCommand(), "test", "-count=1", "-timeout=10m", "-vet=off", "-tags", "ringchaos",
		"-run", "^Test(ExactlyOnce|NoLostWake|Set)", "-v", ".")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// stops makes the world stop every so often, so that goroutines are preempted
// where they are, until the returned function is called.
func stops() func() {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(200 * time.Microsecond):
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// TestExactlyOnce sends numbered entries through a small ring and accounts for
// each: it must reach one receiver or be evicted once, and receivers must see
// each producer's entries in order.
func TestExactlyOnce(t *testing.T) {
	disturb(t, 50)
	total := 150000
	for _, m := range []struct {
		name                 string
		producers, consumers int
		batch, pop           int
		drop, thread, wait   bool
		opts                 []Option
	}{
		{"OneProducer", 1, 3, 1, 1, false, false, false, []Option{SingleProducer()}},
		{"OneProducerDrop", 1, 3, 4, 3, true, false, false, []Option{SingleProducer()}},
		{"OneProducerDropQuantum", 1, 2, 1, 5, true, false, false, []Option{SingleProducer(), EvictAtLeast(8), YieldOnWake()}},
		{"OneProducerDropAsymmetric", 1, 3, 1, 1, true, false, false, []Option{SingleProducer(), AsymmetricFence()}},
		{"Producers", 3, 3, 3, 2, false, false, false, nil},
		{"ProducersDrop", 3, 3, 3, 2, true, false, false, nil},
		{"ThreadsDrop", 2, 2, 2, 4, true, true, false, nil},
		{"OneProducerWaits", 1, 2, 3, 2, false, false, true, []Option{SingleProducer()}},
		{"OneProducerWaitsAsymmetric", 1, 3, 1, 1, false, false, true, []Option{SingleProducer(), AsymmetricFence()}},
		{"ProducersWait", 3, 2, 4, 3, false, true, true, nil},
	} {
		t.Run(m.name, func(t *testing.T) {
			defer stops()()
			const capacity = 11
			r := New[uint64](capacity, m.opts...)
			r.startAt(-uint64(total / 2))
			each := total / m.producers
			owners := make([]atomic.Uint32, each*m.producers)
			var pushed, popped, evicted atomic.Int64
			own := func(vals []uint64, last []uint64) {
				for _, v := range vals {
					if owners[v].Add(1) != 1 {
						t.Errorf("entry %d came out twice", v)
					}
					p := v / uint64(each)
					if last[p] != 0 && v < last[p] {
						t.Errorf("entry %d came after %d", v, last[p])
					}
					last[p] = v
				}
			}
			var producers, consumers sync.WaitGroup
			for p := range m.producers {
				producers.Go(func() {
					ev, last := make([]uint64, 16), make([]uint64, m.producers)
					src := make([]uint64, m.batch)
					for i := 0; i < each; {
						src := src[:min(m.batch, each-i)]
						for j := range src {
							src[j] = uint64(p*each + i + j)
						}
						if m.drop {
							k := r.PushDrop(src, ev)
							own(ev[:k], last)
							evicted.Add(int64(k))
							pushed.Add(int64(len(src)))
							i += len(src)
							continue
						}
						n := 0
						if m.wait {
							n = r.PushWait(src)
						} else if n = r.Push(src); n == 0 {
							runtime.Gosched()
						}
						pushed.Add(int64(n))
						i += n
					}
				})
			}
			for range m.consumers {
				consumers.Go(func() {
					c := r.Consumer()
					if m.thread {
						runtime.LockOSThread()
						defer runtime.UnlockOSThread()
						c = r.ThreadConsumer()
					}
					dst, last := make([]uint64, m.pop), make([]uint64, m.producers)
					for {
						n := c.Pop(dst)
						if n == 0 {
							return
						}
						own(dst[:n], last)
						popped.Add(int64(n))
						if rand.IntN(8) == 0 {
							runtime.Gosched()
						}
					}
				})
			}
			within(t, time.Minute, "the stress", func() {
				producers.Wait()
				r.Close()
				consumers.Wait()
			})
			if got := popped.Load() + evicted.Load(); got != pushed.Load() || r.Len() != 0 {
				t.Errorf("pushed %d, popped %d, evicted %d, left %d", pushed.Load(), popped.Load(), evicted.Load(), r.Len())
			}
			for v := range owners {
				if owners[v].Load() != 1 {
					t.Fatalf("entry %d came out %d times", v, owners[v].Load())
				}
			}
		})
	}
}

// TestNoLostWake has consumers fall asleep all the time: the producer sends the next
// batch only when the last one is out. A wake-up that is lost ends everything.
func TestNoLostWake(t *testing.T) {
	disturb(t, 3)
	rounds := 5000
	for _, m := range []struct {
		name      string
		consumers int
		batch     int
		thread    bool
		rings     int
		opts      []Option
	}{
		{"One", 1, 1, false, 1, []Option{SingleProducer()}},
		{"Three", 3, 4, false, 1, nil},
		{"Yield", 2, 3, false, 1, []Option{YieldOnWake()}},
		{"Asymmetric", 2, 1, false, 1, []Option{SingleProducer(), AsymmetricFence()}},
		{"AsymmetricThreads", 2, 2, true, 2, []Option{AsymmetricFence()}},
		{"Threads", 2, 2, true, 1, nil},
		{"TwoRings", 2, 2, false, 2, nil},
	} {
		t.Run(m.name, func(t *testing.T) {
			s := NewSet[uint64]()
			var rings []*Ring[uint64]
			for range m.rings {
				rings = append(rings, s.Add(8, m.opts...))
			}
			var out atomic.Int64
			var consumers, producers sync.WaitGroup
			for range m.consumers {
				consumers.Go(func() {
					c := s.Consumer()
					if m.thread {
						runtime.LockOSThread()
						defer runtime.UnlockOSThread()
						c = s.ThreadConsumer()
					}
					dst := make([]uint64, 1)
					for c.Pop(dst) != 0 {
						out.Add(1)
					}
				})
			}
			within(t, time.Minute, "the hand-over", func() {
				sent := int64(0)
				for range rounds / m.batch {
					for _, r := range rings {
						producers.Go(func() { r.Push(make([]uint64, m.batch)) })
						sent += int64(m.batch)
					}
					producers.Wait()
					for out.Load() != sent {
						runtime.Gosched()
					}
				}
				s.Close()
				consumers.Wait()
			})
		})
	}
}

// TestSetMembersComeAndGo adds and removes rings under way.
func TestSetMembersComeAndGo(t *testing.T) {
	disturb(t, 20)
	s := NewSet[uint64]()
	var out atomic.Int64
	var consumers, producers sync.WaitGroup
	for range 2 {
		consumers.Go(func() {
			c := s.Consumer()
			dst := make([]uint64, 2)
			for {
				n := c.Pop(dst)
				if n == 0 {
					return
				}
				out.Add(int64(n))
			}
		})
	}
	const members, each = 40, 100
	for range 4 {
		producers.Go(func() {
			for range members / 4 {
				r := s.Add(4, SingleProducer())
				for i := 0; i < each; {
					n := r.Push([]uint64{1, 2}[:min(2, each-i)])
					i += n
					if n == 0 {
						runtime.Gosched()
					}
				}
				r.Close()
				s.Remove(r)
				out.Add(int64(len(popAll(r))))
			}
		})
	}
	within(t, time.Minute, "the stress", func() {
		producers.Wait()
		s.Close()
		consumers.Wait()
	})
	if got := out.Load(); got != members*each {
		t.Errorf("%d entries of %d came out", got, members*each)
	}
}

// TestNoAllocs uses every method.
func TestNoAllocs(t *testing.T) {
	if raceBuild {
		t.Skip("the race detector allocates")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	r := New[uint32](8, EvictAtLeast(2))
	q := NewQueue[[10]uint64](8)
	s := NewSlab[[80]byte](16)
	c, qc := r.Consumer(), q.Consumer()
	is, ev, buf, qbuf := make([]uint32, 4), make([]uint32, 8), make([]uint32, 4), make([][10]uint64, 4)
	n := testing.AllocsPerRun(1000, func() {
		for range 3 {
			k := s.Take(is)
			k = r.PushDrop(is[:k], ev)
			s.Put(ev[:k]...)
		}
		k := r.TryPop(buf)
		s.Keep(buf[:k]...)
		s.Put(buf[:c.Pop(buf)]...)
		for r.Len() > 0 {
			s.Put(buf[:c.TryPop(buf)]...)
		}
		r.PushWait(is)
		r.TryPop(buf)
		q.Push(qbuf)
		q.PushDrop(qbuf, qbuf)
		q.TryPop(qbuf[:1])
		qc.Pop(qbuf)
	})
	if n != 0 {
		t.Errorf("%v allocations per round", n)
	}
	// Sleeping and waking, too.
	for _, thread := range []bool{false, true} {
		r := New[uint32](8, YieldOnWake())
		c := r.set.consumer(thread)
		var out atomic.Int64
		var ended sync.WaitGroup
		ended.Go(func() {
			for c.Pop(buf[:1]) != 0 {
				out.Add(1)
			}
		})
		sent := int64(0)
		within(t, time.Minute, "the hand-over", func() {
			n := testing.AllocsPerRun(200, func() {
				for !r.lot.waiting() {
					runtime.Gosched()
				}
				r.Push(is[:1])
				for sent++; out.Load() != sent; {
					runtime.Gosched()
				}
			})
			if n != 0 {
				t.Errorf("%v allocations per hand-off (thread %t)", n, thread)
			}
			r.Close()
			ended.Wait()
		})
	}
}

// TestSleepersUseNoCPU parks consumers of both kinds, and producers, and looks at what a while costs.
// It does so in a process of its own, where no other test has left anything running.
func TestSleepersUseNoCPU(t *testing.T) {
	const alone = "UNKNOT_RING_ALONE"
	if os.Getenv(alone) == "" {
		t.Parallel()
		cmd := exec.Command(os.Args[0], "-test.run=^TestSleepersUseNoCPU$", "-test.v", "-test.timeout=10m")
		cmd.Env = append(os.Environ(), alone+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Logf("%s", out)
		return
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	const span = 400 * time.Millisecond
	spent := func() time.Duration {
		before := cpuTime(t)
		time.Sleep(span)
		return cpuTime(t) - before
	}
	// The whole process is charged, and on a busy machine the runtime's own
	// threads cost more than on a quiet one: what they use without consumers.
	idle := max(spent(), spent())
	r := New[uint64](8)
	const each = 4
	var ended sync.WaitGroup
	for range each {
		ended.Go(func() { r.Consumer().Pop(make([]uint64, 1)) })
		ended.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			r.ThreadConsumer().Pop(make([]uint64, 1))
		})
	}
	full := New[uint64](8)
	full.Push(make([]uint64, 8))
	for range each {
		ended.Go(func() { full.PushWait(make([]uint64, 1)) })
	}
	within(t, time.Minute, "falling asleep", func() {
		for r.lot.nwait.Load()&^fenced != 2*each || full.gate.resume.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
	})
	time.Sleep(20 * time.Millisecond) // let the last one get into the kernel
	// The rarest poll uses more: a thread that wakes every millisecond 4 ms and more.
	const limit = time.Millisecond
	var used time.Duration
	for range 20 {
		if used = spent() - idle; used < limit {
			break
		}
	}
	t.Logf("%d sleeping consumers and producers used %v of CPU in %v beyond the %v of an idle process", 3*each, used, span, idle)
	if used >= limit {
		t.Errorf("sleepers used %v of CPU in %v beyond the %v of an idle process", used, span, idle)
	}
	r.Close()
	full.Close()
	within(t, time.Minute, "waking up", ended.Wait)
}

func cpuTime(t *testing.T) time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// TestRationIsKept: consumers of two rings are never at more batches of one than its ration, whatever it is
// at the time, and none is lost.
func TestRationIsKept(t *testing.T) {
	disturb(t, 20)
	const each, most = 5000, 2
	s := NewSet[uint64]()
	slow, quick := s.Add(16, SingleProducer(), Rationed(most)), s.Add(16, SingleProducer())
	var out, at, over atomic.Int64
	var consumers, producers sync.WaitGroup
	for i := range 4 {
		consumers.Go(func() {
			c := s.Consumer()
			if i%2 == 0 {
				runtime.LockOSThread()
				c = s.ThreadConsumer()
			}
			dst := make([]uint64, 3)
			for n := c.Pop(dst); n != 0; n = c.Pop(dst) {
				out.Add(int64(n))
				if c.From() != slow {
					continue
				}
				if at.Add(1) > most {
					over.Add(1)
				}
				runtime.Gosched()
				at.Add(-1)
				slow.Done()
			}
		})
	}
	for _, r := range []*Ring[uint64]{slow, quick} {
		producers.Go(func() {
			for i := 0; i < each; {
				n := r.Push([]uint64{1, 2}[:min(2, each-i)])
				i += n
				if i%97 == 0 && r == slow {
					r.SetRation(1 + i%2)
				}
				if n == 0 {
					runtime.Gosched()
				}
			}
		})
	}
	within(t, time.Minute, "the stress", func() {
		producers.Wait()
		s.Close()
		consumers.Wait()
	})
	out.Add(int64(len(popAll(slow)))) // none, unless those with the ration left it
	if out.Load() != 2*each || over.Load() != 0 || slow.Out() != 0 {
		t.Errorf("%d entries of %d, %d times over the ration, %d out", out.Load(), 2*each, over.Load(), slow.Out())
	}
}
