//go:build ringchaos

package linear

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/unknot/unknot/ring"
	"github.com/unknot/unknot/ring/internal/chaos"
	"github.com/unknot/unknot/ring/internal/forms"
)

// disturb makes goroutines lose their processor in the windows of the ring,
// until the test ends; about one access in n. Only builds with hooks have windows.
func disturb(t *testing.T, n uint32) { t.Cleanup(chaos.Disturb(n)) }

// An op is one operation of a history. A PushDrop that evicts is two: eviction
// and push, each atomic, in this order.
type op struct {
	kind  byte // p: Push, e: the eviction of a PushDrop, d: its push, t: TryPop
	vals  string
	asked int // p, e, d: entries to push; t: entries to pop
}

// result is how much of it was done, and for e and t the entries.
type result struct {
	n    int
	vals string
}

// spec is what the queues promise: atomic batches that may be short, nothing
// only if truly full or empty, evictions as small as possible.
func spec(capacity, quantum int) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return "" },
		Step: func(state, input, output any) (bool, any) {
			q, in, out := state.(string), input.(op), output.(result)
			free := capacity - len(q)
			switch in.kind {
			case 'p':
				ok := out.n <= free && (out.n > 0 || free == 0)
				return ok, q + in.vals[:out.n]
			case 'd':
				return len(in.vals) <= free, q + in.vals
			case 'e':
				want := min(max(in.asked-free, quantum), len(q))
				if free >= in.asked || out.n != want || q[:out.n] != out.vals {
					return false, q
				}
				return true, q[out.n:]
			case 't':
				if out.n == 0 {
					return len(q) == 0, q
				}
				if out.n > len(q) || q[:out.n] != out.vals {
					return false, q
				}
				return true, q[out.n:]
			}
			panic("kind")
		},
		Equal: func(a, b any) bool { return a.(string) == b.(string) },
		DescribeOperation: func(input, output any) string {
			in, out := input.(op), output.(result)
			return fmt.Sprintf("%c %q/%d -> %d %q", in.kind, in.vals, in.asked, out.n, out.vals)
		},
	}
}

// checkTime is far more than the check of one history takes, on a machine that stalls too.
const checkTime = 2 * time.Minute

type queue interface {
	Push([]uint64) int
	TryPop([]uint64) int
}

type dropQueue interface {
	queue
	PushDrop(src, evicted []uint64) int
}

// history lets goroutines loose on q and records what they see. Entries are
// bytes, all different.
func history(q queue, producers, consumers, ops, batch int, drop bool) []porcupine.Operation {
	var clock atomic.Int64
	var id atomic.Uint32
	all := make([][]porcupine.Operation, producers+consumers)
	str := func(vals []uint64) string {
		b := make([]byte, len(vals))
		for i, v := range vals {
			b[i] = byte(v)
		}
		return string(b)
	}
	var wg sync.WaitGroup
	start := make(chan struct{})
	for g := range all {
		wg.Go(func() {
			<-start
			var hist []porcupine.Operation
			add := func(in op, out result, call int64) {
				hist = append(hist, porcupine.Operation{ClientId: g, Input: in, Output: out, Call: call, Return: clock.Add(1)})
			}
			buf, ev := make([]uint64, batch), make([]uint64, 8)
			for range ops {
				buf := buf[:1+rand.IntN(batch)]
				if g >= producers {
					call := clock.Add(1)
					n := q.TryPop(buf)
					add(op{kind: 't', asked: len(buf)}, result{n, str(buf[:n])}, call)
					continue
				}
				for i := range buf {
					buf[i] = uint64(id.Add(1))
				}
				call := clock.Add(1)
				if !drop || rand.IntN(3) == 0 {
					n := q.Push(buf)
					add(op{kind: 'p', vals: str(buf), asked: len(buf)}, result{n: n}, call)
					continue
				}
				k := q.(dropQueue).PushDrop(buf, ev)
				if k > 0 {
					add(op{kind: 'e', asked: len(buf)}, result{k, str(ev[:k])}, call)
				}
				add(op{kind: 'd', vals: str(buf), asked: len(buf)}, result{n: len(buf)}, call)
			}
			all[g] = hist
		})
	}
	close(start)
	wg.Wait()
	// What is left comes out last: nothing may have vanished.
	hist := slices.Concat(all...)
	for {
		buf := make([]uint64, 1)
		call := clock.Add(1)
		n := q.TryPop(buf)
		hist = append(hist, porcupine.Operation{ClientId: 99, Input: op{kind: 't', asked: 1}, Output: result{n, str(buf[:n])}, Call: call, Return: clock.Add(1)})
		if n == 0 {
			return hist
		}
	}
}

// TestLinearizable checks histories of the real ring for an order that
// explains them; the goroutines lose their processor in the middle of what
// they do, by the hooks.
func TestLinearizable(t *testing.T) {
	disturb(t, 4)
	for _, m := range []struct {
		name                        string
		producers, consumers, batch int
		capacity, quantum           int
		opts                        []ring.Option
	}{
		{"SingleProducer", 1, 3, 1, 4, 1, []ring.Option{ring.SingleProducer()}},
		{"SingleProducerBatches", 1, 2, 3, 4, 1, []ring.Option{ring.SingleProducer()}},
		{"Producers", 2, 2, 1, 4, 1, nil},
		{"ProducersBatches", 2, 2, 3, 3, 1, nil},
		{"Quantum", 1, 2, 2, 4, 3, []ring.Option{ring.SingleProducer(), ring.EvictAtLeast(3)}},
		{"AsymmetricFence", 1, 3, 2, 4, 1, []ring.Option{ring.SingleProducer(), ring.AsymmetricFence()}},
	} {
		t.Run(m.name, func(t *testing.T) {
			model := spec(m.capacity, m.quantum)
			for i := range 400 {
				r := ring.New[uint64](m.capacity, m.opts...)
				ring.StartAt(r, -uint64(rand.IntN(20)))
				hist := history(r, m.producers, m.consumers, 8, m.batch, true)
				if res := porcupine.CheckOperationsTimeout(model, hist, checkTime); res != porcupine.Ok {
					t.Fatalf("history %d is %s:\n%s", i, res, describe(model, hist))
				}
			}
		})
	}
}

// TestLinearizableOracle checks the check: the strict queue passes, and the
// same histories convict the two forms that are known to show orders that never
// were.
func TestLinearizableOracle(t *testing.T) {
	disturb(t, 4)
	for _, m := range []struct {
		name string
		make func() queue
		bad  bool
	}{
		{"Queue", func() queue { return ring.NewQueue[uint64](4) }, false},
		{"Vyukov", func() queue {
			q := forms.NewVyukov[uint64](4)
			q.Hook = func(int) { chaos.Access() }
			return q
		}, true},
		{"RTS", func() queue {
			q := forms.NewRTS[uint64](4)
			q.Hook = func(int) { chaos.Access() }
			return q
		}, true},
	} {
		t.Run(m.name, func(t *testing.T) {
			model := spec(4, 1)
			bad, total := 0, 0
			for ; bad == 0 && (m.bad || total < 400) && total < 100_000; total++ {
				hist := history(m.make(), 2, 2, 8, 1, false)
				if res := porcupine.CheckOperationsTimeout(model, hist, checkTime); res == porcupine.Illegal {
					bad++
				}
			}
			t.Logf("%d of %d histories are illegal", bad, total)
			if !m.bad && bad > 0 {
				t.Error("want none")
			}
			if m.bad && bad == 0 {
				t.Error("want some: the histories are too tame to prove anything")
			}
		})
	}
}

func describe(m porcupine.Model, hist []porcupine.Operation) string {
	s := ""
	for _, o := range hist {
		s += fmt.Sprintf("%3d-%3d client %d: %s\n", o.Call, o.Return, o.ClientId, m.DescribeOperation(o.Input, o.Output))
	}
	return s
}
